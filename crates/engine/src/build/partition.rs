//! Rows of a corpus in, units of a shard out. Which rows go into a shard together is decided here,
//! and does not depend on the model.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use hyperrag_core::{Chunk, Digest, Document, ShardId, Slot, Warning};
use hyperrag_corpus::{Chunker, Place, Row, Rows};
use hyperrag_store::{
    IndexedDocument, Manifest, RowsHasher, ShardChunks, ShardInput, ShardRecord, Tombstones,
};

use crate::build::memory_budget::{Budget, Share};
use crate::build::plan::BuildInput;
use crate::build::previous::PreviousVersions;
use crate::error::EngineError;
use crate::progress::BuildProgress;

/// Bytes of a token id.
const TOKEN_BYTES: u64 = 4;

/// Reads the corpus unit by unit and cuts it into chunks. Where it is added to a store, documents that
/// the store has as they are, are left out, and so are those without any text.
pub(crate) struct Units<'a> {
    rows: Rows,
    limit: u64,
    unit_rows: u64,
    unit_bytes: u64,
    chunker: &'a Chunker<'a>,
    progress: &'a BuildProgress,
    stop: &'a AtomicBool,
    warn: fn(&Warning),
    /// Rows that cannot be read and were spoken of.
    told: usize,
    previous: Option<PreviousVersions>,
    /// Rows of the input that were read.
    rows_read: u64,
    /// A document that was read and belongs to the next unit.
    next: Option<Read>,
    /// The row of the next document in the store.
    next_row: u64,
    next_shard: ShardId,
    /// Rows without any text, which have no chunks.
    pub(crate) empty_rows: u64,
    /// Documents that the store has as they are.
    pub(crate) unchanged: u64,
    /// Documents that the store has with a text, and the input without.
    emptied: Versions,
}

/// Versions of documents in the store, their rows by shard.
#[derive(Default)]
struct Versions(BTreeMap<ShardId, Vec<u64>>);

/// A row of the input.
struct Read {
    /// Number, from 1.
    number: u64,
    place: Place,
    document: Document,
    /// Shard and row of the document's previous version, where there is one.
    previous: Option<(ShardId, u64)>,
}

/// Number and digest of the rows of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnitRows {
    pub(crate) rows: u64,
    pub(crate) digest: Digest,
}

/// A unit, and its share of the memory.
pub(crate) struct HeldUnit<'a> {
    pub(crate) unit: ShardInput,
    _share: Share<'a>,
}

impl<'a> Units<'a> {
    /// The units of an input that is, or was, the first: their numbers start with 0.
    pub(crate) fn new<M>(input: &BuildInput<'a, M>) -> Self {
        Self {
            rows: input.corpus.rows(),
            limit: input.limit.unwrap_or(u64::MAX),
            unit_rows: u64::from(input.fingerprint.unit_rows),
            unit_bytes: ShardInput::BYTES_MAX,
            chunker: input.chunker,
            progress: input.progress,
            stop: input.stop,
            warn: input.warn,
            told: 0,
            previous: None,
            rows_read: 0,
            next: None,
            next_row: 0,
            next_shard: ShardId(0),
            empty_rows: 0,
            unchanged: 0,
            emptied: Versions::default(),
        }
    }

    /// The units of an input that goes into a store after others.
    pub(crate) fn added<M>(
        input: &BuildInput<'a, M>,
        store: &Manifest,
        previous: PreviousVersions,
    ) -> Self {
        let (next_row, next_shard) = (store.first_row, store.first_shard);
        Self { previous: Some(previous), next_row, next_shard, ..Self::new(input) }
    }

    /// The units of an input that was read before: nobody is told again what it has. `progress` counts its
    /// rows.
    pub(crate) fn again<M>(input: &BuildInput<'a, M>, progress: &'a BuildProgress) -> Self {
        Self { progress, warn: |_| {}, ..Self::new(input) }
    }

    pub(crate) fn rows_read(&self) -> u64 {
        self.rows_read
    }

    /// Returns the number of rows left out because they cannot be read.
    pub(crate) fn bad_rows(&self) -> u64 {
        self.rows.bad_rows().count
    }

