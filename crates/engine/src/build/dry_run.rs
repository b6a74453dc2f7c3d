//! The plan of a build, made without building.

use std::path::Path;
use std::time::Instant;

use hyperrag_core::{Chunk, KvBlock, LanguageModel};
use hyperrag_store::{Store, StoreError};
use serde::Serialize;

use crate::build::partition::Units;
use crate::build::plan::BuildInput;
use crate::build::prefill::{batches, prefill_tokens};
use crate::build::previous::PreviousVersions;
use crate::build::read::documents_of;
use crate::error::EngineError;
use crate::progress::BuildProgress;

/// Plan of a build.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DryRun {
    /// Documents with text.
    pub documents: u64,
    /// Rows without any.
    pub empty_rows: u64,
    /// Rows left out because they cannot be read.
    pub bad_rows: u64,
    /// Rows in which half a surrogate pair was replaced by U+FFFD.
    pub lossy_rows: u64,
    /// Documents that the store has as they are.
    pub unchanged: u64,
    /// Documents that the store has with a text, and the input without.
    pub emptied: u64,
    /// Chunks.
    pub chunks: u64,
    /// Positions.
    pub tokens: u64,
    /// Bytes of all shards, about.
    pub bytes: u64,
    /// Positions a second, measured on a few chunks of this corpus.
    pub tokens_per_second: f64,
    /// Seconds that prefill will take at that rate.
    pub seconds: f64,
}

/// Reads and cuts the whole corpus, of one that is added to the store at `root` what is new in it,
/// computes a few chunks to measure the speed, and writes nothing.
///
/// # Errors
/// [`EngineError`], as [`build`](fn@crate::build::build).
pub fn dry_run<M: LanguageModel>(
    input: &BuildInput<'_, M>,
    root: &Path,
) -> Result<DryRun, EngineError> {
    let store = match input.add {
        Some(_) if Store::exists(root) => Some(Store::open(root)?),
        _ => None,
    };
    if let Some(store) = &store
        && let Some(mismatch) = store.manifest().fingerprint.mismatch(input.fingerprint)
    {
        return Err(StoreError::mismatch(root, mismatch).into());
    }
    let mut units = match &store {
        Some(store) => Units::added(input, store.manifest(), PreviousVersions::of(store, None)?),
        None => Units::new(input),
    };
    let mut plan = DryRun::default();
    let held_units = input.memory.units();
    while let Some(held) = units.next_unit(&held_units)? {
        BuildProgress::add(&input.progress.rows_done, held.unit.rows);
        let contents = &held.unit.contents;
        for chunk in &contents.chunks {
            plan.tokens += chunk.tokens.len() as u64;
            let bytes = input.model.kv_shape().block_bytes(chunk.tokens.len()) as u64;
            plan.bytes += (bytes + 512).next_multiple_of(4096);
        }
        plan.documents += contents.documents.len() as u64;
        plan.chunks += contents.chunks.len() as u64;
        if plan.tokens_per_second == 0.0 && !contents.chunks.is_empty() {
            let tokens_max = prefill_tokens(input.model, &input.memory.blocks());
            plan.tokens_per_second = measure(input.model, &contents.chunks, tokens_max)?;
        }
    }
    (plan.unchanged, plan.empty_rows) = (units.unchanged, units.empty_rows);
    (plan.bad_rows, plan.lossy_rows) = (units.bad_rows(), units.lossy_rows());
    let rows = units.rows_read();
    plan.emptied = documents_of(&units.emptied());
    if plan.documents > 0 {
        plan.seconds = plan.tokens as f64 / plan.tokens_per_second;
    } else if !store.is_some_and(|store| store.manifest().complete) {
        return Err(EngineError::EmptyCorpus { rows });
    }
    Ok(plan)
}

/// Positions a second over two batches, after one to warm up.
fn measure<M: LanguageModel>(
    model: &M,
    chunks: &[Chunk],
    tokens_max: usize,
) -> Result<f64, EngineError> {
    let sample: Vec<_> = batches(chunks, tokens_max).take(2).collect();
    model.prefill(sample[0])?;
    let start = Instant::now();
    let mut tokens = 0;
    for batch in sample {
        tokens += model.prefill(batch)?.iter().map(KvBlock::tokens).sum::<usize>();
    }
    Ok(tokens as f64 / start.elapsed().as_secs_f64())
}
