//! Reads the contents of a store at one moment: the last snapshot, continued by its journal. In: a folder.
//! Out: a manifest with its bytes. Opens no shard.

use std::fs;
use std::path::{Path, PathBuf};

use crate::damage::Damage;
use crate::error::StoreError;
use crate::format::announcement::Announced;
use crate::format::journal::Journal;
use crate::format::manifest::{Manifest, NoManifest, stated_checksum};
use crate::format::paths::StorePaths;
use crate::format::version::is_known;
use crate::local::durable::{sync_folder, write_whole};
use crate::local::generation;
use crate::local::journal::{read_journal, remove_other_journals};
use crate::local::open::read_plain;
use crate::local::pin::Pin;
use crate::local::shard_reader::shard_versions;
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
    /// Reads what a reader sees: the last snapshot and, during the first build, the shards sealed so far. An
    /// input added to a complete store counts when it is in completely. `None` if there is no manifest.
    pub(crate) fn read(paths: &StorePaths) -> Result<Option<Self>, StoreError> {
        let snapshot = Self::snapshot_or_none(paths)?;
        snapshot.map(|snapshot| snapshot.with_journal(paths, false)).transpose()
    }

    /// Reads what a writer continues: what a reader sees, and the shards sealed of an input being added.
    pub(crate) fn sealed(paths: &StorePaths) -> Result<Option<Self>, StoreError> {
        let snapshot = Self::snapshot_or_none(paths)?;
        snapshot.map(|snapshot| snapshot.with_journal(paths, true)).transpose()
    }

    /// Reads the manifest that a writer continues, see [`State::sealed`].
    pub(crate) fn sealed_manifest(paths: &StorePaths) -> Result<Option<Manifest>, StoreError> {
        Ok(Self::sealed(paths)?.map(|state| state.manifest))
    }

    /// Reads the manifest without what an append to a complete store sealed.
    pub(crate) fn manifest_without_append(
        paths: &StorePaths,
    ) -> Result<Option<Manifest>, StoreError> {
        let snapshot = Self::snapshot(paths)?.map(|state| state.manifest);
        match snapshot.filter(|manifest| manifest.complete) {
            None => Self::sealed_manifest(paths),
            complete => Ok(complete),
        }
    }

    fn snapshot_or_none(paths: &StorePaths) -> Result<Option<Self>, StoreError> {
        // Shards are looked for first. A manifest is written before any shard, so one that is absent after a
        // shard was seen is lost, and not about to be written.
        let shards = fs::read_dir(paths.shards());
        let any_shard = shards.is_ok_and(|mut shards| shards.next().is_some());
        let announced = generation::read_if_whole(paths)?;
        let lost = any_shard || announced.0.is_some_and(|announced| announced.generation > 1);
        match Self::snapshot_since(paths, announced)? {
            None if lost => Err(damaged(paths, "the file is missing".to_owned())),
            snapshot => Ok(snapshot),
        }
    }

    /// Refuses a store of an unknown format version before anything is written to it.
    pub(crate) fn refuse_unknown(paths: &StorePaths) -> Result<(), StoreError> {
        match Self::snapshot_or_none(paths) {
            Err(error @ StoreError::Format { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads the last snapshot alone.
    pub(crate) fn snapshot(paths: &StorePaths) -> Result<Option<Self>, StoreError> {
        Self::snapshot_since(paths, generation::read_if_whole(paths)?)
    }

    /// Reads the last snapshot alone. The announcement was read before, so the manifest read now is not
    /// older.
    fn snapshot_since(
        paths: &StorePaths,
        (announced, generation_damage): (Option<Announced>, Option<Damage>),
    ) -> Result<Option<Self>, StoreError> {
        let path = paths.manifest();
        let least = announced.map_or(0, |announced| announced.previous);
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
                    Err(StoreError::Format { path: paths.root.clone(), version })
                }
                Err(NoManifest::Damaged(what)) => Err(damaged(paths, what)),
            },
            Err(ReadError::Missing) => Ok(None),
            Err(fault @ ReadError::Io(_)) => Err(fault.of_file(&path)),
            Err(ReadError::Damaged(what)) => Err(damaged(paths, what)),
        }
    }

    /// Applies the journal. If there is none, nothing was sealed, or a newer manifest exists and is read. The
    /// journal of a complete store counts only with `added`.
    fn with_journal(mut self, paths: &StorePaths, added: bool) -> Result<Self, StoreError> {
        loop {
            if self.manifest.complete && !added {
                return Ok(self);
            }
            let path = paths.journal(self.manifest.generation);
            if let Some(journal) = read_journal(&path)? {
                return self.continued(journal, &path);
            }
            let Some(now) = Self::snapshot(paths)? else { return Ok(self) };
            let generation_damage = self.generation_damage.or(now.generation_damage);
            if now.manifest.generation <= self.manifest.generation {
                return Ok(Self { generation_damage, ..self });
            }
            self = Self { generation_damage, ..now };
        }
    }

    /// Announces the snapshot, in place of the one of generation `previous`.
    pub(crate) fn announce(
        &self,
        paths: &StorePaths,
        previous: Option<u64>,
    ) -> Result<(), StoreError> {
        let generation = self.manifest.generation;
        let previous = previous.unwrap_or(generation).min(generation);
        match stated_checksum(&self.snapshot) {
            Some(checksum) => {
                generation::write(paths, &Announced { previous, generation, checksum })
            }
            None => Ok(()),
        }
    }

    /// Writes journal and manifest of this state if they differ, and removes other journals. `previous` is the
    /// generation of the manifest in place.
    pub(crate) fn publish(
        &self,
        paths: &StorePaths,
        previous: Option<u64>,
    ) -> Result<(), StoreError> {
        let write = |path: PathBuf, bytes: &[u8]| match read_plain(&path, bytes.len() as u64) {
            Ok(there) if there == bytes => Ok(()),
            _ => write_whole(&path, bytes),
        };
        if let Some(journal) = &self.journal {
            write(paths.journal(self.manifest.generation), journal)?;
        }
        self.announce(paths, previous)?;
        write(paths.manifest(), &self.snapshot)?;
        let kept = self.journal.as_ref().map(|_| paths.journal(self.manifest.generation));
        remove_other_journals(paths, kept.as_deref())?;
        sync_folder(&paths.root)
    }

    /// Makes the state of a snapshot without a journal.
    pub(crate) fn without_journal(manifest: Manifest) -> Self {
        let (snapshot, generation_damage) = (manifest.to_bytes(), None);
        Self { manifest, snapshot, journal: None, pin: None, generation_damage }
    }

    /// Continues the snapshot by the journal at `path`.
    pub(crate) fn continued(mut self, journal: Journal, path: &Path) -> Result<Self, StoreError> {
        self.journal = Some(journal.bytes);
        let continued = self.manifest.continued(journal.lines);
        continued.map_err(|what| StoreError::damaged(path, what))?;
        Ok(self)
    }
}

