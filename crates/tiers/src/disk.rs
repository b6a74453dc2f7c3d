//! Reads and writes files in folders of a tier. In: open folders, names, ranges. Out: bytes, or the reason of the
//! system in words. It follows no link within a folder, and knows neither blocks nor budgets.

use std::fs::File;
use std::io;
use std::io::Write;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyperrag_core::TierError;
use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// Opens a folder by path, if its last part is no link. `None` if there is none.
pub(crate) fn open_folder(path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    absent(rustix::fs::openat(CWD, path, flags, Mode::empty()))
}

/// Opens a plain file in a folder for reading. `None` if there is none.
pub(crate) fn open_in(folder: impl AsFd, name: &str) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match absent(rustix::fs::openat(folder, name, flags, Mode::empty()))? {
        Some(opened) => plain(opened.into()).map(Some),
        None => Ok(None),
    }
}

/// Opens a plain file for reading. Links are followed. `None` if there is none.
pub(crate) fn open_at(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match absent(rustix::fs::openat(CWD, path, flags, Mode::empty()))? {
        Some(opened) => plain(opened.into()).map(Some),
        None => Ok(None),
    }
}

/// Refuses what is no plain file, such as a pipe, which has no end.
fn plain(file: File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no plain file")),
    }
}

/// Returns `None` for what is not there. What has the name and is a link, or a file in the place of a folder, is
/// not there either.
fn absent<T>(found: Result<T, Errno>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes a file from a folder, if it is there.
pub(crate) fn remove_in(folder: impl AsFd, name: &str) -> io::Result<()> {
    absent(rustix::fs::unlinkat(folder, name, AtFlags::empty())).map(drop)
}

/// Asks the system to read a range of a file ahead. A system that does not is not asked again.
pub(crate) fn announce(file: &File, range: &Range<u64>) {
    let length = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
    // Best effort: the bytes are read anyway.
    let _ = rustix::fs::fadvise(file, range.start, length, Advice::WillNeed);
}

/// Reads a range of a file, `None` if the file ends before it does. The caller bounds its length.
pub(crate) fn read_range(file: &File, range: &Range<u64>) -> io::Result<Option<Bytes>> {
    let length = range.end.saturating_sub(range.start);
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    while bytes.len() < length {
        let at = range.start + bytes.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => return Ok(None),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(length);
    Ok(Some(bytes.into()))
}

/// Returns an end of a name that no other temporary file has: of this process, and of no other by its number.
pub(crate) fn unique_end() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Writes a new file in a folder and returns it, locked for as long as it is open.
pub(crate) fn write_in(folder: impl AsFd, name: &str, bytes: &[u8]) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o644);
    let mut file = File::from(rustix::fs::openat(&folder, name, flags, mode)?);
    // Best effort: a file system without locks leaves the temporary files of dead processes behind.
    let _ = file.try_lock();
    file.write_all(bytes).inspect_err(|_| {
        // Best effort: the next start removes it.
        let _ = remove_in(&folder, name);
    })?;
    Ok(file)
}

/// Removes a temporary file, if no living process writes it.
pub(crate) fn remove_if_dead(folder: impl AsFd, name: &str) -> io::Result<()> {
    match open_in(&folder, name)? {
        Some(file) if file.try_lock().is_ok() => remove_in(folder, name),
        _ => Ok(()),
    }
}

/// Says what an error of the system means for a tier at `place`.
pub(crate) fn tier_error(place: &Path, error: &io::Error) -> TierError {
    let said = format!("{}: {error}", place.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => TierError::Full(said),
        io::ErrorKind::ReadOnlyFilesystem => {
            TierError::Refused(format!("{said}; it needs a file system that can be written to"))
        }
        io::ErrorKind::PermissionDenied => {
            TierError::Refused(format!("{said}; its owner must allow it"))
        }
        io::ErrorKind::InvalidData => TierError::Refused(said),
        _ => TierError::Unreachable(said),
    }
}
