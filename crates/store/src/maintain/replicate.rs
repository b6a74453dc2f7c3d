//! Copies a store to a replica: the source's files come in, checked copies go out, then journal and manifest.
//! It knows neither the list of replicas nor how they are read.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyperrag_core::{Digest, Fingerprint, ShardId};

use crate::error::StoreError;
use crate::format::manifest::Manifest;
use crate::format::paths::StorePaths;
use crate::format::records::ShardRecord;
use crate::local::calibration;
use crate::local::durable::{
    check_own_folder, make_folder, make_own_folder, sync_folder, sync_parent,
};
use crate::local::garbage::{garbage_collect, keep_old_manifest};
use crate::local::lock::lock;
use crate::local::notes;
use crate::local::reader::Store;
use crate::local::replica_list::replicas;
use crate::local::shard_reader::{OpenShard, shard_headers};
use crate::local::state::State;
use crate::maintain::copy::{copy_chunk_file, copy_shard};

/// A folder that is made or updated into a copy of a store: shards and chunk files one by one, then journal
/// and manifest. If stopped at any point, the same call continues it.
pub struct Replica {
    source: Store,
    state: State,
    target: Store,
    /// Generation of the copy's present manifest.
    previous: Option<u64>,
    _lock: File,
}

impl Replica {
    /// Starts to copy the present contents of the store at `from` to `to`.
    ///
    /// # Errors
    /// [`StoreError::OtherStore`] if `to` is another store or holds more than `from`;
    /// [`StoreError::NotAStore`] for a folder of other things; [`StoreError::Locked`].
    pub fn open(from: &Path, to: &Path) -> Result<Self, StoreError> {
        let state = State::read(&StorePaths::new(from))?
            .ok_or_else(|| StoreError::Absent { path: from.to_owned() })?;
        // A killed writer may not have synced it, and a copy must not outlive it.
        sync_parent(&StorePaths::new(from).manifest())?;
        let Manifest { fingerprint, upgraded_from, .. } = &state.manifest;
        let paths = prepare(from, to, fingerprint, *upgraded_from)?;
        let lock = lock(&paths)?;
        let theirs =
            State::sealed_manifest(&paths).or_else(|error| match paths.manifest().exists() {
                true => Err(of_replica(error)),
                false => Ok(None),
            })?;
        if theirs.as_ref().is_some_and(|theirs| !is_previous(theirs, &state.manifest, from, to)) {
            return Err(StoreError::OtherStore { path: to.to_owned() });
        }
        let previous = theirs.map(|theirs| theirs.generation);
        for folder in [paths.shards(), paths.chunks()] {
            make_own_folder(&folder)?;
        }
        check_own_folder(&to.join(state.manifest.index_folder()))?;
        let manifest = Arc::new(state.manifest.clone());
        let source = Store::with_manifest(from, Arc::clone(&manifest));
        let target = Store::with_manifest(to, manifest);
        Ok(Self { source, state, target, previous, _lock: lock })
    }

    /// Checks whether `to` can become a replica of a store with this fingerprint at `from`. Called before a
    /// long build.
    ///
    /// # Errors
    /// See [`Replica::open`].
    pub fn check(from: &Path, to: &Path, fingerprint: &Fingerprint) -> Result<(), StoreError> {
        match State::read(&StorePaths::new(from)).ok().flatten() {
            Some(State { manifest: Manifest { fingerprint, upgraded_from, .. }, .. }) => {
                prepare(from, to, &fingerprint, upgraded_from).map(drop)
            }
            None => prepare(from, to, fingerprint, None).map(drop),
        }
    }

