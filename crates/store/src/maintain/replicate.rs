//! Copies a store to a replica: the source's files come in, checked copies go out, then journal and manifest.
//! Knows neither the list of replicas nor how they are read.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyperrag_core::{Digest, Fingerprint, ShardId};
use hyperrag_files::temporary;

use crate::error::StoreError;
use crate::format::block_table::{HEADER_BYTES, Header};
use crate::format::manifest::{Manifest, ShardRecord};
use crate::local::journal::remove_other_journals;
use crate::local::open::{create_temporary, open_plain, open_sized, read_plain};
use crate::local::paths::{
    Files, check_own_folder, make_folder, make_own_folder, publish, sync_folder, sync_parent,
    write_whole,
};
use crate::local::pin::{collect, keep_old_manifest};
use crate::local::reader::Store;
use crate::local::shard_reader::Shard;
use crate::local::state::State;
use crate::local::writer::lock;

const COPY_BYTES: usize = 1 << 20;

/// A folder that is made or updated into a copy of a store: shards and chunk files one by one, then journal
/// and manifest. If stopped at any point, the same call continues it.
pub struct Replica {
    source: Store,
    state: State,
    target: Store,
    /// Generation of the copy's present manifest.
    former: Option<u64>,
    _lock: File,
}

impl Replica {
    /// Starts to copy the present contents of the store at `from` to `to`.
    ///
    /// # Errors
    /// [`StoreError::OtherStore`] if `to` is another store or holds more than `from`;
    /// [`StoreError::NotAStore`] for a folder of other things; [`StoreError::Locked`].
    pub fn open(from: &Path, to: &Path) -> Result<Self, StoreError> {
        let state = State::read(&Files { root: from.to_owned() })?
            .ok_or_else(|| StoreError::Absent { path: from.to_owned() })?;
        // A killed writer may not have synced it, and a copy must not outlive it.
        sync_parent(&Files { root: from.to_owned() }.manifest())?;
        let Manifest { fingerprint, upgraded_from, .. } = &state.manifest;
        let files = prepare(from, to, fingerprint, *upgraded_from)?;
        let lock = lock(&files)?;
        let theirs = Manifest::sealed(&files)
            .or_else(|error| if files.manifest().exists() { Err(error) } else { Ok(None) })?;
        if theirs.as_ref().is_some_and(|theirs| !is_former(theirs, &state.manifest, from, to)) {
            return Err(StoreError::OtherStore { path: to.to_owned() });
        }
        let former = theirs.map(|theirs| theirs.generation);
        for folder in [files.shards(), files.chunks()] {
            make_own_folder(&folder)?;
        }
        check_own_folder(&to.join(state.manifest.index_folder()))?;
        let manifest = Arc::new(state.manifest.clone());
        let source = Store::with_manifest(from, Arc::clone(&manifest));
        let target = Store::with_manifest(to, manifest);
        Ok(Self { source, state, target, former, _lock: lock })
    }

    /// Checks whether `to` can become a replica of a store with this fingerprint at `from`. Called before a
    /// long build.
    ///
    /// # Errors
    /// See [`Replica::open`].
    pub fn check(from: &Path, to: &Path, fingerprint: &Fingerprint) -> Result<(), StoreError> {
        match State::read(&Files { root: from.to_owned() }).ok().flatten() {
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
        let Store { files, manifest, fingerprint, .. } = &self.target;
        Ok(match thorough {
            true => self.target.verify_shard(shard, buffer, &AtomicU64::new(0))?.is_empty(),
            false => Shard::open(&files.shard(shard), manifest, fingerprint, shard).is_ok(),
        })
    }

    /// Puts journal and manifest in place. The copy is then a store with the contents that the source had at
    /// [`Replica::open`].
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be written.
    pub fn publish(self) -> Result<(), StoreError> {
        let Self { state, source, target, former, _lock } = self;
        let files = target.files.clone();
        if let Some(calibration) = source.calibration()?
            && target.calibration().is_err()
        {
            crate::local::calibration::write(&files.calibration(), &calibration)?;
        }
        // A killed copy may have left names there that are not durable.
        for folder in [files.shards(), files.chunks()] {
            sync_folder(&folder)?;
        }
        // The target holds the replica's former manifest.
        drop(target);
        keep_old_manifest(&files);
        state.publish(&files, former)?;
        collect(&files, &state.manifest).map(drop)
    }
}

/// Whether `theirs` is an earlier or the present manifest of the store at `from`, whose manifest is `ours`.
fn is_former(theirs: &Manifest, ours: &Manifest, from: &Path, to: &Path) -> bool {
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
        full.is_ok_and(|to| {
            crate::local::replica_list::replicas(from).is_ok_and(|known| known.contains(&to))
        })
    };
    // After compaction they may share no shard.
    (shared.peek().is_some() || theirs.shards.is_empty() || listed()) && shared.all(|same| same)
}

