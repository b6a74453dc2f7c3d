//! A build: reader with tokenizer, prefill and writer side by side over bounded queues.
//!
//! In: an open corpus and model. Out: a store and its index. It does not know files of models.

pub(crate) mod disk_budget;
pub mod dry_run;
pub mod memory_budget;
pub(crate) mod partition;
pub(crate) mod previous;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use hyperrag_corpus::{Chunker, Corpus};
use hyperrag_files::replace_folder;
use hyperrag_kv::{
    CALIBRATION_CHUNKS, Calibration, Chunk, Fingerprint, KvBlock, LanguageModel, ShardId, Slot,
};
use hyperrag_retrieval::{IndexWriter, Location, RetrievalError};
use hyperrag_store::{Dead, Manifest, ShardChunks, Store, StoreWriter};
use serde::Serialize;

use crate::build::disk_budget::Room;
use crate::build::memory_budget::{Budget, Memory, Share};
use crate::build::partition::{HeldUnit, Units, chunks_of};
use crate::build::previous::Existing;
use crate::error::PipelineError;
use crate::maintain::compact::index_anew;
use crate::progress::BuildProgress;

/// Units read ahead of the one being computed.
const UNITS_AHEAD: usize = 1;
/// Batches of blocks that may wait for the disk.
const BATCHES_AHEAD: usize = 2;
/// Shards between two commits of the index.
const SHARDS_PER_COMMIT: u32 = 64;

/// What a build starts from.
pub struct BuildInput<'a, M> {
    /// The model.
    pub model: &'a M,
    /// The corpus.
    pub corpus: &'a Corpus,
    /// Cuts documents into chunks.
    pub chunker: &'a Chunker<'a>,
    /// What the store is made with.
    pub fingerprint: &'a Fingerprint,
    /// The calibration of the fingerprint, if it has one.
    pub calibration: Option<&'a Calibration>,
    /// Whether the corpus is added to what a complete store holds.
    pub add: Option<Add>,
    /// Rows of the corpus to take at most.
    pub limit: Option<u64>,
    /// Bytes that the store may take.
    pub max_bytes: Option<u64>,
    /// Memory that the build may hold.
    pub memory: Memory,
    /// Told what a user should know while it goes on.
    pub notice: fn(&str),
    /// Counters for whoever watches.
    pub progress: &'a BuildProgress,
    /// Set from outside to stop.
    pub stop: &'a AtomicBool,
}

/// How a corpus is added to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Add {
    /// Where an earlier one stopped, it is gone on with.
    Resume,
    /// What an earlier, unfinished one has sealed is forgotten.
    Restart,
}

/// What a build did, and what the store now holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BuildSummary {
    /// Documents in the store.
    pub documents: u64,
    /// Rows left out because they have no text.
    pub empty_rows: u64,
    /// Documents left out because the store has them as they are.
    pub unchanged: u64,
    /// Documents that count no longer because the input has them without text.
    pub emptied: u64,
    /// Documents in the shards that count no longer.
    pub dead: u64,
    /// Chunks in the store.
    pub chunks: u64,
    /// Positions in the store.
    pub tokens: u64,
    /// Bytes of all shards.
    pub bytes: u64,
    /// Shards in the store.
    pub shards: u64,
    /// Shards that were there before.
    pub shards_before: u64,
    /// Positions computed now.
    pub tokens_computed: u64,
    /// Seconds taken.
    pub seconds: f64,
}

/// Blocks on their way to the disk.
struct Batch<'a> {
    first: Slot,
    blocks: Vec<KvBlock>,
    _share: Share<'a>,
}

