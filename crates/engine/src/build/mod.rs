//! A build: reader with tokenizer, prefill and writer side by side over bounded queues.
//!
//! In: an open corpus and model. Out: a store and its index. It does not know files of models.

pub mod build_place;
pub mod claims;
pub(crate) mod disk_budget;
pub mod dry_run;
pub mod memory_budget;
pub mod merge;
mod nonce;
mod partition;
pub mod partition_error;
pub mod plan;
pub mod prefill;
mod previous;
pub mod read;
mod span;
mod unit_list;
pub mod worker;
mod write;

use std::io;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Instant;

use hyperrag_core::{LanguageModel, ShardId};
use hyperrag_store::{BUILD, Store, StoreWriter};

use crate::build::disk_budget::DiskBudget;
use crate::build::partition::Units;
use crate::build::partition_error::PartitionError;
use crate::build::plan::{Add, BuildInput, BuildSummary};
use crate::build::prefill::prefill_units;
use crate::build::previous::PreviousVersions;
use crate::build::read::{ReadRows, UnitSink, check_not_empty, documents_of, read_units};
use crate::build::write::write_units;
use crate::error::EngineError;
use crate::index;

/// Units read ahead of the one being computed.
const UNITS_AHEAD: usize = 1;
/// Batches of blocks that may wait for the disk.
const BATCHES_AHEAD: usize = 2;

/// Builds the store at `root`, or goes on where an earlier build stopped: reader with tokenizer,
/// prefill and writer run side by side over queues that are bounded in number and bytes.
///
/// # Errors
/// [`EngineError`]. What was sealed before stays; the unit in work is given up.
pub fn build<M: LanguageModel>(
    input: &BuildInput<'_, M>,
    root: &Path,
) -> Result<BuildSummary, EngineError> {
    let start = Instant::now();
    if root.join(BUILD).is_dir() && Store::open(root).is_err() {
        return Err(PartitionError::BeingBuilt { place: root.display().to_string() }.into());
    }
    let readable = input.add.and_then(|_| Store::open(root).ok());
    // An input that is added to a complete store changes it even without text.
    if !readable.as_ref().is_some_and(|store| store.manifest().complete) {
        check_not_empty(input)?;
    }
    let open = match input.add {
        Some(Add::Restart) => StoreWriter::open_without_append,
        _ => StoreWriter::open,
    };
    let mut store = open(root, input.fingerprint, input.calibration)?;
    begin(input, &mut store)?;
    input.notes.map_or(Ok(()), |notes| store.note(notes))?;
    let (mut index, opened) = index::open_to_write(root, &store, input.stop, input.warn)?;
    let shards_before = store.manifest().shards.len() as u64;
    let sealed = store.manifest().clone();
    let units = match sealed.first_shard {
        ShardId(0) => Units::new(input),
        _ => {
            // Another writer may have been there in between.
            let generation = sealed.generation;
            let readable = readable.filter(|store| store.manifest().generation == generation);
            let readable = readable.map_or_else(|| Store::open(root), Ok)?;
            Units::added(input, &sealed, PreviousVersions::of(&readable, opened)?)
        }
    };
    let (held_units, held_blocks) = (input.memory.units(), input.memory.blocks());
    // A stage that fails stops the others, so the one nearest the disk has the cause.
    let stages = thread::scope(|scope| {
        // Made in here: where a thread does not start, the other one sees its queue end.
        let (unit_sender, unit_receiver) = sync_channel(UNITS_AHEAD);
        let (block_sender, block_receiver) = sync_channel(BATCHES_AHEAD);
        let mut sink = UnitSink { disk_budget: DiskBudget::of(root, &sealed), sender: unit_sender };
        let (held, sealed) = (&held_units, &sealed);
        let read = move || read_units(input, units, sealed, held, &mut sink);
        let reader = thread::Builder::new().spawn_scoped(scope, read)?;
        let write = || {
            write_units(block_receiver, &mut store, |_, unit, _| {
                index::add_and_commit(&mut index, unit.shard, &unit.contents)
            })
        };
        let writer = thread::Builder::new().spawn_scoped(scope, write)?;
        let computed = prefill_units(input, unit_receiver, &held_blocks, block_sender);
        Ok((join(writer), computed, join(reader)))
    });
    let (written, computed, read) =
        stages.map_err(|error: io::Error| EngineError::Threads(error.to_string()))?;
    written?;
    if let (Err(EngineError::Interrupted), _) | (_, Err(EngineError::MaxBytes { .. })) =
        (&computed, &read)
    {
        // What is sealed can be searched.
        index.commit(store.manifest().next_shard().0)?;
    }
    let tokens_computed = computed?;
    let ReadRows { empty_rows, bad_rows, lossy_rows, unchanged, dead } = read?;
    let changed = !store.manifest().appended_shards().is_empty() || !dead.is_empty();
    if !store.manifest().complete && changed {
        index.finish(store.manifest().next_shard().0)?;
        store.finish_without(&dead)?;
    }
    let summary = BuildSummary {
        empty_rows,
        bad_rows,
        lossy_rows,
        unchanged,
        emptied: documents_of(&dead),
        shards_before,
        ..BuildSummary::default()
    };
    let seconds = start.elapsed().as_secs_f64();
    Ok(self::summary(&store, BuildSummary { tokens_computed, seconds, ..summary }))
}

/// Prepares the store for its first input, or for one that is added.
fn begin<M>(input: &BuildInput<'_, M>, store: &mut StoreWriter) -> Result<(), EngineError> {
    match input.add {
        // An unfinished first build is gone on with.
        Some(_) if store.manifest().complete => store.begin_append(),
        None if store.manifest().first_shard > ShardId(0) => return Err(EngineError::AddedTo),
        _ => {}
    }
    Ok(())
}

fn summary(store: &StoreWriter, rest: BuildSummary) -> BuildSummary {
    let shards = &store.manifest().shards;
    let sum = |part: fn(&hyperrag_store::ShardRecord) -> u64| shards.iter().map(part).sum();
    BuildSummary {
        documents: store.manifest().documents() - store.manifest().deleted_documents(),
        dead: store.manifest().deleted_documents(),
        chunks: sum(|shard| shard.chunks),
        tokens: sum(|shard| shard.tokens),
        bytes: sum(|shard| shard.kv.bytes),
        shards: shards.len() as u64,
        ..rest
    }
}

/// The result of a stage; its panic goes on here.
fn join<T>(stage: thread::ScopedJoinHandle<'_, T>) -> T {
    stage.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