    /// Returns the number of rows in which half a surrogate pair was replaced.
    pub(crate) fn lossy_rows(&self) -> u64 {
        self.rows.lossy()
    }

    /// Speaks of the first rows that cannot be read.
    fn tell_bad_rows(&mut self) {
        for error in &self.rows.bad_rows().first[self.told..] {
            let what = format!("{}; the row is left out", hyperrag_core::sentence(error));
            (self.warn)(&what.into());
            self.told += 1;
        }
    }

    /// Documents that the input leaves nothing of, once it is read to its end.
    pub(crate) fn emptied(self) -> Vec<Tombstones> {
        self.emptied.into_tombstones()
    }

    /// The next row that the store is to have, and `None` at the end of the corpus.
    fn read(&mut self) -> Result<Option<Read>, EngineError> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        while self.rows_read < self.limit {
            if self.stop.load(Ordering::Relaxed) {
                return Err(EngineError::Interrupted);
            }
            let row = self.rows.next();
            self.tell_bad_rows();
            let Some(row) = row else { break };
            let Row { document, place, bytes } = row?;
            self.rows_read += 1;
            BuildProgress::add(&self.progress.rows_read, 1);
            BuildProgress::add(&self.progress.bytes_read, bytes);
            let number = self.rows.number();
            let Some(versions) = &self.previous else {
                return Ok(Some(Read { number, place, document, previous: None }));
            };
            let previous = versions.version(&document)?;
            let is_unchanged = previous.as_ref().is_some_and(|previous| previous.is_unchanged);
            let previous = previous.map(|previous| (previous.shard, previous.row));
            if is_unchanged {
                self.unchanged += 1;
            } else if self.chunker.is_blank(&document) {
                self.empty_rows += 1;
                self.emptied.add(previous);
            } else {
                return Ok(Some(Read { number, place, document, previous }));
            }
            BuildProgress::add(&self.progress.rows_done, 1);
        }
        Ok(None)
    }

    /// Reads the rows of the unit that was sealed as `record`. Where they are others, or the unit
    /// would have had more, gives the first and the last row that differ.
    pub(crate) fn differ(
        &mut self,
        record: &ShardRecord,
    ) -> Result<Option<(u64, u64)>, EngineError> {
        let mut hasher = RowsHasher::default();
        let (mut first, mut bytes) = (self.rows.number() + 1, TOKEN_BYTES * record.tokens);
        for row in 0..record.rows {
            let Some(read) = self.read()? else { break };
            if row == 0 {
                first = read.number;
            }
            bytes += text_bytes(&read.document);
            hasher.add(&read.document);
        }
        let last = self.rows.number().max(first + record.rows.saturating_sub(1));
        if hasher.finish() != (record.rows, record.rows_digest) {
            return Ok(Some((first, last)));
        }
        self.next_row += record.rows;
        self.next_shard.0 += 1;
        if record.rows < self.unit_rows
            && let Some(next) = self.read()?
        {
            let chunks = chunks_of(self.chunker, &next.document, &next.place)?;
            if bytes + unit_bytes(&next.document, &chunks) <= self.unit_bytes {
                return Ok(Some((first, next.number)));
            }
            self.next = Some(next);
        }
        Ok(None)
    }

    /// Reads the next unit and keeps nothing of it. It ends where that of [`Units::next_unit`] does. Texts are
    /// tokenised only where they are so long that it may end before it has all its rows.
    pub(crate) fn measure_unit(&mut self) -> Result<Option<UnitRows>, EngineError> {
        let mut hasher = RowsHasher::default();
        let (mut bound, mut exact, mut waiting) = (0_u64, None, Vec::new());
        while hasher.rows() < self.unit_rows {
            let Some(read) = self.read()? else { break };
            let tokens = self.chunker.tokens_bound(&read.document);
            let most =
                text_bytes(&read.document).saturating_add(tokens.saturating_mul(TOKEN_BYTES));
            bound = bound.saturating_add(most);
            if bound > self.unit_bytes {
                let before = match exact {
                    Some(bytes) => bytes,
                    None => self.bytes_of(&std::mem::take(&mut waiting))?,
                };
                let with = before + self.bytes_of(std::slice::from_ref(&read))?;
                if hasher.rows() > 0 && with > self.unit_bytes {
                    self.next = Some(read);
                    break;
                }
                exact = Some(with);
            }
            hasher.add(&read.document);
            self.empty_rows += u64::from(self.chunker.is_blank(&read.document));
            if exact.is_none() {
                waiting.push(read);
            }
        }
        let (rows, digest) = hasher.finish();
        if rows == 0 {
            return Ok(None);
        }
        self.next_row += rows;
        self.next_shard.0 += 1;
        Ok(Some(UnitRows { rows, digest }))
    }

    /// Returns the bytes that documents add to a unit.
    fn bytes_of(&self, read: &[Read]) -> Result<u64, EngineError> {
        let bytes = |read: &Read| {
            let chunks = chunks_of(self.chunker, &read.document, &read.place)?;
            Ok(unit_bytes(&read.document, &chunks))
        };
        read.iter().map(bytes).sum()
    }

    /// Passes over `units` units that have `rows` rows together. Row groups of Parquet files that lie before the
    /// next unit are not read.
    pub(crate) fn pass_units(&mut self, units: u32, rows: u64) -> Result<(), EngineError> {
        let mut left = rows;
        if left > 0 && self.next.take().is_some() {
            left -= 1;
        }
        let passed = self.rows.pass(left.min(self.limit - self.rows_read))?;
        self.rows_read += passed;
        BuildProgress::add(&self.progress.rows_read, passed);
        for _ in passed..left {
            if self.read()?.is_none() {
                break;
            }
        }
        self.next_row += rows;
        self.next_shard.0 += units;
        Ok(())
    }

    /// Number of the next unit.
    pub(crate) fn next_shard(&self) -> ShardId {
        self.next_shard
    }

    /// Reads the rows of a unit that no store has: the first and the last.
    pub(crate) fn more(&mut self) -> Result<Option<(u64, u64)>, EngineError> {
        let Some(first) = self.read()? else { return Ok(None) };
        let mut last = first.number;
        for _ in 1..self.unit_rows {
            let Some(read) = self.read()? else { break };
            last = read.number;
        }
        Ok(Some((first.number, last)))
    }

    /// The next unit, cut into chunks; `None` at the end of the corpus. It has so many rows, or fewer
    /// where their texts and token ids are long. Waits until `budget` has room for each.
    pub(crate) fn next_unit<'b>(
        &mut self,
        budget: &'b Budget,
    ) -> Result<Option<HeldUnit<'b>>, EngineError> {
        let (mut share, mut hasher, mut bytes) = (budget.share(), RowsHasher::default(), 0);
        let mut contents = ShardChunks { chunks: Vec::new(), documents: Vec::new() };
        let mut replaced = Versions::default();
        while hasher.rows() < self.unit_rows {
            let Some(read) = self.read()? else { break };
            let chunks = chunks_of(self.chunker, &read.document, &read.place)?;
            let taken = unit_bytes(&read.document, &chunks);
            if hasher.rows() > 0 && bytes + taken > self.unit_bytes {
                self.next = Some(read);
                break;
            }
            share.grow(taken);
            bytes += taken;
            let row = self.next_row;
            self.next_row += 1;
            hasher.add(&read.document);
            if chunks.is_empty() {
                self.empty_rows += 1;
                self.emptied.add(read.previous);
                continue;
            }
            replaced.add(read.previous);
            let first_slot = Slot(contents.chunks.len() as u32);
            let (document, chunk_count) = (read.document, chunks.len() as u32);
            let indexed = IndexedDocument { row, document, first_slot, chunks: chunk_count };
            contents.documents.push(indexed);
            contents.chunks.extend(chunks);
        }
        let (rows, rows_digest) = hasher.finish();
        if rows == 0 {
            return Ok(None);
        }
        let shard = self.next_shard;
        self.next_shard.0 += 1;
        let replaces = replaced.into_tombstones();
        let unit = ShardInput { shard, rows, rows_digest, contents, replaces };
        Ok(Some(HeldUnit { unit, _share: share }))
    }
}

