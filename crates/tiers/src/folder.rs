//! A folder of files: the shards of a store, and any file by name. In: places in shards, names. Out: bytes of the
//! files. It knows neither headers nor manifests, and believes no file.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperrag_core::{
    Blob, FactValue, Fetch, FetchSink, FileTier, Piece, Swapped, Tier, TierError, TierFact,
    TierRole, TierShape,
};

use crate::disk::{open_at, tier_error, unique_end};
use crate::names::check_file_name;
use crate::runs::{BlockFiles, read_runs};

/// Length of a frame, in bytes.
const FRAME_BYTES: u64 = 1 << 20;

/// Folder of the shards, and the end of their names.
const SHARDS: &str = "shards";
const SHARD_END: &str = ".kv";

/// Name of the lock of [`FileTier::swap_small`]. No name of a file has a tilde, so nothing is in its way.
const LOCK: &str = "swap~lock";

/// Longest wait for that lock, which is held for the writing of a small file.
const LOCK_WAIT: Duration = Duration::from_secs(20);

/// A folder on this machine, or one that is mounted: that of a store, or one with exported shards, whose names
/// are `shards/NNNNNN.TABLE.kv`.
pub struct FolderTier {
    name: String,
    folder: PathBuf,
    frame_bytes: u64,
}

impl FolderTier {
    /// Names a folder. Nothing is opened or made before it is needed.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let name = format!("folder:{}", folder.display());
        Self { name, folder: folder.to_owned(), frame_bytes: FRAME_BYTES }
    }

    /// Returns the tier with frames of another length, in bytes.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_frames(self, frame_bytes: u64) -> Self {
        Self { frame_bytes, ..self }
    }

    fn failed(&self, error: &io::Error) -> TierError {
        tier_error(&self.folder, error)
    }

    /// Opens the file of this name. `None` if there is none.
    fn open_named(&self, name: &str) -> Result<Option<(File, u64)>, TierError> {
        let opened = open_at(&self.path(name)?).and_then(|file| match file {
            Some(file) => file.metadata().map(|found| Some((file, found.len()))),
            None => Ok(None),
        });
        opened.map_err(|error| self.failed(&error))
    }

    fn path(&self, name: &str) -> Result<PathBuf, TierError> {
        check_file_name(name)?;
        Ok(self.folder.join(name))
    }

    /// Gives the file at `path` new contents, durably. A reader sees the old or the new ones.
    fn replace(&self, path: &Path, mut contents: impl Read) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.folder);
        make_folders(folder)?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!("~{}", unique_end()));
        let temporary = PathBuf::from(temporary);
        let mut file = File::options().write(true).create_new(true).open(&temporary)?;
        let written = io::copy(&mut contents, &mut file)
            .and_then(|_| file.sync_all())
            .and_then(|()| fs::rename(&temporary, path));
        written.inspect_err(|_| {
            // Best effort: no reader takes a file of this name for another.
            let _ = fs::remove_file(&temporary);
        })?;
        File::open(folder)?.sync_all()
    }

    /// Makes the file at `path`, unless there is one, without the lock: a process that was stopped while it held
    /// that would stop all others. Returns `None` where the system gives no file a second name.
    fn create(&self, path: &Path, contents: &[u8]) -> io::Result<Option<Swapped>> {
        let folder = path.parent().unwrap_or(&self.folder);
        make_folders(folder)?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!("~{}", unique_end()));
        let temporary = PathBuf::from(temporary);
        let made = File::options().write(true).create_new(true).open(&temporary);
        let written = made.and_then(|mut file| {
            file.write_all(contents)?;
            file.sync_all()?;
            match fs::hard_link(&temporary, path) {
                Ok(()) => Ok(Some(Swapped::Done)),
                // On a network drive the answer may have been lost, and the request sent again.
                Err(_) if file.metadata()?.nlink() > 1 => Ok(Some(Swapped::Done)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Ok(Some(Swapped::Changed))
                }
                Err(_) => Ok(None),
            }
        });
        // Best effort: no reader takes a file of this name for another.
        let _ = fs::remove_file(&temporary);
        let created = written?;
        File::open(folder)?.sync_all()?;
        Ok(created)
    }

    /// Takes the lock that those who change small files in this folder hold meanwhile. It ends with the file
    /// that is returned, and with the process.
    fn lock(&self) -> Result<File, TierError> {
        let made = make_folders(&self.folder).and_then(|()| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(self.folder.join(LOCK))
        });
        let lock = made.map_err(|error| self.failed(&error))?;
        let end = Instant::now() + LOCK_WAIT;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(error)) => return Err(self.failed(&error)),
                Err(TryLockError::WouldBlock) if Instant::now() < end => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => return Err(TierError::Timeout(LOCK_WAIT)),
            }
        }
    }
}