/// Makes the error of a wrong manifest: damage, unless a shard has an unknown format version.
fn damaged(paths: &StorePaths, what: String) -> StoreError {
    match shard_versions(paths).find(|version| !is_known(*version)) {
        Some(version) => StoreError::Format { path: paths.root.clone(), version },
        None => StoreError::damaged(&paths.manifest(), what),
    }
}

#[cfg(test)]
mod tests {
    use hyperrag_core::{Digest, Fingerprint, KvDtype, KvShape, ShardId};

    use super::*;
    use crate::format::journal::JournalLine;
    use crate::format::records::{FileRecord, ShardRecord, Tombstones};
    use crate::format::version::FORMAT_VERSION;
    use crate::local::generation::publish_manifest;
    use crate::local::journal::append;

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
            repaired_by: None,
        }
    }

    #[test]
    fn a_reader_between_snapshot_and_journal_finds_the_later_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let paths = StorePaths::new(folder.path());
        let (layers, kv_heads, kv_dtype) = (1, 1, KvDtype::F32);
        let fingerprint = Fingerprint {
            format_version: FORMAT_VERSION,
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
        publish_manifest(&paths, &first).unwrap();
        let begun = || State::snapshot(&paths).unwrap().unwrap();
        let read = |state: State| state.with_journal(&paths, false).unwrap().manifest;
        assert_eq!(read(begun()), first, "nothing was sealed yet");

        let seal = |generation, shard, replaces| {
            let sealed = JournalLine { record: record(shard), replaces };
            append(&paths.journal(generation), &sealed).unwrap();
        };
        seal(1, 0, Vec::new());
        let [reader, other] = [begun(), begun()];
        let shards = vec![record(0)];
        let last = Manifest { generation: 2, complete: true, shards, ..first };
        publish_manifest(&paths, &last).unwrap();
        let with_journal = read(other);
        assert_eq!(with_journal.shards, last.shards, "the old snapshot still has its journal");
        fs::remove_file(paths.journal(1)).unwrap();
        assert_eq!(read(reader), last);

        // Only the writer sees shards added to a complete store, until all are in.
        let deleted = vec![Tombstones { shard: ShardId(0), rows: vec![0] }];
        seal(2, 1, deleted.clone());
        assert_eq!(State::read(&paths).unwrap().unwrap().manifest, last);
        let sealed = State::sealed_manifest(&paths).unwrap().unwrap();
        assert_eq!((sealed.complete, sealed.first_shard, sealed.first_row), (false, ShardId(1), 1));
        assert_eq!(
            (sealed.appended_shards(), sealed.tombstones.clone()),
            (&[record(1)][..], deleted)
        );
        let live = sealed.live_rows();
        assert_eq!([0, 1, 2].map(|row| live.contains(row)), [false, true, false]);
    }
}
