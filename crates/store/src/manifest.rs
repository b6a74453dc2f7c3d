use std::collections::HashSet;
use std::path::Path;

use hyperrag_kv::{Digest, Fingerprint, ShardId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::StoreError;
use crate::files::{Files, write_whole};
use crate::generation::Announced;
use crate::journal::Sealed;
use crate::layout::is_known;

/// Bytes of a manifest or journal at most: of two million shards.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// A published file: its length and what identifies its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Length in bytes.
    pub bytes: u64,
    /// blake3 of a shard's header and table, or of a whole chunk file.
    pub digest: Digest,
}

/// A sealed unit of the corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// Its number.
    pub shard: ShardId,
    /// Input rows it was made from.
    pub rows: u64,
    /// Digest of those rows.
    pub rows_digest: Digest,
    /// Documents, rows without any text left out.
    pub documents: u64,
    /// Chunks, each with one block.
    pub chunks: u64,
    /// Positions of all blocks.
    pub tokens: u64,
    /// The file of blocks.
    pub kv: FileRecord,
    /// The file of token ids.
    pub chunk_file: FileRecord,
    /// The kernel that computed blocks of it again after a damage, where that is not the
    /// fingerprint's: their bits are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mended_by: Option<String>,
}

/// What of a record stands in the shard's header too.
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

/// Documents of a shard that count no longer: deleted, or replaced by a later version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dead {
    /// The shard that still holds them.
    pub shard: ShardId,
    /// Their rows, ascending.
    pub rows: Vec<u64>,
}

/// What a store holds at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Counts the snapshots, from 1.
    pub generation: u64,
    /// What the store was made with.
    pub fingerprint: Fingerprint,
    /// Whether all of the input that was added last is in.
    pub complete: bool,
    /// First shard of that input. Numbers go on from shard to shard and are never used twice.
    pub first_shard: ShardId,
    /// Row of that input's first row, counted through all inputs: no two versions of a document
    /// have the same.
    pub first_row: u64,
    /// Names the folder of the index, see [`Manifest::index_folder`].
    pub index: u64,
    /// The sealed units, by number.
    pub shards: Vec<ShardRecord>,
    /// What of them counts no longer, by shard.
    pub dead: Vec<Dead>,
    /// Digest of the fingerprint that the store had before it was upgraded, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgraded_from: Option<Digest>,
}

/// The rows that count.
#[derive(Clone, Debug)]
pub struct LiveRows {
    dead: HashSet<u64>,
    end: u64,
}

impl LiveRows {
    /// Whether the document of this row is in the store, in this version.
    #[must_use]
    pub fn contains(&self, row: u64) -> bool {
        row < self.end && !self.dead.contains(&row)
    }
}

impl Manifest {
    /// A store in which nothing is sealed yet.
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

    /// The record of a shard.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> Option<&ShardRecord> {
        let place = self.shards.binary_search_by_key(&shard, |record| record.shard).ok()?;
        Some(&self.shards[place])
    }

    /// The record of a shard that the caller knows to be one of the manifest's.
    pub(crate) fn record(&self, shard: ShardId) -> &ShardRecord {
        self.shard(shard).expect("a shard of the manifest")
    }

    /// The number of the next shard.
    #[must_use]
    pub fn next_shard(&self) -> ShardId {
        let after = self.shards.last().map_or(0, |record| record.shard.0.saturating_add(1));
        ShardId(after.max(self.first_shard.0))
    }

    /// The row of the next input row.
    #[must_use]
    pub fn next_row(&self) -> u64 {
        self.first_row + self.batch().iter().map(|record| record.rows).sum::<u64>()
    }

    /// The units of the input that was added last.
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

    /// Documents of all shards, those that count no longer among them.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.shards.iter().map(|shard| shard.documents).sum()
    }

    /// Documents that count no longer.
    #[must_use]
    pub fn dead_documents(&self) -> u64 {
        self.dead.iter().map(|dead| dead.rows.len() as u64).sum()
    }

    /// The rows that count.
    #[must_use]
    pub fn live_rows(&self) -> LiveRows {
        let dead = self.dead.iter().flat_map(|dead| dead.rows.iter().copied()).collect();
        LiveRows { dead, end: self.next_row() }
    }

    /// Adds to what counts no longer.
    pub(crate) fn bury(&mut self, dead: &[Dead]) {
        for Dead { shard, rows } in dead {
            let place = self.dead.partition_point(|dead| dead.shard < *shard);
            if self.dead.get(place).is_none_or(|dead| dead.shard != *shard) {
                self.dead.insert(place, Dead { shard: *shard, rows: Vec::new() });
            }
            let all = &mut self.dead[place].rows;
            all.extend(rows);
            all.sort_unstable();
            all.dedup();
        }
    }

    /// Starts to add an input: its units have the next numbers.
    pub(crate) fn begin_batch(&mut self) {
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

/// The part of a manifest that is the same in every version of the format.
#[derive(Deserialize)]
struct AnyVersion {
    fingerprint: AnyFingerprint,
}

#[derive(Deserialize)]
struct AnyFingerprint {
    format_version: u32,
}

/// The reason why a text is not taken for a manifest.
#[derive(Debug)]
pub(crate) enum NoManifest {
    /// It is whole, and of a version of the format that is not known here.
    Version(u32),
    Damaged(String),
}

impl From<String> for NoManifest {
    fn from(what: String) -> Self {
        Self::Damaged(what)
    }
}

/// The checksum that a manifest's text says it has.
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

    /// Takes in the lines of the journal at `path`.
    pub(crate) fn continued(&mut self, lines: Vec<Sealed>, path: &Path) -> Result<(), StoreError> {
        if self.complete && !lines.is_empty() {
            self.begin_batch();
        }
        for Sealed { record, replaces } in lines {
            if record.shard != self.next_shard() {
                let what = format!("shard {} is missing", self.next_shard());
                return Err(StoreError::damaged(path, what));
            }
            self.shards.push(record);
            self.bury(&replaces);
        }
        Ok(())
    }

    /// Publishes `self` as the snapshot after the one that is there; its journal is empty.
    pub(crate) fn publish(&self, files: &Files) -> Result<(), StoreError> {
        let former = self.generation.saturating_sub(1).max(1);
        let checksum = self.checksum();
        Announced { former, generation: self.generation, checksum }.write(files)?;
        write_whole(&files.manifest(), &self.to_bytes())
    }

    fn body(&self) -> String {
        serde_json::to_string(self).expect("a manifest has only plain fields")
    }

    /// The checksum that stands in the snapshot of `self`.
    pub(crate) fn checksum(&self) -> Digest {
        Digest::of(self.body().as_bytes())
    }

    /// The bytes of `self` as a snapshot.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (body, checksum) = (self.body(), self.checksum());
        format!("{{\"checksum\":\"{checksum}\",\"manifest\":{body}}}\n").into_bytes()
    }
}