/// Makes a folder and those above it, durably.
fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_folders(parent)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made?,
    }
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

impl BlockFiles for FolderTier {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn same_file(&self, one: &Blob, other: &Blob) -> bool {
        one.shard == other.shard && one.key.table == other.key.table
    }

    /// Opens the shard by its name in a place that stores are exported to, else by that in a store's folder.
    fn open_file_of(&self, blob: &Blob) -> io::Result<Option<File>> {
        let (shards, shard) = (self.folder.join(SHARDS), blob.shard);
        let exported = format!("{shard}.{}{SHARD_END}", blob.key.table_name());
        match open_at(&shards.join(exported))? {
            Some(file) => Ok(Some(file)),
            None => open_at(&shards.join(format!("{shard}{SHARD_END}"))),
        }
    }

    fn range_of(&self, piece: &Piece) -> Option<Range<u64>> {
        let within = piece.blob.frame(piece.frame, self.frame_bytes);
        let start = piece.blob.offset.checked_add(within.start)?;
        let end = piece.blob.offset.checked_add(within.end)?;
        (!within.is_empty()).then_some(start..end)
    }
}

impl Tier for FolderTier {
    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> TierShape {
        TierShape {
            frame_bytes: self.frame_bytes,
            streams: false,
            immediate: true,
            role: TierRole::Home,
        }
    }

    /// Reads within the call. A read of a drive cannot be given up, so `patience` is not kept.
    fn fetch(&self, pieces: &[Piece], _: Duration, to: Arc<dyn FetchSink>) -> Box<dyn Fetch> {
        read_runs(self, pieces, |n, answer| to.deliver(n, answer));
        Box::new(())
    }

    /// Refuses: the folder holds whole shards, which [`FileTier::put_file`] stores.
    fn put(&self, _: &Blob, _: &Bytes) -> Result<(), TierError> {
        Err(TierError::Refused(format!("{} holds whole shards", self.name)))
    }

    fn holds(&self, blobs: &[Blob]) -> Result<Vec<bool>, TierError> {
        let mut held = Vec::with_capacity(blobs.len());
        for run in blobs.chunk_by(|one, other| self.same_file(one, other)) {
            let file = self.open_file_of(&run[0]).and_then(|file| match file {
                Some(file) => file.metadata().map(|found| found.len()),
                None => Ok(0),
            });
            let length = file.map_err(|error| self.failed(&error))?;
            let ends = run.iter().map(|blob| blob.offset.checked_add(blob.bytes));
            held.extend(ends.map(|end| end.is_some_and(|end| end <= length)));
        }
        Ok(held)
    }

    fn probe(&self) -> Result<Vec<TierFact>, TierError> {
        let listed = fs::read_dir(&self.folder).map(drop);
        listed.map_err(|error| self.failed(&error))?;
        let free = rustix::fs::statvfs(&self.folder);
        let free = free.map_err(|error| self.failed(&error.into()))?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        Ok(vec![TierFact { name: "free_bytes", value: FactValue::Number(free as f64) }])
    }
}

impl FileTier for FolderTier {
    fn name(&self) -> &str {
        &self.name
    }