/// Refuses a folder that is the store itself, another store or no store, and makes a missing one. A copy may
/// be from before an upgrade, when the fingerprint's digest was `former`.
fn prepare(
    from: &Path,
    to: &Path,
    fingerprint: &Fingerprint,
    former: Option<Digest>,
) -> Result<Files, StoreError> {
    let files = Files { root: to.to_owned() };
    let other = || StoreError::OtherStore { path: to.to_owned() };
    State::refuse_unknown(&files)?;
    make_folder(to)?;
    sync_parent(to)?;
    if fs::canonicalize(from)
        .is_ok_and(|from| fs::canonicalize(to).is_ok_and(|to| to.starts_with(from)))
    {
        return Err(StoreError::SameFolder { path: to.to_owned() });
    }
    let any = fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some());
    if any && !files.manifest().exists() && !files.lock().exists() {
        return Err(StoreError::NotAStore { path: to.to_owned() });
    }
    match files.manifest().exists() {
        true => {
            let theirs = Manifest::sealed(&files)?.ok_or_else(other)?;
            let theirs = &theirs.fingerprint;
            if theirs.mismatch(fingerprint).is_some() && Some(theirs.digest()) != former {
                return Err(other());
            }
        }
        // The rest of an interrupted copy, or a store with a lost manifest.
        false => {
            let digest = fingerprint.digest();
            let known = |found| found == digest || Some(found) == former;
            if headers(&files).any(|header| !known(header.fingerprint)) {
                return Err(other());
            }
        }
    }
    Ok(files)
}

/// Lists the readable headers of the shards in a store's folder.
pub(crate) fn headers(files: &Files) -> impl Iterator<Item = Header> {
    header_bytes(files).filter_map(|bytes| Header::decode(&bytes).ok())
}

/// Lists the format versions in the intact headers of the shards.
pub(crate) fn versions(files: &Files) -> impl Iterator<Item = u32> {
    header_bytes(files).filter_map(|bytes| Header::version(&bytes))
}

fn header_bytes(files: &Files) -> impl Iterator<Item = [u8; HEADER_BYTES]> + use<> {
    let entries = fs::read_dir(files.shards()).into_iter().flatten().flatten();
    let paths =
        entries.map(|entry| entry.path()).filter(|p| p.extension().is_some_and(|e| e == "kv"));
    paths.filter_map(|path| {
        let mut bytes = [0; HEADER_BYTES];
        open_plain(&path).ok()?.read_exact(&mut bytes).ok()?;
        Some(bytes)
    })
}

/// A file under its temporary name. Removed unless it is published.
pub(crate) struct Partial<'a> {
    path: &'a Path,
    published: bool,
}

impl Partial<'_> {
    pub(crate) fn publish(mut self) -> Result<(), StoreError> {
        publish(self.path)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: the next copy overwrites it.
            let _ = fs::remove_file(temporary(self.path));
        }
    }
}

/// Copies a shard. Checks every byte of the copy before it gets its name.
pub(crate) fn copy_shard(
    source: &Store,
    target: &Store,
    shard: ShardId,
    buffer: &mut Vec<u8>,
    progress: &AtomicU64,
) -> Result<(), StoreError> {
    let (from, to) = (source.files.shard(shard), target.files.shard(shard));
    let copy = copy_bytes(&from, &to, source.manifest.record(shard).kv.bytes, progress)?;
    let damages = target.verify_shard_at(&temporary(&to), shard, buffer, &AtomicU64::new(0))?;
    match damages.into_iter().next() {
        None => copy.publish(),
        Some(damage) => {
            let place = damage.slot.map_or_else(String::new, |slot| format!("block {slot}: "));
            Err(StoreError::damaged(&from, format!("{place}{}", damage.what)))
        }
    }
}

/// Copies a chunk file. Checks the copy before it gets its name.
pub(crate) fn copy_chunk_file(
    source: &Store,
    target: &Store,
    shard: ShardId,
    buffer: &mut Vec<u8>,
    progress: &AtomicU64,
) -> Result<(), StoreError> {
    let (from, to) = (source.files.chunk_file(shard), target.files.chunk_file(shard));
    let bytes = source.manifest.record(shard).chunk_file.bytes;
    let copy = copy_bytes(&from, &to, bytes, progress)?;
    match target.verify_chunk_file_at(&temporary(&to), shard, buffer, &AtomicU64::new(0))? {
        None => copy.publish(),
        Some(damage) => Err(StoreError::damaged(&from, damage.what)),
    }
}

/// Copies a file to the temporary name of `to`, unchecked.
pub(crate) fn copy_bytes<'a>(
    from: &Path,
    to: &'a PathBuf,
    bytes: u64,
    progress: &AtomicU64,
) -> Result<Partial<'a>, StoreError> {
    let source = open_sized(from, bytes).map_err(|fault| fault.of_file(from))?;
    let target = create_temporary(to)?;
    let copy = Partial { path: to, published: false };
    let mut source = source.take(bytes);
    let mut buffer = vec![0; COPY_BYTES];
    let write = |part: &[u8]| (&target).write_all(part);
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StoreError::io(from, "cannot be read")(error)),
        };
        write(&buffer[..read]).map_err(StoreError::io(to, "cannot be written"))?;
        progress.fetch_add(read as u64, Ordering::Relaxed);
    }
    target.sync_all().map_err(StoreError::io(to, "cannot be written"))?;
    Ok(copy)
}

impl State {
    /// Writes journal and manifest of this state if they differ, and removes other journals. `former` is the
    /// generation of the manifest in place.
    pub(crate) fn publish(&self, files: &Files, former: Option<u64>) -> Result<(), StoreError> {
        let write = |path: PathBuf, bytes: &[u8]| match read_plain(&path, bytes.len() as u64) {
            Ok(there) if there == bytes => Ok(()),
            _ => write_whole(&path, bytes),
        };
        if let Some(journal) = &self.journal {
            write(files.journal(self.manifest.generation), journal)?;
        }
        self.announce(files, former)?;
        write(files.manifest(), &self.snapshot)?;
        let kept = self.journal.as_ref().map(|_| files.journal(self.manifest.generation));
        remove_other_journals(files, kept.as_deref())?;
        sync_folder(&files.root)
    }
}
