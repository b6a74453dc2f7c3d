//! The last stage of a build: blocks in order in, sealed shards out. It does not know the model.

use std::sync::mpsc::Receiver;

use hyperrag_core::Slot;
use hyperrag_store::{ShardInput, ShardRecord, StoreWriter};

use crate::build::prefill::Message;
use crate::error::EngineError;

/// Writes units as they come, and has `sealed` do what follows on each. The one whose blocks end early is given up.
pub(crate) fn write_units(
    messages: Receiver<Message<'_>>,
    store: &mut StoreWriter,
    mut sealed: impl FnMut(&StoreWriter, &ShardInput, ShardRecord) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    while let Ok(Message::ShardInput(held)) = messages.recv() {
        let unit = &held.unit;
        let mut shard = store.begin(unit)?;
        let mut written = 0;
        while written < unit.contents.chunks.len() {
            let Ok(Message::Blocks(batch)) = messages.recv() else { return Ok(()) };
            for (slot, block) in (batch.first.0..).zip(&batch.blocks) {
                shard.write(Slot(slot), block)?;
            }
            written += batch.blocks.len();
        }
        let record = shard.seal()?;
        sealed(store, unit, record)?;
    }
    Ok(())
}