/// From the prefill to the writer: a unit, then its blocks in order.
enum Message<'a> {
    Unit(Arc<HeldUnit<'a>>),
    Blocks(Batch<'a>),
}

/// Builds the store at `root`, or goes on where an earlier build stopped: reader with tokenizer,
/// prefill and writer run side by side over queues that are bounded in number and bytes.
///
/// # Errors
/// [`PipelineError`]. What was sealed before stays; the unit in work is given up.
pub fn build<M: LanguageModel>(
    input: &BuildInput<'_, M>,
    root: &Path,
) -> Result<BuildSummary, PipelineError> {
    let start = Instant::now();
    if !is_added(input, root) {
        check_not_empty(input)?;
    }
    let mut store = StoreWriter::open(root, input.fingerprint, input.calibration)?;
    begin(input, &mut store)?;
    let mut index = open_index(root, &store, input.stop)?;
    let shards_before = store.manifest().shards.len() as u64;
    let sealed = store.manifest().clone();
    let units = match sealed.first_shard {
        ShardId(0) => Units::new(input),
        _ => Units::added(input, &sealed, Existing::open(root)?),
    };
    let (held_units, held_blocks) = (input.memory.units(), input.memory.blocks());
    // A stage that fails stops the others, so the one nearest the disk has the cause.
    let stages = thread::scope(|scope| {
        // Made in here: where a thread does not start, the other one sees its queue end.
        let (unit_sender, unit_receiver) = sync_channel(UNITS_AHEAD);
        let (block_sender, block_receiver) = sync_channel(BATCHES_AHEAD);
        let mut sink = UnitSink { room: Room::of(root, &sealed), sender: unit_sender };
        let (held, sealed) = (&held_units, &sealed);
        let read = move || read_units(input, units, sealed, held, &mut sink);
        let reader = thread::Builder::new().spawn_scoped(scope, read)?;
        let write = || write_units(block_receiver, &mut store, &mut index);
        let writer = thread::Builder::new().spawn_scoped(scope, write)?;
        let computed = prefill_units(input, unit_receiver, &held_blocks, block_sender);
        Ok((join(writer), computed, join(reader)))
    });
    let (written, computed, read) =
        stages.map_err(|error: io::Error| PipelineError::Threads(error.to_string()))?;
    written?;
    if let (Err(PipelineError::Interrupted), _) | (_, Err(PipelineError::MaxBytes { .. })) =
        (&computed, &read)
    {
        // What is sealed can be searched.
        index.commit(store.manifest().next_shard().0)?;
    }
    let tokens_computed = computed?;
    let ReadRows { empty_rows, unchanged, dead } = read?;
    let changed = !store.manifest().batch().is_empty() || !dead.is_empty();
    if !store.manifest().complete && changed {
        index.finish(store.manifest().next_shard().0)?;
        store.finish_without(&dead)?;
    }
    let summary = BuildSummary {
        empty_rows,
        unchanged,
        emptied: documents_of(&dead),
        shards_before,
        ..BuildSummary::default()
    };
    let seconds = start.elapsed().as_secs_f64();
    Ok(self::summary(&store, BuildSummary { tokens_computed, seconds, ..summary }))
}

/// Whether the input is the store's first or is added to it.
fn begin<M>(input: &BuildInput<'_, M>, store: &mut StoreWriter) -> Result<(), PipelineError> {
    if input.add == Some(Add::Restart) {
        store.discard_batch()?;
    }
    match input.add {
        // An unfinished first build is gone on with.
        Some(_) if store.manifest().complete => store.begin_batch(),
        None if store.manifest().first_shard > ShardId(0) => return Err(PipelineError::AddedTo),
        _ => {}
    }
    Ok(())
}

/// Whether the input is added to a store that is complete: even one without text changes that.
fn is_added<M>(input: &BuildInput<'_, M>, root: &Path) -> bool {
    input.add.is_some() && Store::open(root).is_ok_and(|store| store.manifest().complete)
}

/// Rows that were left out of those read, and documents of the store that they leave nothing of.
struct ReadRows {
    empty_rows: u64,
    unchanged: u64,
    dead: Vec<Dead>,
}

pub(crate) fn documents_of(dead: &[Dead]) -> u64 {
    dead.iter().map(|dead| dead.rows.len() as u64).sum()
}

/// The reader's way to the prefill, open as long as the store has room.
struct UnitSink<'a> {
    room: Room,
    sender: SyncSender<HeldUnit<'a>>,
}