impl Versions {
    fn add(&mut self, version: Option<(ShardId, u64)>) {
        if let Some((shard, row)) = version {
            self.0.entry(shard).or_default().push(row);
        }
    }

    fn into_tombstones(self) -> Vec<Tombstones> {
        let dead = |(shard, mut rows): (ShardId, Vec<u64>)| {
            rows.sort_unstable();
            Tombstones { shard, rows }
        };
        self.0.into_iter().map(dead).collect()
    }
}

/// The chunks of the document that stands at `place`.
pub(crate) fn chunks_of(
    chunker: &Chunker<'_>,
    document: &Document,
    place: &Place,
) -> Result<Vec<Chunk>, EngineError> {
    let chunks = chunker.chunks(document);
    chunks.map_err(|source| EngineError::Tokenize { place: place.clone(), source })
}

fn text_bytes(document: &Document) -> u64 {
    document.title.len() as u64 + document.text.len() as u64
}

/// Bytes that a document adds to a unit.
fn unit_bytes(document: &Document, chunks: &[Chunk]) -> u64 {
    let tokens: u64 = chunks.iter().map(|chunk| chunk.tokens.len() as u64).sum();
    text_bytes(document) + TOKEN_BYTES * tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    use hyperrag_core::{Fingerprint, KvDtype, KvShape, ModelError, Profile, Tokenize};
    use hyperrag_corpus::{Columns, Corpus};
    use hyperrag_store::FileRecord;

    use crate::build::memory_budget::Memory;

    /// One token a byte.
    struct Bytes;

    impl Tokenize for Bytes {
        fn encode_text(&self, text: &str) -> Result<Vec<u32>, ModelError> {
            Ok(text.bytes().map(u32::from).collect())
        }

        fn encode_template(&self, text: &str) -> Result<Vec<u32>, ModelError> {
            self.encode_text(text)
        }
    }

    fn fingerprint() -> Fingerprint {
        let none = Digest([0; 32]);
        Fingerprint {
            format_version: 1,
            model: "fake".into(),
            weights: none,
            tokenizer: none,
            profile: "plain".into(),
            profile_digest: none,
            chunk_tokens: 256,
            unit_rows: 4,
            language: "english".into(),
            kv_shape: KvShape {
                layers: 1,
                kv_heads: 1,
                head_dim: 2,
                hidden: 2,
                kv_dtype: KvDtype::F32,
            },
            calibration: None,
            rope: String::new(),
            dtype: "f32".into(),
            kernel: String::new(),
        }
    }

    /// Reads rows whose texts have these lengths with `read`, units having `unit_bytes` at most.
    fn with_units<T>(lengths: &[usize], unit_bytes: u64, read: impl FnOnce(Units<'_>) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.tsv");
        let mut rows = String::new();
        for (id, length) in lengths.iter().enumerate() {
            writeln!(rows, "{id}\t{}", "x".repeat(*length)).unwrap();
        }
        std::fs::write(&path, rows).unwrap();
        let corpus = Corpus::open(&[path.display().to_string()], Columns::default()).unwrap();
        let profile = Profile::built_in("plain").unwrap();
        let input = BuildInput {
            model: &(),
            corpus: &corpus,
            chunker: &Chunker::new(&Bytes, &profile, 256).unwrap(),
            fingerprint: &fingerprint(),
            calibration: None,
            notes: None,
            add: None,
            limit: None,
            max_bytes: None,
            memory: Memory::default(),
            warn: |_| {},
            progress: &BuildProgress::default(),
            stop: &AtomicBool::new(false),
        };
        read(Units { unit_bytes, ..Units::new(&input) })
    }

    /// Records that the units of such rows would be sealed as.
    fn records(lengths: &[usize], unit_bytes: u64) -> Vec<ShardRecord> {
        let record = |unit: &ShardInput| ShardRecord {
            shard: unit.shard,
            rows: unit.rows,
            rows_digest: unit.rows_digest,
            documents: unit.contents.documents.len() as u64,
            chunks: unit.contents.chunks.len() as u64,
            tokens: unit.contents.chunks.iter().map(|chunk| chunk.tokens.len() as u64).sum(),
            kv: FileRecord { bytes: 0, digest: Digest([0; 32]) },
            chunk_file: FileRecord { bytes: 0, digest: Digest([0; 32]) },
            repaired_by: None,
        };
        with_units(lengths, unit_bytes, |mut units| {
            let (budget, mut records) = (Budget::new(1), Vec::new());
            while let Some(held) = units.next_unit(&budget).unwrap() {
                records.push(record(&held.unit));
            }
            records
        })
    }

    fn rows_of(records: &[ShardRecord]) -> Vec<u64> {
        records.iter().map(|record| record.rows).collect()
    }

    const LENGTHS: [usize; 9] = [10, 10, 10, 10, 10, 300, 400, 10, 0];

    #[test]
    fn a_unit_ends_where_its_rows_or_bytes_are_enough() {
        assert_eq!(rows_of(&records(&LENGTHS, ShardInput::BYTES_MAX)), [4, 4, 1]);
        // A row by itself may be too long, and no unit is empty.
        assert_eq!(rows_of(&records(&LENGTHS, 1200)), [3, 2, 1, 1, 2]);
        assert_eq!(rows_of(&records(&LENGTHS, 1)), [1; 9]);
        assert_eq!(rows_of(&records(&[], 1200)), [0; 0]);
    }

    #[test]
    fn a_unit_is_measured_as_it_is_made() {
        // Texts of one token a byte in chunks of 256, and so long that the bound is met.
        for unit_bytes in [ShardInput::BYTES_MAX, 40_000, 1200, 900, 1] {
            let made = records(&LENGTHS, unit_bytes);
            let measured = with_units(&LENGTHS, unit_bytes, |mut units| {
                std::iter::from_fn(|| units.measure_unit().unwrap()).collect::<Vec<_>>()
            });
            let expected: Vec<UnitRows> = made
                .iter()
                .map(|record| UnitRows { rows: record.rows, digest: record.rows_digest })
                .collect();
            assert_eq!(measured, expected, "{unit_bytes}");
            // Units that are passed leave the others as they are.
            let rest = with_units(&LENGTHS, unit_bytes, |mut units| {
                units.pass_units(1, expected[0].rows).unwrap();
                let budget = Budget::new(1);
                let held = units.next_unit(&budget).unwrap().unwrap();
                let rows = held.unit.contents.documents.first().map(|document| document.row);
                (held.unit.shard, held.unit.rows_digest, rows)
            });
            let first_row = expected[0].rows;
            assert_eq!(rest, (ShardId(1), expected[1].digest, Some(first_row)), "{unit_bytes}");
        }
    }

    #[test]
    fn sealed_units_are_those_that_the_rows_make() {
        let differ = |lengths: &[usize], sealed: &[ShardRecord], unit_bytes| {
            with_units(lengths, unit_bytes, |mut units| {
                let mut all = sealed.iter().map(|record| units.differ(record).unwrap());
                all.find_map(|rows| rows)
            })
        };
        for unit_bytes in [ShardInput::BYTES_MAX, 1200, 1] {
            let sealed = records(&LENGTHS, unit_bytes);
            assert_eq!(differ(&LENGTHS, &sealed, unit_bytes), None, "{unit_bytes}");
            // What is left is what was made of it before.
            let rest = with_units(&LENGTHS, unit_bytes, |mut units| {
                units.differ(&sealed[0]).unwrap();
                let budget = Budget::new(1);
                let held = units.next_unit(&budget).unwrap().unwrap();
                (held.unit.shard, held.unit.rows, held.unit.rows_digest)
            });
            assert_eq!(rest, (sealed[1].shard, sealed[1].rows, sealed[1].rows_digest));
        }
        let sealed = records(&LENGTHS[..6], ShardInput::BYTES_MAX);
        // With more rows the second unit would have had them.
        assert_eq!(differ(&LENGTHS, &sealed, ShardInput::BYTES_MAX), Some((5, 7)));
        assert_eq!(differ(&LENGTHS[..5], &sealed, ShardInput::BYTES_MAX), Some((5, 6)));
        let mut other = LENGTHS;
        other[1] = 11;
        assert_eq!(differ(&other, &sealed, ShardInput::BYTES_MAX), Some((1, 4)));
        // Earlier versions sealed units of any length.
        let heavy = records(&LENGTHS[..8], ShardInput::BYTES_MAX);
        assert_eq!(differ(&LENGTHS, &heavy, 1200), None);
    }
}
