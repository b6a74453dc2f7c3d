//! The manifest of a store: shard records, deleted rows and journal lines come in, a checksummed snapshot
//! goes out, and back. Opens no shard.

use std::collections::HashSet;
use std::path::Path;

use hyperrag_core::{Digest, Fingerprint, ShardId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::StoreError;
use crate::format::block_table::is_known;
use crate::local::generation::Announced;
use crate::local::journal::Sealed;
use crate::local::paths::{Files, write_whole};

/// Largest manifest or journal that is read, in bytes: two million shards.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// Length and digest of a published file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of a shard's header and table, or of a whole chunk file.
    pub digest: Digest,
}

/// Record of a sealed unit of the corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// Number of the shard.
    pub shard: ShardId,
    /// Number of input rows.
    pub rows: u64,
    /// Digest of the input rows.
    pub rows_digest: Digest,
    /// Number of documents. Rows without any text are left out.
    pub documents: u64,
    /// Number of chunks. Each has one block.
    pub chunks: u64,
    /// Number of positions of all blocks.
    pub tokens: u64,
    /// File of blocks.
    pub kv: FileRecord,
    /// File of token ids.
    pub chunk_file: FileRecord,
    /// Kernel that computed damaged blocks again, if it is not the fingerprint's. The bits of these blocks
    /// are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mended_by: Option<String>,
}

/// Fields of a record that the shard's header repeats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) shard: ShardId,
    pub(crate) rows: u64,
    pub(crate) rows_digest: Digest,
}

impl ShardRecord {
    pub(crate) fn origin(&self) -> Origin {
        Origin { shard: self.shard, rows: self.rows, rows_digest: self.rows_digest }
    }
}

/// Documents of a shard that were deleted or replaced by a later version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstones {
    /// Shard that still holds the documents.
    pub shard: ShardId,
    /// Rows of the documents, ascending.
    pub rows: Vec<u64>,
}

/// Contents of a store at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Number of the snapshot, counted from 1.
    pub generation: u64,
    /// Fingerprint of the store.
    pub fingerprint: Fingerprint,
    /// Whether the input added last is in completely.
    pub complete: bool,
    /// First shard of the input added last. Shard numbers only grow and are never used twice.
    pub first_shard: ShardId,
    /// Row number of that input's first row, counted through all inputs. No two versions of a document share
    /// one.
    pub first_row: u64,
    /// Number in the name of the index folder, see [`Manifest::index_folder`].
    pub index: u64,
    /// Sealed units, by number.
    pub shards: Vec<ShardRecord>,
    /// Deleted documents, by shard.
    pub dead: Vec<Tombstones>,
    /// Digest of the fingerprint before an upgrade, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgraded_from: Option<Digest>,
}

/// Set of the rows that are not deleted.
#[derive(Clone, Debug)]
pub struct LiveRows {
    dead: HashSet<u64>,
    end: u64,
}

impl LiveRows {
    /// Whether the document of this row is in the store in this version.
    #[must_use]
    pub fn contains(&self, row: u64) -> bool {
        row < self.end && !self.dead.contains(&row)
    }
}

impl Manifest {
    /// Makes the manifest of a store in which nothing is sealed yet.
    pub(crate) fn first(fingerprint: Fingerprint) -> Self {
        Self {
            generation: 1,
            fingerprint,
            complete: false,
            first_shard: ShardId(0),
            first_row: 0,
            index: 0,
            shards: Vec::new(),
            dead: Vec::new(),
            upgraded_from: None,
        }
    }

