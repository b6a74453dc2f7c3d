//! Reads the contents of a store at one moment: the last snapshot, continued by its journal. In: a folder.
//! Out: a manifest with its bytes. Opens no shard.

use std::fs;
use std::path::Path;

use crate::error::StoreError;
use crate::format::block_table::is_known;
use crate::format::manifest::{Manifest, NoManifest, stated_checksum};
use crate::local::generation::Announced;
use crate::local::journal::{Lines, read_journal};
use crate::local::paths::Files;
use crate::local::pin::Pin;
use crate::maintain::replicate::versions;
use crate::maintain::verify::Damage;
use crate::read_error::ReadError;

/// Contents of a store at one moment, and the bytes that say so.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) manifest: Manifest,
    /// Bytes of the last snapshot.
    pub(crate) snapshot: Vec<u8>,
    /// Whole lines of the snapshot's journal, if one counts.
    pub(crate) journal: Option<Vec<u8>>,
    /// Lock that keeps the files of the snapshot from being removed.
    pub(crate) pin: Option<Pin>,
    /// Damage of the file `generation`, which is ignored then.
    pub(crate) generation_damage: Option<Damage>,
}

impl State {
    /// Reads what a reader sees: the last snapshot and, during the first build, the units sealed so far. An
    /// input added to a complete store counts when it is in completely. `None` if there is no manifest.
    pub(crate) fn read(files: &Files) -> Result<Option<Self>, StoreError> {
        let snapshot = Self::snapshot_or_none(files)?;
        snapshot.map(|snapshot| snapshot.with_journal(files, false)).transpose()
    }

    /// Reads what a writer continues: what a reader sees, and the units sealed of an input being added.
    pub(crate) fn sealed(files: &Files) -> Result<Option<Self>, StoreError> {
        let snapshot = Self::snapshot_or_none(files)?;
        snapshot.map(|snapshot| snapshot.with_journal(files, true)).transpose()
    }

    fn snapshot_or_none(files: &Files) -> Result<Option<Self>, StoreError> {
        // Shards are looked for first. A manifest is written before any shard, so one that is absent after a
        // shard was seen is lost, and not about to be written.
        let shards = fs::read_dir(files.shards());
        let any_shard = shards.is_ok_and(|mut shards| shards.next().is_some());
        let announced = Announced::read_if_whole(files)?;
        let lost = any_shard || announced.0.is_some_and(|announced| announced.generation > 1);
        match Self::snapshot_since(files, announced)? {
            None if lost => Err(damaged(files, "the file is missing".to_owned())),
            snapshot => Ok(snapshot),
        }
    }

