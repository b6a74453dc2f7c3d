//! A block as scoring reads it, layer by layer: layer numbers come in, bytes go out. Knows no storage.

use std::path::PathBuf;
use std::time::Instant;

use super::kv_block::KvBlock;
use super::kv_shape::KvShape;
use crate::error::BlockError;

/// A read that a replica or another tier served because the first place has the bytes not or damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// File, and the fault in it.
    pub what: String,
    /// Folder of the replica, or name of the tier, that served it.
    pub from: PathBuf,
    /// Whether blocks come from tiers too: the fault need not be the store's.
    pub tiered: bool,
}

/// Whether a block is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Reading waits for no place that is far, or fails at once.
    AtHand,
    /// A far place has not sent all of it.
    Away {
        /// Number of the place in the order in which places are asked.
        place: usize,
    },
    /// A far place has sent all of it.
    Came {
        /// Number of the place.
        place: usize,
        /// Time at which the last part came.
        when: Instant,
    },
}

/// A block that is read layer by layer, wherever it is stored.
///
/// A pass over many blocks needs one layer of each at a time. Read just before use into a reused buffer, a
/// layer is still in the core's cache, and no block needs its own memory.
pub trait LayerSource: Send + Sync {
    /// Says whether the block is here.
    fn presence(&self) -> Presence {
        Presence::AtHand
    }

    /// Returns the bytes that a far place has sent and that are held.
    fn came_bytes(&self) -> u64 {
        0
    }

    /// Has all of a block sent that is elsewhere. Reading it asks for what is needed anyway.
    fn request(&self) {}

    /// Sizes and element type.
    fn kv_shape(&self) -> &KvShape;

    /// Positions held.
    fn tokens(&self) -> usize;

    /// Returns the final hidden state of the last position, after the last norm. It may arrive last.
    ///
    /// # Errors
    /// See [`LayerSource::layer`].
    fn hidden(&self) -> Result<&[f32], BlockError>;

    /// Returns K and V of a layer, laid out as by [`KvBlock::layer`]. `buffer` holds them if they must be
    /// read.
    ///
    /// # Errors
    /// [`BlockError`] if the bytes cannot be read or are not those written.
    fn layer<'a>(&'a self, layer: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], BlockError>;

    /// Announces that a layer will be asked for soon, so that it can be fetched meanwhile. The block need not
    /// have such a layer.
    fn prefetch(&self, _layer: usize) {}

    /// Lists the reads that replicas have served so far.
    fn failovers(&self) -> Vec<Failover> {
        Vec::new()
    }

    /// Reads the whole block.
    ///
    /// # Errors
    /// See [`LayerSource::layer`].
    fn read(&self) -> Result<KvBlock, BlockError>;
}

impl LayerSource for KvBlock {
    fn kv_shape(&self) -> &KvShape {
        self.kv_shape()
    }

    fn tokens(&self) -> usize {
        self.tokens()
    }

    fn hidden(&self) -> Result<&[f32], BlockError> {
        Ok(self.hidden())
    }

    fn layer<'a>(&'a self, layer: usize, _: &'a mut Vec<u8>) -> Result<&'a [u8], BlockError> {
        Ok(self.layer(layer))
    }

    fn read(&self) -> Result<KvBlock, BlockError> {
        Ok(self.clone())
    }
}