    fn put_file(&self, name: &str, from: &Path) -> Result<(), TierError> {
        let path = self.path(name)?;
        let source = match open_at(from) {
            Ok(Some(source)) => Ok(source),
            Ok(None) => Err(io::Error::from(io::ErrorKind::NotFound)),
            Err(error) => Err(error),
        };
        let source = source.map_err(|error| tier_error(from, &error))?;
        self.replace(&path, source).map_err(|error| self.failed(&error))
    }

    /// Gives the file, which the caller has synced, its name here if it lies on the same disk, else copies it.
    fn take_file(&self, name: &str, from: &Path) -> Result<(), TierError> {
        let path = self.path(name)?;
        let folder = path.parent().unwrap_or(&self.folder);
        let named = make_folders(folder).and_then(|()| fs::rename(from, &path));
        match named {
            Ok(()) => {
                let synced = File::open(folder).and_then(|folder| folder.sync_all());
                synced.map_err(|error| self.failed(&error))
            }
            // It was taken before, and the answer was lost.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_file() => Ok(()),
            Err(_) => self.put_file(name, from),
        }
    }

    fn get_file(
        &self,
        name: &str,
        bytes_max: u64,
        to: &mut File,
    ) -> Result<Option<u64>, TierError> {
        let Some((file, length)) = self.open_named(name)? else { return Ok(None) };
        check_file_length(name, length, bytes_max)?;
        let copied = to.seek(SeekFrom::End(0)).and_then(|_| io::copy(&mut file.take(length), to));
        match copied.map_err(|error| self.failed(&error))? {
            copied if copied == length => Ok(Some(length)),
            copied => {
                Err(TierError::Protocol(format!("{name} ends after {copied} of {length} bytes")))
            }
        }
    }

    fn file_bytes(&self, name: &str) -> Result<Option<u64>, TierError> {
        Ok(self.open_named(name)?.map(|(_, length)| length))
    }

    fn read_small(&self, name: &str, bytes_max: u64) -> Result<Option<Bytes>, TierError> {
        let Some((file, length)) = self.open_named(name)? else { return Ok(None) };
        check_file_length(name, length, bytes_max)?;
        let mut bytes = Vec::new();
        let read = file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| self.failed(&error))?;
        check_file_length(name, bytes.len() as u64, bytes_max)?;
        Ok(Some(bytes.into()))
    }

    /// Changes a small file under a lock that all processes that use the folder take. One that is made needs none.
    fn swap_small(&self, name: &str, old: Option<&[u8]>, new: &[u8]) -> Result<Swapped, TierError> {
        let path = self.path(name)?;
        if old.is_none() {
            if self.open_named(name)?.is_some() {
                return Ok(Swapped::Changed);
            }
            let created = self.create(&path, new).map_err(|error| self.failed(&error))?;
            if let Some(created) = created {
                return Ok(created);
            }
        }
        let lock = self.lock()?;
        let bytes_max = old.map_or(0, <[u8]>::len) as u64;
        let found = match self.open_named(name)? {
            // Too long to be the old one.
            Some((_, length)) if length > bytes_max => return Ok(Swapped::Changed),
            Some(_) => self.read_small(name, bytes_max)?,
            None => None,
        };
        if found.as_deref() != old {
            return Ok(Swapped::Changed);
        }
        let replaced = self.replace(&path, new);
        let done = replaced.or_else(|error| {
            // The new file may be there all the same.
            let there = self.read_small(name, new.len() as u64);
            if matches!(there, Ok(Some(bytes)) if bytes == new) { Ok(()) } else { Err(error) }
        });
        drop(lock);
        done.map(|()| Swapped::Done).map_err(|error| self.failed(&error))
    }
}

fn check_file_length(name: &str, length: u64, bytes_max: u64) -> Result<(), TierError> {
    if length > bytes_max {
        let said = format!("{name} has {length} bytes, more than {bytes_max}");
        return Err(TierError::Refused(said));
    }
    Ok(())
}
