//! The second stage of a build: units of chunks in, their blocks in order out. It does not know files.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};

use hyperrag_core::{Chunk, KvBlock, LanguageModel, Slot};

use crate::build::memory_budget::{Budget, Share};
use crate::build::partition::HeldUnit;
use crate::build::plan::BuildInput;
use crate::error::EngineError;
use crate::progress::BuildProgress;

/// Blocks on their way to the disk.
pub(crate) struct BlockBatch<'a> {
    pub(crate) first: Slot,
    pub(crate) blocks: Vec<KvBlock>,
    _share: Share<'a>,
}

/// From the prefill to the writer: a unit, then its blocks in order.
pub(crate) enum Message<'a> {
    ShardInput(Arc<HeldUnit<'a>>),
    Blocks(BlockBatch<'a>),
}

/// Computes the blocks of the units in order, and gives the positions computed.
pub(crate) fn prefill_units<'a, M: LanguageModel>(
    input: &BuildInput<'_, M>,
    units: Receiver<HeldUnit<'a>>,
    held_blocks: &'a Budget,
    blocks: SyncSender<Message<'a>>,
) -> Result<u64, EngineError> {
    let (mut computed, tokens_max) = (0, prefill_tokens(input.model, held_blocks));
    for unit in units {
        let held = Arc::new(unit);
        if blocks.send(Message::ShardInput(Arc::clone(&held))).is_err() {
            break; // The writer has stopped and says why.
        }
        let (unit, mut first) = (&held.unit, 0);
        for batch in batches(&unit.contents.chunks, tokens_max) {
            if input.stop.load(Ordering::Relaxed) {
                return Err(EngineError::Interrupted);
            }
            let made = input.model.prefill(batch)?;
            let tokens = made.iter().map(|block| block.tokens() as u64).sum();
            let bytes = made.iter().map(|block| block.kv().len() as u64).sum();
            BuildProgress::add(&input.progress.tokens, tokens);
            BuildProgress::add(&input.progress.bytes_written, bytes);
            computed += tokens;
            let mut share = held_blocks.share();
            share.grow(bytes);
            let made = BlockBatch { first: Slot(first), blocks: made, _share: share };
            if blocks.send(Message::Blocks(made)).is_err() {
                return Ok(computed);
            }
            first += batch.len() as u32;
        }
        BuildProgress::add(&input.progress.rows_done, unit.rows);
        BuildProgress::add(&input.progress.documents, unit.contents.documents.len() as u64);
    }
    Ok(computed)
}

/// Positions that one call of the prefill is given: what the model computes best, but no more than
/// leaves room for as many blocks that are being written.
pub(crate) fn prefill_tokens<M: LanguageModel>(model: &M, held_blocks: &Budget) -> usize {
    let position = model.kv_shape().block_bytes(1) as u64;
    let tokens = held_blocks.bytes() / 2 / position.max(1);
    model.prefill_tokens().min(usize::try_from(tokens).unwrap_or(usize::MAX)).max(1)
}

/// Cuts `chunks` into runs of at most `max` positions, or one chunk.
pub fn batches(mut chunks: &[Chunk], max: usize) -> impl Iterator<Item = &[Chunk]> {
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fits = chunks.iter().take_while(|chunk| {
            tokens += chunk.tokens.len();
            tokens <= max
        });
        let count = fits.count().max(1).min(chunks.len());
        let (batch, rest) = chunks.split_at(count);
        chunks = rest;
        (!batch.is_empty()).then_some(batch)
    })
}