    /// Returns the record of a shard.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> Option<&ShardRecord> {
        let place = self.shards.binary_search_by_key(&shard, |record| record.shard).ok()?;
        Some(&self.shards[place])
    }

    /// Returns the record of a shard that the manifest has, as the caller knows.
    pub(crate) fn record(&self, shard: ShardId) -> &ShardRecord {
        self.shard(shard).expect("a shard of the manifest")
    }

    /// Number of the next shard.
    #[must_use]
    pub fn next_shard(&self) -> ShardId {
        let after = self.shards.last().map_or(0, |record| record.shard.0.saturating_add(1));
        ShardId(after.max(self.first_shard.0))
    }

    /// Row number of the next input row.
    #[must_use]
    pub fn next_row(&self) -> u64 {
        self.first_row + self.batch().iter().map(|record| record.rows).sum::<u64>()
    }

    /// Units of the input added last.
    #[must_use]
    pub fn batch(&self) -> &[ShardRecord] {
        let first = self.shards.partition_point(|record| record.shard < self.first_shard);
        &self.shards[first..]
    }

    /// Name of the folder of the index. Compaction begins a new one.
    #[must_use]
    pub fn index_folder(&self) -> String {
        match self.index {
            0 => "index".to_owned(),
            generation => format!("index-{generation:06}"),
        }
    }

    /// Number of documents of all shards, deleted ones included.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.shards.iter().map(|shard| shard.documents).sum()
    }

    /// Number of deleted documents.
    #[must_use]
    pub fn dead_documents(&self) -> u64 {
        self.dead.iter().map(|dead| dead.rows.len() as u64).sum()
    }

    /// Returns the set of rows that are not deleted.
    #[must_use]
    pub fn live_rows(&self) -> LiveRows {
        let dead = self.dead.iter().flat_map(|dead| dead.rows.iter().copied()).collect();
        LiveRows { dead, end: self.next_row() }
    }

    /// Marks documents as deleted.
    pub(crate) fn mark_deleted(&mut self, dead: &[Tombstones]) {
        for Tombstones { shard, rows } in dead {
            let place = self.dead.partition_point(|dead| dead.shard < *shard);
            if self.dead.get(place).is_none_or(|dead| dead.shard != *shard) {
                self.dead.insert(place, Tombstones { shard: *shard, rows: Vec::new() });
            }
            let all = &mut self.dead[place].rows;
            all.extend(rows);
            all.sort_unstable();
            all.dedup();
        }
    }

    /// Starts to add an input. Its units get the next numbers.
    pub(crate) fn begin_append(&mut self) {
        (self.first_shard, self.first_row) = (self.next_shard(), self.next_row());
        self.complete = false;
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    checksum: Digest,
    #[serde(borrow)]
    manifest: &'a RawValue,
}

/// Part of a manifest that is the same in every format version.
#[derive(Deserialize)]
struct AnyVersion {
    fingerprint: AnyFingerprint,
}

#[derive(Deserialize)]
struct AnyFingerprint {
    format_version: u32,
}

/// Reason why a text is not a manifest.
#[derive(Debug)]
pub(crate) enum NoManifest {
    /// The text is intact and has an unknown format version.
    Version(u32),
    Damaged(String),
}

impl From<String> for NoManifest {
    fn from(what: String) -> Self {
        Self::Damaged(what)
    }
}

/// Returns the checksum stated in a manifest's text.
pub(crate) fn stated_checksum(text: &[u8]) -> Option<Digest> {
    serde_json::from_slice(text).ok().map(|envelope: Envelope<'_>| envelope.checksum)
}

impl Manifest {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, NoManifest> {
        let no_manifest = |error: serde_json::Error| format!("no manifest: {error}");
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(no_manifest)?;
        let raw = envelope.manifest.get();
        if Digest::of(raw.as_bytes()) != envelope.checksum {
            return Err("its checksum does not fit".to_owned().into());
        }
        let AnyVersion { fingerprint } = serde_json::from_str(raw).map_err(no_manifest)?;
        if !is_known(fingerprint.format_version) {
            return Err(NoManifest::Version(fingerprint.format_version));
        }
        let manifest: Self = serde_json::from_str(raw).map_err(no_manifest)?;
        let ascending = manifest.shards.is_sorted_by(|a, b| a.shard < b.shard)
            && manifest.dead.is_sorted_by(|a, b| a.shard < b.shard);
        match ascending {
            true => Ok(manifest),
            false => Err("its shards are not in order".to_owned().into()),
        }
    }

    /// Applies the lines of the journal at `path`.
    pub(crate) fn continued(&mut self, lines: Vec<Sealed>, path: &Path) -> Result<(), StoreError> {
        if self.complete && !lines.is_empty() {
            self.begin_append();
        }
        for Sealed { record, replaces } in lines {
            if record.shard != self.next_shard() {
                let what = format!("shard {} is missing", self.next_shard());
                return Err(StoreError::damaged(path, what));
            }
            self.shards.push(record);
            self.mark_deleted(&replaces);
        }
        Ok(())
    }

    /// Publishes `self` as the next snapshot, with an empty journal.
    pub(crate) fn publish(&self, files: &Files) -> Result<(), StoreError> {
        let former = self.generation.saturating_sub(1).max(1);
        let checksum = self.checksum();
        Announced { former, generation: self.generation, checksum }.write(files)?;
        write_whole(&files.manifest(), &self.to_bytes())
    }

    fn body(&self) -> String {
        serde_json::to_string(self).expect("a manifest has only plain fields")
    }

    /// Returns the checksum in the snapshot of `self`.
    pub(crate) fn checksum(&self) -> Digest {
        Digest::of(self.body().as_bytes())
    }

    /// Returns `self` as the bytes of a snapshot.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (body, checksum) = (self.body(), self.checksum());
        format!("{{\"checksum\":\"{checksum}\",\"manifest\":{body}}}\n").into_bytes()
    }
}
