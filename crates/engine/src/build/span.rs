//! Builds one span: units of the input come in, shards at a place go out, with their records. It knows no claims.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use hyperrag_core::{LanguageModel, ShardId};
use hyperrag_store::{SealedFiles, ShardRecord, StoreWriter};

use crate::build::build_place::BuildPlace;
use crate::build::disk_budget::free_bytes;
use crate::build::memory_budget::Budget;
use crate::build::partition::{HeldUnit, Units};
use crate::build::partition_error::PartitionError;
use crate::build::plan::BuildInput;
use crate::build::prefill::prefill_units;
use crate::build::unit_list::UnitList;
use crate::build::write::write_units;
use crate::error::EngineError;
use crate::progress::BuildProgress;

/// Units read ahead of the one being computed.
const UNITS_AHEAD: usize = 1;
/// Batches of blocks that may wait for the disk.
const BATCHES_AHEAD: usize = 2;

/// Builds spans of an input, one after the other.
pub(crate) struct SpanBuilder<'a, M> {
    input: &'a BuildInput<'a, M>,
    units: &'a UnitList,
    place: &'a BuildPlace,
    /// Folder of this machine for shards that are not yet at the place.
    scratch: PathBuf,
    /// Rows that are only read to come to a span.
    passed: &'a BuildProgress,
    /// Reader of the input, at the unit after the last span.
    reader: Units<'a>,
}

/// Shards of a span.
pub(crate) struct BuiltSpan {
    pub(crate) shards: Vec<ShardRecord>,
    /// Positions computed.
    pub(crate) tokens: u64,
}

impl<'a, M: LanguageModel> SpanBuilder<'a, M> {
    /// Starts at the beginning of the input. `passed` counts rows that are only read.
    pub(crate) fn new(
        input: &'a BuildInput<'a, M>,
        units: &'a UnitList,
        place: &'a BuildPlace,
        scratch: PathBuf,
        passed: &'a BuildProgress,
    ) -> Self {
        let reader = Units::again(input, passed);
        Self { input, units, place, scratch, passed, reader }
    }

    /// Builds the shards of these units and brings them to the place.
    pub(crate) fn build(&mut self, units: std::ops::Range<u32>) -> Result<BuiltSpan, EngineError> {
        let (first, first_row) = (ShardId(units.start), self.units.first_row(units.start));
        let (input, place, list) = (self.input, self.place, self.units);
        let (fingerprint, calibration) = (input.fingerprint, input.calibration);
        let mut store =
            StoreWriter::begin_span(&self.scratch, fingerprint, calibration, first, first_row)?;
        self.go_to(first)?;
        let (held_units, held_blocks) = (input.memory.units(), input.memory.blocks());
        let (reader, scratch) = (&mut self.reader, self.scratch.as_path());
        let mut shards = Vec::with_capacity(units.len());
        let expected = units.len();
        let stages = thread::scope(|scope| {
            let (unit_sender, unit_receiver) = sync_channel(UNITS_AHEAD);
            let (block_sender, block_receiver) = sync_channel(BATCHES_AHEAD);
            let held = &held_units;
            let read = move || {
                let room = |unit: &HeldUnit<'_>| check_room(input, scratch, unit);
                read_span(reader, list, units, held, room, &unit_sender)
            };
            let reader = thread::Builder::new().spawn_scoped(scope, read)?;
            let write = || {
                write_units(block_receiver, &mut store, |store, _, record| {
                    send(place, store, &record)?;
                    shards.push(record);
                    Ok(())
                })
            };
            let writer = thread::Builder::new().spawn_scoped(scope, write)?;
            let computed = prefill_units(input, unit_receiver, &held_blocks, block_sender);
            Ok((join(writer), computed, join(reader)))
        });
        let (written, computed, read) =
            stages.map_err(|error: io::Error| EngineError::Threads(error.to_string()))?;
        written?;
        let tokens = computed?;
        read?;
        match shards.len() == expected {
            true => Ok(BuiltSpan { shards, tokens }),
            // No stage has failed, and one has stopped.
            false => Err(EngineError::Interrupted),
        }
    }

    /// Brings the reader to a unit, from the beginning of the input if it is past it.
    fn go_to(&mut self, first: ShardId) -> Result<(), EngineError> {
        if self.reader.next_shard() > first {
            self.reader = Units::again(self.input, self.passed);
        }
        let next = self.reader.next_shard().0;
        let rows = self.units.first_row(first.0) - self.units.first_row(next);
        self.reader.pass_units(first.0 - next, rows)
    }
}

/// Reads the units of a span, which must be those that were counted, and sends them on.
fn read_span<'b>(
    reader: &mut Units<'_>,
    list: &UnitList,
    units: std::ops::Range<u32>,
    held: &'b Budget,
    check_room: impl Fn(&HeldUnit<'b>) -> Result<(), EngineError>,
    sender: &SyncSender<HeldUnit<'b>>,
) -> Result<(), EngineError> {
    for unit in units {
        let changed = || EngineError::from(PartitionError::Changed { unit });
        let held = reader.next_unit(held)?.ok_or_else(changed)?;
        let found = (held.unit.rows, held.unit.rows_digest);
        if list.unit(unit).is_none_or(|counted| (counted.rows, counted.digest) != found) {
            return Err(changed());
        }
        check_room(&held)?;
        if sender.send(held).is_err() {
            break; // The prefill has stopped and says why.
        }
    }
    Ok(())
}

/// Refuses a unit for which the disk of the scratch folder has no room.
fn check_room<M: LanguageModel>(
    input: &BuildInput<'_, M>,
    scratch: &std::path::Path,
    held: &HeldUnit<'_>,
) -> Result<(), EngineError> {
    let needed = held.unit.bytes_max(input.model.kv_shape());
    match free_bytes(scratch) {
        Some(free) if free < needed => {
            Err(EngineError::NoRoom { path: scratch.to_owned(), free, needed })
        }
        _ => Ok(()),
    }
}

/// Brings a sealed shard to the place: its block table and chunk file first.
fn send(place: &BuildPlace, store: &StoreWriter, record: &ShardRecord) -> Result<(), EngineError> {
    let SealedFiles { shard, chunk_file, table } = store.sealed_files(record.shard);
    // A merge on another machine does without the shards.
    if place.shared.is_some() {
        store.write_table(record)?;
        place.take_own(&record.table_object(), &table)?;
    }
    place.take(&record.chunk_object(), &chunk_file)?;
    Ok(place.take(&record.shard_object(), &shard)?)
}

/// The result of a stage; its panic goes on here.
fn join<T>(stage: thread::ScopedJoinHandle<'_, T>) -> T {
    stage.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