    /// Manifest that the finished copy will have.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.state.manifest
    }

    /// Copies one shard and its chunk file if the copy lacks them. Returns the bytes copied. Files there are
    /// known by their length and by the checksums of header and table, or, with `thorough`, by all checksums.
    /// A copy is checked in full before it gets its name.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the source's file is not what was written.
    pub fn copy(
        &self,
        shard: ShardId,
        thorough: bool,
        buffer: &mut Vec<u8>,
        progress: &AtomicU64,
    ) -> Result<u64, StoreError> {
        let record = self.state.manifest.record(shard);
        let mut copied = 0;
        if self.has_shard(shard, thorough, buffer)? {
            progress.fetch_add(record.kv.bytes, Ordering::Relaxed);
        } else {
            copy_shard(&self.source, &self.target, shard, buffer, progress)?;
            copied += record.kv.bytes;
        }
        if self.target.verify_chunk_file(shard, buffer, &AtomicU64::new(0))?.is_none() {
            progress.fetch_add(record.chunk_file.bytes, Ordering::Relaxed);
        } else {
            copy_chunk_file(&self.source, &self.target, shard, buffer, progress)?;
            copied += record.chunk_file.bytes;
        }
        Ok(copied)
    }

    fn has_shard(
        &self,
        shard: ShardId,
        thorough: bool,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, StoreError> {
        let Store { paths, manifest, fingerprint, .. } = &self.target;
        Ok(match thorough {
            true => self.target.verify_shard(shard, buffer, &AtomicU64::new(0))?.is_empty(),
            false => OpenShard::open(&paths.shard(shard), manifest, fingerprint, shard).is_ok(),
        })
    }

    /// Puts journal and manifest in place. The copy is then a store with the contents that the source had at
    /// [`Replica::open`].
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be written.
    pub fn publish(self) -> Result<(), StoreError> {
        let Self { state, source, target, previous, _lock } = self;
        let paths = target.paths.clone();
        if let Some(calibration) = source.calibration()?
            && target.calibration().is_err()
        {
            calibration::write(&paths.calibration(), &calibration)?;
        }
        if let Ok(Some(notes)) = notes::notes(&source.paths.root) {
            notes::write(&paths.root, &notes)?;
        }
        // A killed copy may have left names there that are not durable.
        for folder in [paths.shards(), paths.chunks()] {
            sync_folder(&folder)?;
        }
        // The target holds the replica's previous manifest.
        drop(target);
        keep_old_manifest(&paths);
        state.publish(&paths, previous)?;
        garbage_collect(&paths, &state.manifest).map(drop)
    }
}

/// Whether `theirs` is an earlier or the present manifest of the store at `from`, whose manifest is `ours`.
fn is_previous(theirs: &Manifest, ours: &Manifest, from: &Path, to: &Path) -> bool {
    if theirs.generation >= ours.generation {
        return theirs == ours
            || theirs.generation == ours.generation
                && !theirs.complete
                && ours.shards.starts_with(&theirs.shards);
    }
    let same = |record: &ShardRecord| ours.shard(record.shard).map(|ours| ours == record);
    let mut shared = theirs.shards.iter().filter_map(same).peekable();
    let listed = || {
        let full = fs::canonicalize(to);
        full.is_ok_and(|to| replicas(from).is_ok_and(|known| known.contains(&to)))
    };
    // After compaction they may share no shard.
    (shared.peek().is_some() || theirs.shards.is_empty() || listed()) && shared.all(|same| same)
}

/// Names the damage of a replica's manifest as what it is: no repair of a store mends it.
fn of_replica(error: StoreError) -> StoreError {
    match error {
        StoreError::Damaged { path, what } => StoreError::DamagedReplica { path, what },
        error => error,
    }
}

/// Refuses a folder that is the store itself, another store or no store, and makes a missing one. A copy may
/// be from before an upgrade, when the fingerprint's digest was `previous`.
fn prepare(
    from: &Path,
    to: &Path,
    fingerprint: &Fingerprint,
    previous: Option<Digest>,
) -> Result<StorePaths, StoreError> {
    let paths = StorePaths::new(to);
    let other = || StoreError::OtherStore { path: to.to_owned() };
    State::refuse_unknown(&paths)?;
    make_folder(to)?;
    sync_parent(to)?;
    if fs::canonicalize(from)
        .is_ok_and(|from| fs::canonicalize(to).is_ok_and(|to| to.starts_with(from)))
    {
        return Err(StoreError::SameFolder { path: to.to_owned() });
    }
    let any = fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some());
    if any && !paths.manifest().exists() && !paths.lock().exists() {
        return Err(StoreError::NotAStore { path: to.to_owned() });
    }
    match paths.manifest().exists() {
        true => {
            let theirs = State::sealed_manifest(&paths).map_err(of_replica)?.ok_or_else(other)?;
            let theirs = &theirs.fingerprint;
            if theirs.mismatch(fingerprint).is_some() && Some(theirs.digest()) != previous {
                return Err(other());
            }
        }
        // The rest of an interrupted copy, or a store with a lost manifest.
        false => {
            let digest = fingerprint.digest();
            let known = |found| found == digest || Some(found) == previous;
            if shard_headers(&paths).any(|header| !known(header.fingerprint)) {
                return Err(other());
            }
        }
    }
    Ok(paths)
}
