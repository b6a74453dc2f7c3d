//! Blocks that are being read: a key comes in, the one open block of it goes out, so that queries which want the
//! same block at one time fetch it once. It keeps no block that nobody reads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hyperrag_core::{BlockError, BlockKey};

use crate::tiered::block::TieredBlock;

/// Smallest number of entries at which those of closed blocks are removed.
const SWEPT: usize = 1024;

/// The open blocks of a store.
#[derive(Default)]
pub(crate) struct OpenBlocks(Mutex<HashMap<BlockKey, Weak<TieredBlock>>>);

impl OpenBlocks {
    /// Returns the block of `key` that is open already, else the one that `open` makes. Both of two that are
    /// made at one time lead to one.
    ///
    /// # Errors
    /// The errors of `open`.
    pub(crate) fn block(
        &self,
        key: &BlockKey,
        open: impl FnOnce() -> Result<Option<Arc<TieredBlock>>, BlockError>,
    ) -> Result<Option<Arc<TieredBlock>>, BlockError> {
        let find = || self.lock().get(key).and_then(Weak::upgrade);
        if let Some(block) = find() {
            return Ok(Some(block));
        }
        let Some(made) = open()? else { return Ok(None) };
        let mut blocks = self.lock();
        if let Some(block) = blocks.get(key).and_then(Weak::upgrade) {
            return Ok(Some(block));
        }
        if blocks.len() >= SWEPT && blocks.len() == blocks.capacity() {
            blocks.retain(|_, block| block.strong_count() > 0);
        }
        blocks.insert(key.clone(), Arc::downgrade(&made));
        Ok(Some(made))
    }

    /// Locks. A panic of another thread does not matter: every change is one step.
    fn lock(&self) -> MutexGuard<'_, HashMap<BlockKey, Weak<TieredBlock>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
