use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use hyperrag_kv::{Digest, Fingerprint, ShardId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::StoreError;
use crate::files::{Files, write_whole};

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
}

/// What a store holds at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Counts the snapshots, from 1.
    pub generation: u64,
    /// What the store was made with.
    pub fingerprint: Fingerprint,
    /// Whether all of the corpus is in.
    pub complete: bool,
    /// The sealed units, in order.
    pub shards: Vec<ShardRecord>,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    checksum: Digest,
    #[serde(borrow)]
    manifest: &'a RawValue,
}

/// What a store holds at one moment, and the bytes that say so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) manifest: Manifest,
    /// Bytes of the last snapshot.
    pub(crate) snapshot: Vec<u8>,
    /// Whole lines of its journal, where there is one.
    pub(crate) journal: Option<Vec<u8>>,
}

impl State {
    /// Reads the last snapshot and the journal written since. `None` where there is no manifest.
    /// A writer may be at work: what was sealed before the call is found.
    pub(crate) fn read(files: &Files) -> Result<Option<Self>, StoreError> {
        // Looked for first: a manifest comes before any shard, so one that is absent after a shard
        // was seen is lost, and not about to be written.
        let shards = fs::read_dir(files.shards());
        let any_shard = shards.is_ok_and(|mut shards| shards.next().is_some());
        match Self::snapshot(files)? {
            Some(snapshot) => snapshot.with_journal(files).map(Some),
            None if any_shard => Err(StoreError::damaged(&files.manifest(), "the file is missing")),
            None => Ok(None),
        }
    }

    /// The last snapshot alone.
    pub(crate) fn snapshot(files: &Files) -> Result<Option<Self>, StoreError> {
        let path = files.manifest();
        match fs::read_to_string(&path) {
            Ok(text) => match Manifest::parse(&text) {
                Ok(manifest) => {
                    Ok(Some(Self { manifest, snapshot: text.into_bytes(), journal: None }))
                }
                Err(what) => Err(StoreError::damaged(&path, what)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                Err(StoreError::damaged(&path, "it is not UTF-8"))
            }
            Err(error) => Err(StoreError::io(&path, "cannot be read")(error)),
        }
    }

    /// The snapshot continued by its journal. Where there is none, either nothing was sealed since,
    /// or a writer has put a later snapshot in place meanwhile and removed the journal; then that
    /// one counts. A store has two snapshots in its life, so this ends.
    fn with_journal(mut self, files: &Files) -> Result<Self, StoreError> {
        loop {
            self.journal = self.manifest.replay(&files.journal(self.manifest.generation))?;
            if self.journal.is_some() {
                break;
            }
            match Self::snapshot(files)? {
                Some(later) if later.manifest.generation > self.manifest.generation => self = later,
                _ => break,
            }
        }
        for (number, record) in self.manifest.shards.iter().enumerate() {
            if record.shard.0 as usize != number {
                let what = format!("shard {number} is missing");
                return Err(StoreError::damaged(&files.manifest(), what));
            }
        }
        Ok(self)
    }
}

impl Manifest {
    /// As [`State::read`], without the bytes.
    pub(crate) fn read(files: &Files) -> Result<Option<Self>, StoreError> {
        Ok(State::read(files)?.map(|state| state.manifest))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let envelope: Envelope<'_> =
            serde_json::from_str(text).map_err(|e| format!("no manifest: {e}"))?;
        let raw = envelope.manifest.get();
        if Digest::of(raw.as_bytes()) != envelope.checksum {
            return Err("its checksum does not fit".to_owned());
        }
        serde_json::from_str(raw).map_err(|e| format!("no manifest: {e}"))
    }

