//! Times a device on random tokens: prefill, recompute, and reuse from device, host and disk. It is
//! generic over the model.

use std::path::Path;
use std::time::Instant;

use hyperrag_core::{
    BlockKey, Chunk, ChunkId, Digest, DocId, Document, Fingerprint, KvBlock, LanguageModel,
    QuerySuffix, ShardId, Slot,
};
use hyperrag_engine::EngineError;
use hyperrag_rerank::{BlockSource, OnDamage, ScoreRequest, score};
use hyperrag_store::{IndexedDocument, ShardChunks, ShardInput, Store, StoreWriter};
use serde::Serialize;

use crate::metric::agreement::agreement;

/// Sizes of what is timed on a device.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DeviceBenchSettings {
    /// Candidates.
    pub depth: usize,
    /// Positions of a candidate.
    pub chunk_tokens: u32,
    /// Tokens of the query.
    pub query_tokens: u32,
    /// Timed runs of each figure.
    pub runs: usize,
    /// Token ids that the model has.
    pub vocabulary: usize,
}

/// Seconds of every run over all candidates, by where their blocks come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DeviceFigures {
    /// Prefill of all candidates, their K and V brought to the host.
    pub prefill: Vec<f64>,
    /// Prefill and score, K and V staying on the device.
    pub recompute: Vec<f64>,
    /// Score with blocks that are on the device.
    pub device: Vec<f64>,
    /// Upload from the host's memory and score.
    pub host: Vec<f64>,
    /// Read from a store on disk (in the page cache), check, upload and score.
    pub disk: Vec<f64>,
    /// Bytes of all blocks.
    pub bytes: u64,
    /// The largest difference between scores of reuse and of recompute.
    pub score_difference_max: f64,
}

/// Times `model` on candidates of random tokens; their store is made in `folder`.
///
/// # Errors
/// [`EngineError`].
pub fn bench_device<M: LanguageModel>(
    model: &M,
    settings: DeviceBenchSettings,
    fingerprint: &Fingerprint,
    folder: &Path,
    each: &mut dyn FnMut(),
) -> Result<DeviceFigures, EngineError> {
    let chunks = random_chunks(settings)?;
    let query = tokens(u64::MAX, settings.query_tokens as usize, settings.vocabulary);
    let mut figures = DeviceFigures::default();
    let mut blocks = model.prefill(&chunks)?; // The first run warms up.
    figures.prefill = timed(settings.runs, each, || {
        blocks = model.prefill(&chunks)?;
        Ok(())
    })?;
    figures.bytes = blocks.iter().map(|b| b.kv_shape().block_bytes(b.tokens()) as u64).sum();
    let resident = upload(model, blocks.clone())?;
    let resident: Vec<_> = resident.iter().collect();
    let mut reused = model.score(&query, &resident)?;
    figures.device = timed(settings.runs, each, || {
        reused = model.score(&query, &resident)?;
        Ok(())
    })?;
    drop(resident);
    let host = |blocks| {
        let resident = upload(model, blocks)?;
        model.score(&query, &resident.iter().collect::<Vec<_>>())?;
        Ok(())
    };
    // An upload takes its blocks; their copies are not what is timed.
    figures.host = timed_after(settings.runs, each, || blocks.clone(), host)?;
    let keys = write_store(folder, fingerprint, &chunks, &blocks)?;
    drop(blocks);
    let store = Store::open(folder)?;
    let chunk_tokens = settings.chunk_tokens as usize;
    let query = QuerySuffix::likelihood(&query);
    let request = ScoreRequest { query: &query, keys: &keys };
    let scored = |source| {
        let scored = score(model, &[request], chunk_tokens, source, &store)?;
        scored.into_iter().collect::<Result<Vec<_>, _>>()
    };
    figures.disk = timed(settings.runs, each, || {
        scored(BlockSource::Stored(&store, OnDamage::Fail))?;
        Ok(())
    })?;
    let recomputed: Vec<f32> =
        scored(BlockSource::Recompute)?.into_iter().flat_map(|s| s.scores).flatten().collect();
    figures.score_difference_max = agreement(&reused, &recomputed).score_difference_max;
    figures.recompute = timed(settings.runs, each, || {
        scored(BlockSource::Recompute)?;
        Ok(())
    })?;
    Ok(figures)
}

fn timed(
    runs: usize,
    each: &mut dyn FnMut(),
    mut run: impl FnMut() -> Result<(), EngineError>,
) -> Result<Vec<f64>, EngineError> {
    timed_after(runs, each, || (), |()| run())
}

/// Seconds of every run, `prepare` before it left out.
fn timed_after<T>(
    runs: usize,
    each: &mut dyn FnMut(),
    prepare: impl Fn() -> T,
    mut run: impl FnMut(T) -> Result<(), EngineError>,
) -> Result<Vec<f64>, EngineError> {
    let seconds = (0..runs.max(1)).map(|_| {
        let prepared = prepare();
        let start = Instant::now();
        run(prepared)?;
        each();
        Ok(start.elapsed().as_secs_f64())
    });
    seconds.collect()
}

fn upload<M: LanguageModel>(
    model: &M,
    blocks: Vec<KvBlock>,
) -> Result<Vec<M::Resident>, EngineError> {
    Ok(blocks.into_iter().map(|block| model.upload(block)).collect::<Result<_, _>>()?)
}

/// Token ids that depend on `seed` alone.
fn tokens(seed: u64, count: usize, vocabulary: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * count];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    let numbers = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    numbers.map(|number| (number as usize % vocabulary.max(1)) as u32).collect()
}

fn random_chunks(settings: DeviceBenchSettings) -> Result<Vec<Chunk>, EngineError> {
    let chunks = (0..settings.depth).map(|i| Chunk {
        id: ChunkId { document: document_id(i), ordinal: 0 },
        tokens: tokens(i as u64, settings.chunk_tokens as usize, settings.vocabulary),
    });
    match settings.depth {
        0 => Err(EngineError::EmptyCorpus { rows: 0 }),
        _ => Ok(chunks.collect()),
    }
}

fn document_id(i: usize) -> DocId {
    DocId::new(&i.to_string()).expect("a number is a document id")
}

/// Writes the blocks as a store of one shard, and gives their keys.
fn write_store(
    folder: &Path,
    fingerprint: &Fingerprint,
    chunks: &[Chunk],
    blocks: &[KvBlock],
) -> Result<Vec<BlockKey>, EngineError> {
    let slots = (0..).map(Slot);
    let documents = chunks.iter().zip(slots.clone()).map(|(chunk, slot)| {
        let id = chunk.id.document.clone();
        let document = Document { id, title: String::new(), text: String::new() };
        IndexedDocument { row: u64::from(slot.0), document, first_slot: slot, chunks: 1 }
    });
    let contents = ShardChunks { chunks: chunks.to_vec(), documents: documents.collect() };
    let (shard, rows) = (ShardId(0), chunks.len() as u64);
    let (rows_digest, replaces) = (Digest::of(b"random"), Vec::new());
    let unit = ShardInput { shard, rows, rows_digest, contents, replaces };
    let mut store = StoreWriter::open(folder, fingerprint, None)?;
    let mut writer = store.begin(&unit)?;
    for (block, slot) in blocks.iter().zip(slots.clone()) {
        writer.write(slot, block)?;
    }
    writer.seal()?;
    store.finish()?;
    let keys = chunks.iter().zip(slots);
    Ok(keys.map(|(chunk, slot)| BlockKey { shard, slot, chunk: chunk.id.clone() }).collect())
}
