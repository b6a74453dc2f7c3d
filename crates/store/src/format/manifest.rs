//! The manifest of a store: records, deleted rows and journal lines come in, a checksummed snapshot goes out,
//! and back. It opens no file.

use std::collections::HashSet;

use hyperrag_core::{Digest, Fingerprint, ShardId};
use serde::{Deserialize, Serialize};

use crate::format::envelope::{self, Envelope};
use crate::format::journal::JournalLine;
use crate::format::paths::index_folder;
use crate::format::records::{ShardRecord, Tombstones};
use crate::format::version::is_known;

/// Name of the manifest in its envelope.
const ENVELOPE: &str = "manifest";

/// Largest manifest or journal that is read, in bytes: two million shards.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 30;

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
    /// Sealed shards, by number.
    pub shards: Vec<ShardRecord>,
    /// Deleted documents, by shard.
    #[serde(rename = "dead")]
    pub tombstones: Vec<Tombstones>,
    /// Digest of the fingerprint before an upgrade, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgraded_from: Option<Digest>,
}

/// Set of the rows that are not deleted.
#[derive(Clone, Debug)]
pub struct LiveRows {
    deleted: HashSet<u64>,
    end: u64,
}

impl LiveRows {
    /// Whether the document of this row is in the store in this version.
    #[must_use]
    pub fn contains(&self, row: u64) -> bool {
        row < self.end && !self.deleted.contains(&row)
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
            tombstones: Vec::new(),
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
        self.first_row + self.appended_shards().iter().map(|record| record.rows).sum::<u64>()
    }

    /// Shards of the input added last.
    #[must_use]
    pub fn appended_shards(&self) -> &[ShardRecord] {
        let first = self.shards.partition_point(|record| record.shard < self.first_shard);
        &self.shards[first..]
    }

    /// Name of the folder of the index. Compaction begins a new one.
    #[must_use]
    pub fn index_folder(&self) -> String {
        index_folder(self.index)
    }

    /// Number of documents of all shards, deleted ones included.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.shards.iter().map(|shard| shard.documents).sum()
    }

    /// Number of deleted documents.
    #[must_use]
    pub fn deleted_documents(&self) -> u64 {
        self.tombstones.iter().map(|deleted| deleted.rows.len() as u64).sum()
    }

    /// Returns the set of rows that are not deleted.
    #[must_use]
    pub fn live_rows(&self) -> LiveRows {
        let deleted = self.tombstones.iter().flat_map(|deleted| deleted.rows.iter().copied());
        LiveRows { deleted: deleted.collect(), end: self.next_row() }
    }

    /// Marks documents as deleted.
    pub(crate) fn mark_deleted(&mut self, documents: &[Tombstones]) {
        for Tombstones { shard, rows } in documents {
            let place = self.tombstones.partition_point(|there| there.shard < *shard);
            if self.tombstones.get(place).is_none_or(|there| there.shard != *shard) {
                self.tombstones.insert(place, Tombstones { shard: *shard, rows: Vec::new() });
            }
            let all = &mut self.tombstones[place].rows;
            all.extend(rows);
            all.sort_unstable();
            all.dedup();
        }
    }

    /// Starts to add an input. Its shards get the next numbers.
    pub(crate) fn begin_append(&mut self) {
        (self.first_shard, self.first_row) = (self.next_shard(), self.next_row());
        self.complete = false;
    }
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
    Envelope::parse(ENVELOPE, text).ok().map(|envelope| envelope.checksum)
}

impl Manifest {
    /// Parses a snapshot. Checksum and version are checked before anything else is believed.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, NoManifest> {
        let no_manifest = |error: serde_json::Error| format!("no manifest: {error}");
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        let envelope = Envelope::parse(ENVELOPE, text.as_bytes()).map_err(no_manifest)?;
        let body = envelope.checked()?;
        let AnyVersion { fingerprint } = serde_json::from_str(body).map_err(no_manifest)?;
        if !is_known(fingerprint.format_version) {
            return Err(NoManifest::Version(fingerprint.format_version));
        }
        let manifest: Self = serde_json::from_str(body).map_err(no_manifest)?;
        let ascending = manifest.shards.is_sorted_by(|a, b| a.shard < b.shard)
            && manifest.tombstones.is_sorted_by(|a, b| a.shard < b.shard);
        match ascending {
            true => Ok(manifest),
            false => Err("its shards are not in order".to_owned().into()),
        }
    }

    /// Applies the lines of the journal.
    pub(crate) fn continued(&mut self, lines: Vec<JournalLine>) -> Result<(), String> {
        if self.complete && !lines.is_empty() {
            self.begin_append();
        }
        for JournalLine { record, replaces } in lines {
            if record.shard != self.next_shard() {
                return Err(format!("shard {} is missing", self.next_shard()));
            }
            self.add(record, &replaces);
        }
        Ok(())
    }

    /// Adds a sealed shard and marks the documents that it replaces as deleted.
    pub(crate) fn add(&mut self, record: ShardRecord, replaces: &[Tombstones]) {
        self.shards.push(record);
        self.mark_deleted(replaces);
    }

    /// Returns the digest of the manifest's file of a store that one build made of these shards.
    #[must_use]
    pub fn digest_of_one_build(fingerprint: &Fingerprint, shards: &[ShardRecord]) -> Digest {
        let (generation, shards) = (2, shards.to_vec());
        let first = Self::first(fingerprint.clone());
        Digest::of(&Self { generation, complete: true, shards, ..first }.to_bytes())
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
        envelope::encode(ENVELOPE, &self.body())
    }
}