    /// Refuses a store of an unknown format version before anything is written to it.
    pub(crate) fn refuse_unknown(files: &Files) -> Result<(), StoreError> {
        match Self::snapshot_or_none(files) {
            Err(error @ StoreError::Format { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads the last snapshot alone.
    pub(crate) fn snapshot(files: &Files) -> Result<Option<Self>, StoreError> {
        Self::snapshot_since(files, Announced::read_if_whole(files)?)
    }

    /// Reads the last snapshot alone. The announcement was read before, so the manifest read now is not
    /// older.
    fn snapshot_since(
        files: &Files,
        (announced, generation_damage): (Option<Announced>, Option<Damage>),
    ) -> Result<Option<Self>, StoreError> {
        let path = files.manifest();
        let least = announced.map_or(0, |announced| announced.former);
        match Pin::read(&path) {
            Ok((pin, snapshot)) => match Manifest::parse(&snapshot) {
                Ok(Manifest { generation, .. }) if generation < least => {
                    let what = format!(
                        "it has generation {generation}, and the store had {least}: an older \
                         manifest was put in its place"
                    );
                    Err(StoreError::damaged(&path, what))
                }
                Ok(manifest) => {
                    let (journal, pin) = (None, Some(pin));
                    Ok(Some(Self { manifest, snapshot, journal, pin, generation_damage }))
                }
                Err(NoManifest::Version(version)) => {
                    Err(StoreError::Format { path: files.root.clone(), version })
                }
                Err(NoManifest::Damaged(what)) => Err(damaged(files, what)),
            },
            Err(ReadError::Missing) => Ok(None),
            Err(fault @ ReadError::Io(_)) => Err(fault.of_file(&path)),
            Err(ReadError::Damaged(what)) => Err(damaged(files, what)),
        }
    }

    /// Applies the journal. If there is none, nothing was sealed, or a newer manifest exists and is read. The
    /// journal of a complete store counts only with `added`.
    fn with_journal(mut self, files: &Files, added: bool) -> Result<Self, StoreError> {
        loop {
            if self.manifest.complete && !added {
                return Ok(self);
            }
            let path = files.journal(self.manifest.generation);
            if let Some(lines) = read_journal(&path)? {
                return self.continued(lines, &path);
            }
            let Some(now) = Self::snapshot(files)? else { return Ok(self) };
            let generation_damage = self.generation_damage.or(now.generation_damage);
            if now.manifest.generation <= self.manifest.generation {
                return Ok(Self { generation_damage, ..self });
            }
            self = Self { generation_damage, ..now };
        }
    }

    /// Announces the snapshot, in place of the one of generation `former`.
    pub(crate) fn announce(&self, files: &Files, former: Option<u64>) -> Result<(), StoreError> {
        let generation = self.manifest.generation;
        let former = former.unwrap_or(generation).min(generation);
        match stated_checksum(&self.snapshot) {
            Some(checksum) => Announced { former, generation, checksum }.write(files),
            None => Ok(()),
        }
    }

    /// Continues the snapshot by the lines of the journal at `path`.
    pub(crate) fn continued(mut self, lines: Lines, path: &Path) -> Result<Self, StoreError> {
        self.journal = Some(lines.bytes);
        self.manifest.continued(lines.sealed, path)?;
        Ok(self)
    }
}

/// Makes the error of a wrong manifest: damage, unless a shard has an unknown format version.
fn damaged(files: &Files, what: String) -> StoreError {
    match versions(files).find(|version| !is_known(*version)) {
        Some(version) => StoreError::Format { path: files.root.clone(), version },
        None => {
            let what = format!("{what}; mend the store with `hyperrag repair`");
            StoreError::damaged(&files.manifest(), what)
        }
    }
}

impl Manifest {
    /// Reads the manifest that a writer continues, see [`State::sealed`].
    pub(crate) fn sealed(files: &Files) -> Result<Option<Self>, StoreError> {
        Ok(State::sealed(files)?.map(|state| state.manifest))
    }
}

#[cfg(test)]
mod tests {
    use hyperrag_core::{Digest, Fingerprint, KvDtype, KvShape, ShardId};

    use super::*;
    use crate::format::manifest::{FileRecord, ShardRecord, Tombstones};
    use crate::local::journal::{Sealed, append};

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
            mended_by: None,
        }
    }

    #[test]
    fn a_reader_between_snapshot_and_journal_finds_the_later_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files { root: folder.path().to_owned() };
        let (layers, kv_heads, kv_dtype) = (1, 1, KvDtype::F32);
        let fingerprint = Fingerprint {
            format_version: crate::format::block_table::FORMAT_VERSION,
            model: "fake".into(),
            weights: Digest([1; 32]),
            tokenizer: Digest([2; 32]),
            profile: "plain".into(),
            profile_digest: Digest([3; 32]),
            chunk_tokens: 16,
            unit_rows: 1,
            language: "english".into(),
            kv_shape: KvShape { layers, kv_heads, head_dim: 4, hidden: 8, kv_dtype },
            calibration: None,
            rope: "interleaved".into(),
            dtype: "f32".into(),
            kernel: "cpu-f32-v1".into(),
        };
        let first = Manifest::first(fingerprint);
        first.publish(&files).unwrap();
        let begun = || State::snapshot(&files).unwrap().unwrap();
        let read = |state: State| state.with_journal(&files, false).unwrap().manifest;
        assert_eq!(read(begun()), first, "nothing was sealed yet");

        let seal = |generation, shard, replaces| {
            let sealed = Sealed { record: record(shard), replaces };
            append(&files.journal(generation), &sealed).unwrap();
        };
        seal(1, 0, Vec::new());
        let [reader, other] = [begun(), begun()];
        let shards = vec![record(0)];
        let last = Manifest { generation: 2, complete: true, shards, ..first };
        last.publish(&files).unwrap();
        let with_journal = read(other);
        assert_eq!(with_journal.shards, last.shards, "the old snapshot still has its journal");
        fs::remove_file(files.journal(1)).unwrap();
        assert_eq!(read(reader), last);

        // Only the writer sees units added to a complete store, until all are in.
        let dead = vec![Tombstones { shard: ShardId(0), rows: vec![0] }];
        seal(2, 1, dead.clone());
        assert_eq!(State::read(&files).unwrap().unwrap().manifest, last);
        let sealed = Manifest::sealed(&files).unwrap().unwrap();
        assert_eq!((sealed.complete, sealed.first_shard, sealed.first_row), (false, ShardId(1), 1));
        assert_eq!((sealed.batch(), sealed.dead.clone()), (&[record(1)][..], dead));
        let live = sealed.live_rows();
        assert_eq!([0, 1, 2].map(|row| live.contains(row)), [false, true, false]);
    }
}