    /// Publishes `self` as a snapshot; its journal is empty.
    pub(crate) fn publish(&self, files: &Files) -> Result<(), StoreError> {
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

    /// Takes in the journal, if there is one, and gives its whole lines: one record a line after its
    /// checksum. A line that was cut short by a crash can only be the last; it was never acknowledged
    /// and counts for nothing.
    fn replay(&mut self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        let mut bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io(path, "cannot be read")(error)),
        };
        let mut whole = 0;
        for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let what = || {
                StoreError::damaged(path, format!("line {} does not fit its checksum", number + 1))
            };
            let Some(record) = line.strip_suffix(b"\n") else {
                // A crash leaves the start of a line; a whole record and then another byte than
                // its line end is an acknowledged line, damaged.
                if line.split_last().is_some_and(|(_, rest)| parse_line(rest).is_some()) {
                    return Err(what());
                }
                break;
            };
            self.shards.push(parse_line(record).ok_or_else(what)?);
            whole += line.len();
        }
        bytes.truncate(whole);
        Ok(Some(bytes))
    }
}

pub(crate) fn parse_line(line: &[u8]) -> Option<ShardRecord> {
    let (crc, record) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let expected = format!("{:08x}", crc32fast::hash(record.as_bytes()));
    (crc == expected).then(|| serde_json::from_str(record).ok())?
}

/// A record as a line of the journal.
pub(crate) fn line(record: &ShardRecord) -> String {
    let record = serde_json::to_string(record).expect("a record has only plain fields");
    format!("{:08x} {record}\n", crc32fast::hash(record.as_bytes()))
}

/// Appends one record, durably. Where that fails, what was written of it is cut off, so that
/// another try does not continue a broken line.
pub(crate) fn append(path: &Path, record: &ShardRecord) -> Result<(), StoreError> {
    let line = line(record);
    let appended = (|| {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        let before = file.metadata()?.len();
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).inspect_err(|_| {
            // Best effort: opening the store cuts an unfinished line too.
            let _ = file.set_len(before);
        })
    })();
    appended.map_err(StoreError::io(path, "cannot be appended to"))
}

/// Cuts off the unfinished last line of a journal, if a crash left one.
pub(crate) fn trim(path: &Path) -> Result<(), StoreError> {
    let Ok(bytes) = fs::read(path) else { return Ok(()) };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole == bytes.len() {
        return Ok(());
    }
    let cut = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_len(whole as u64)?;
        file.sync_data()
    });
    cut.map_err(StoreError::io(path, "its unfinished last line cannot be cut off"))
}

#[cfg(test)]
mod tests {
    use hyperrag_kv::{Element, Geometry};

    use super::*;

    fn record(shard: u32) -> ShardRecord {
        let file = FileRecord { bytes: 4096, digest: Digest([4; 32]) };
        ShardRecord {
            shard: ShardId(shard),
            rows: 1,
            rows_digest: Digest([5; 32]),
            documents: 1,
            chunks: 1,
            tokens: 1,
            kv: file.clone(),
            chunk_file: file,
        }
    }

    #[test]
    fn a_reader_between_snapshot_and_journal_finds_the_later_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files { root: folder.path().to_owned() };
        let (layers, kv_heads, element) = (1, 1, Element::F32);
        let fingerprint = Fingerprint {
            format_version: crate::FORMAT_VERSION,
            model: "fake".into(),
            weights: Digest([1; 32]),
            tokenizer: Digest([2; 32]),
            profile: "plain".into(),
            profile_digest: Digest([3; 32]),
            chunk_tokens: 16,
            unit_rows: 1,
            geometry: Geometry { layers, kv_heads, head_dim: 4, hidden: 8, element },
            rope: "interleaved".into(),
            compute: "f32".into(),
            kernel: "cpu-f32-v1".into(),
        };
        let first = Manifest { generation: 1, fingerprint, complete: false, shards: Vec::new() };
        first.publish(&files).unwrap();
        let begun = || State::snapshot(&files).unwrap().unwrap();
        let read = |state: State| state.with_journal(&files).unwrap().manifest;
        assert_eq!(read(begun()), first, "nothing was sealed yet");

        append(&files.journal(1), &record(0)).unwrap();
        let reader = begun();
        let shards = vec![record(0)];
        let last = Manifest { generation: 2, complete: true, shards, ..first };
        last.publish(&files).unwrap();
        let with_journal = read(reader.clone());
        assert_eq!(with_journal.shards, last.shards, "the old snapshot still has its journal");
        fs::remove_file(files.journal(1)).unwrap();
        assert_eq!(read(reader), last);
    }
}