/// Reads the corpus unit by unit: those that are sealed must be the same, the others are sent on.
fn read_units<'a, M: LanguageModel>(
    input: &BuildInput<'_, M>,
    mut units: Units<'_>,
    sealed: &Manifest,
    held: &'a Budget,
    sink: &mut UnitSink<'a>,
) -> Result<ReadRows, PipelineError> {
    let changed = |(first, last)| match sealed.first_shard {
        ShardId(0) => PipelineError::Changed { first, last },
        _ => PipelineError::ChangedAppend { first, last },
    };
    for record in sealed.batch() {
        if let Some(rows) = units.differ(record)? {
            return Err(changed(rows));
        }
        BuildProgress::add(&input.progress.rows_done, record.rows);
    }
    if sealed.complete
        && let Some(rows) = units.more()?
    {
        return Err(changed(rows));
    }
    while let Some(held) = units.next_unit(held)? {
        sink.room.take(input, &held.unit)?;
        if sink.sender.send(held).is_err() {
            break; // The prefill has stopped and says why.
        }
    }
    let (empty_rows, unchanged) = (units.empty_rows, units.unchanged);
    Ok(ReadRows { empty_rows, unchanged, dead: units.emptied() })
}

fn summary(store: &StoreWriter, rest: BuildSummary) -> BuildSummary {
    let shards = &store.manifest().shards;
    let sum = |part: fn(&hyperrag_store::ShardRecord) -> u64| shards.iter().map(part).sum();
    BuildSummary {
        documents: store.manifest().documents() - store.manifest().dead_documents(),
        dead: store.manifest().dead_documents(),
        chunks: sum(|shard| shard.chunks),
        tokens: sum(|shard| shard.tokens),
        bytes: sum(|shard| shard.kv.bytes),
        shards: shards.len() as u64,
        ..rest
    }
}

