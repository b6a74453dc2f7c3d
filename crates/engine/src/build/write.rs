//! The last stage of a build: blocks in order in, shards and index out. It does not know the model.

use std::sync::mpsc::Receiver;

use hyperrag_core::Slot;
use hyperrag_retrieval::IndexWriter;
use hyperrag_store::StoreWriter;

use crate::build::prefill::Message;
use crate::error::EngineError;
use crate::index;

/// Shards between two commits of the index.
const SHARDS_PER_COMMIT: u32 = 64;

/// Writes units as they come. The one whose blocks end early is given up.
pub(crate) fn write_units(
    messages: Receiver<Message<'_>>,
    store: &mut StoreWriter,
    writer: &mut IndexWriter,
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
        shard.seal()?;
        index::add(writer, unit.shard, &unit.contents)?;
        let sealed = unit.shard.0 + 1;
        if sealed.is_multiple_of(SHARDS_PER_COMMIT) {
            writer.commit(sealed)?;
        }
    }
    Ok(())
}
