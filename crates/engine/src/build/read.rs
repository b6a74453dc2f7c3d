//! The first stage of a build: rows of the corpus in, units of chunks out. It does not know the model.

use std::sync::mpsc::SyncSender;

use hyperrag_core::{CALIBRATION_CHUNKS, Chunk, LanguageModel, ShardId};
use hyperrag_corpus::{Chunker, Corpus, Row, Rows};
use hyperrag_store::{Manifest, Tombstones};

use crate::build::disk_budget::DiskBudget;
use crate::build::memory_budget::Budget;
use crate::build::partition::{HeldUnit, Units, chunks_of};
use crate::build::plan::BuildInput;
use crate::error::EngineError;
use crate::progress::BuildProgress;

/// Rows that were left out of those read, and documents of the store that they leave nothing of.
pub(crate) struct ReadRows {
    pub(crate) empty_rows: u64,
    /// Rows that cannot be read.
    pub(crate) bad_rows: u64,
    /// Rows in which half a surrogate pair was replaced.
    pub(crate) lossy_rows: u64,
    pub(crate) unchanged: u64,
    pub(crate) dead: Vec<Tombstones>,
}

/// Returns how many documents these rows are.
pub(crate) fn documents_of(dead: &[Tombstones]) -> u64 {
    dead.iter().map(|dead| dead.rows.len() as u64).sum()
}

/// The reader's way to the prefill, open as long as the disk budget lasts.
pub(crate) struct UnitSink<'a> {
    pub(crate) disk_budget: DiskBudget,
    pub(crate) sender: SyncSender<HeldUnit<'a>>,
}

/// Reads the corpus unit by unit: those that are sealed must be the same, the others are sent on.
pub(crate) fn read_units<'a, M: LanguageModel>(
    input: &BuildInput<'_, M>,
    mut units: Units<'_>,
    sealed: &Manifest,
    held: &'a Budget,
    sink: &mut UnitSink<'a>,
) -> Result<ReadRows, EngineError> {
    let changed = |(first, last)| match sealed.first_shard {
        ShardId(0) => EngineError::Changed { first, last },
        _ => EngineError::ChangedAppend { first, last },
    };
    for record in sealed.appended_shards() {
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
        sink.disk_budget.take(input, &held.unit)?;
        if sink.sender.send(held).is_err() {
            break; // The prefill has stopped and says why.
        }
    }
    let (empty_rows, unchanged) = (units.empty_rows, units.unchanged);
    let (bad_rows, lossy_rows) = (units.bad_rows(), units.lossy_rows());
    Ok(ReadRows { empty_rows, bad_rows, lossy_rows, unchanged, dead: units.emptied() })
}

/// Reads up to the first row that has a chunk, so that a corpus without any makes no store.
pub(crate) fn check_not_empty<M>(input: &BuildInput<'_, M>) -> Result<(), EngineError> {
    let limit = usize::try_from(input.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let (mut rows, mut read) = (0, input.corpus.rows());
    for row in read.by_ref().take(limit) {
        let row = row?;
        let checked = input.chunker.check(&row.document);
        let Row { place, .. } = row;
        if checked.map_err(|source| EngineError::Tokenize { place, source })? {
            return Ok(());
        }
        rows += 1;
    }
    Err(empty(rows, read))
}

/// Returns the error for a corpus without a document: that of its rows that cannot be read, if there are any.
fn empty(rows: u64, read: Rows) -> EngineError {
    let bad = read.into_bad_rows().into_error();
    bad.map_or(EngineError::EmptyCorpus { rows }, EngineError::Corpus)
}

/// The chunks that a calibration is made from: the first ones of the corpus, none of them from beyond
/// its first `limit` rows. So the store has them too, and its calibration can be made again.
///
/// # Errors
/// [`EngineError`] where these rows cannot be read, or have no chunk.
pub fn calibration_chunks(
    corpus: &Corpus,
    chunker: &Chunker<'_>,
    limit: Option<u64>,
) -> Result<Vec<Chunk>, EngineError> {
    let limit = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let (mut chunks, mut rows, mut read) = (Vec::new(), 0, corpus.rows());
    for row in read.by_ref().take(limit) {
        rows += 1;
        let row = row?;
        chunks.extend(chunks_of(chunker, &row.document, &row.place)?);
        if chunks.len() >= CALIBRATION_CHUNKS {
            break;
        }
    }
    chunks.truncate(CALIBRATION_CHUNKS);
    if chunks.is_empty() { Err(empty(rows, read)) } else { Ok(chunks) }
}