/// Reads up to the first row that has a chunk, so that a corpus without any makes no store.
fn check_not_empty<M>(input: &BuildInput<'_, M>) -> Result<(), PipelineError> {
    let limit = usize::try_from(input.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let mut rows = 0;
    for row in input.corpus.rows().take(limit) {
        let row = row?;
        if !chunks_of(input.chunker, &row.document, &row.place)?.is_empty() {
            return Ok(());
        }
        rows += 1;
    }
    Err(PipelineError::EmptyCorpus { rows })
}

/// The chunks that a calibration is made from: the first ones of the corpus, none of them from beyond
/// its first `limit` rows. So the store has them too, and its calibration can be made again.
///
/// # Errors
/// [`PipelineError`] where these rows can not be read, or have no chunk.
pub fn calibration_chunks(
    corpus: &Corpus,
    chunker: &Chunker<'_>,
    limit: Option<u64>,
) -> Result<Vec<Chunk>, PipelineError> {
    let limit = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let (mut chunks, mut rows) = (Vec::new(), 0);
    for row in corpus.rows().take(limit) {
        rows += 1;
        let row = row?;
        chunks.extend(chunks_of(chunker, &row.document, &row.place)?);
        if chunks.len() >= CALIBRATION_CHUNKS {
            break;
        }
    }
    chunks.truncate(CALIBRATION_CHUNKS);
    if chunks.is_empty() { Err(PipelineError::EmptyCorpus { rows }) } else { Ok(chunks) }
}

/// The result of a stage; its panic goes on here.
fn join<T>(stage: thread::ScopedJoinHandle<'_, T>) -> T {
    stage.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Computes the blocks of the units in order, and gives the positions computed.
fn prefill_units<'a, M: LanguageModel>(
    input: &BuildInput<'_, M>,
    units: Receiver<HeldUnit<'a>>,
    held_blocks: &'a Budget,
    blocks: SyncSender<Message<'a>>,
) -> Result<u64, PipelineError> {
    let (mut computed, tokens_max) = (0, prefill_tokens(input.model, held_blocks));
    for unit in units {
        let held = Arc::new(unit);
        if blocks.send(Message::Unit(Arc::clone(&held))).is_err() {
            break; // The writer has stopped and says why.
        }
        let (unit, mut first) = (&held.unit, 0);
        for batch in batches(&unit.contents.chunks, tokens_max) {
            if input.stop.load(Ordering::Relaxed) {
                return Err(PipelineError::Interrupted);
            }
            let made = input.model.prefill(batch)?;
            let tokens = made.iter().map(|block| block.tokens() as u64).sum();
            let bytes = made.iter().map(|block| block.kv().len() as u64).sum();
            BuildProgress::add(&input.progress.tokens, tokens);
            BuildProgress::add(&input.progress.bytes_written, bytes);
            computed += tokens;
            let mut share = held_blocks.share();
            share.grow(bytes);
            let made = Batch { first: Slot(first), blocks: made, _share: share };
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
    let position = model.geometry().block_bytes(1) as u64;
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

/// Writes units as they come. The one whose blocks end early is given up.
fn write_units(
    messages: Receiver<Message<'_>>,
    store: &mut StoreWriter,
    index: &mut IndexWriter,
) -> Result<(), PipelineError> {
    while let Ok(Message::Unit(held)) = messages.recv() {
        let unit = &held.unit;
        let mut writer = store.begin(unit)?;
        let mut written = 0;
        while written < unit.contents.chunks.len() {
            let Ok(Message::Blocks(batch)) = messages.recv() else { return Ok(()) };
            for (slot, block) in (batch.first.0..).zip(&batch.blocks) {
                writer.write(Slot(slot), block)?;
            }
            written += batch.blocks.len();
        }
        writer.seal()?;
        add_to_index(index, unit.shard, &unit.contents)?;
        let sealed = unit.shard.0 + 1;
        if sealed.is_multiple_of(SHARDS_PER_COMMIT) {
            index.commit(sealed)?;
        }
    }
    Ok(())
}

pub(crate) fn add_to_index(
    index: &mut IndexWriter,
    shard: ShardId,
    contents: &ShardChunks,
) -> Result<(), PipelineError> {
    for indexed in &contents.documents {
        let location = Location { shard, first_slot: indexed.first_slot, chunks: indexed.chunks };
        index.add(indexed.row, &indexed.document, location)?;
    }
    Ok(())
}

/// Opens the index and brings it up to the sealed shards: a crash may have left it behind. An
/// index that is damaged, or ahead of the store, is made anew from the chunk files beside the one that
/// readers have, and takes its place when it is whole.
fn open_index(
    root: &Path,
    store: &StoreWriter,
    stop: &AtomicBool,
) -> Result<IndexWriter, PipelineError> {
    let manifest = store.manifest();
    let (folder, end) = (root.join(manifest.index_folder()), manifest.next_shard().0);
    let analyzer = manifest.fingerprint.language.parse()?;
    let opened = IndexWriter::open(&folder, analyzer);
    let is_usable = match &opened {
        Ok(index) => index.indexed_shards() <= end,
        Err(error) => !matches!(error, RetrievalError::Damaged { .. }),
    };
    let mut index = if is_usable {
        opened?
    } else {
        drop(opened);
        let aside = Manifest { index: manifest.generation + 1, ..manifest.clone() };
        let made = root.join(aside.index_folder());
        let io = |source| RetrievalError::Io { path: made.clone(), source };
        match std::fs::remove_dir_all(&made) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error).into()),
            _ => index_anew(root, &aside, stop)?,
        }
        replace_folder(&made, &folder).map_err(io)?;
        IndexWriter::open(&folder, analyzer)?
    };
    let indexed = index.indexed_shards();
    let mut behind = manifest.shards.iter().filter(|record| record.shard.0 >= indexed).peekable();
    let any = behind.peek().is_some();
    for record in behind {
        add_to_index(&mut index, record.shard, &store.chunks(record.shard)?)?;
    }
    if any {
        index.commit(end)?;
    }
    Ok(index)
}
