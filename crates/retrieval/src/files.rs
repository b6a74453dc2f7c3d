//! Opens, locks and replaces the files of an index, even while others change the folder.
//!
//! Only plain files are opened, and every written file is created anew: a link in the place of a file
//! is never followed. New files have the rights that the umask leaves.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyperrag_files::{create_temporary, open_own, temporary};
use tantivy::directory::error::{LockError, OpenReadError};
use tantivy::directory::{Lock, META_LOCK};

use crate::error::RetrievalError;

/// Largest size of a list of files, in bytes: lists of 100,000 segments are smaller.
const LIST_BYTES_MAX: u64 = 64 << 20;

/// Opens a plain file for reading; `None` if there is none.
pub(crate) fn open_existing(path: &Path) -> io::Result<Option<File>> {
    match open_own(path, File::options().read(true)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads all bytes of a file that lists others.
pub(crate) fn read_list(dir: &Path, name: &Path) -> Result<Vec<u8>, OpenReadError> {
    let failed = |error| OpenReadError::wrap_io_error(error, name.to_owned());
    let file = open_existing(&dir.join(name)).map_err(failed)?;
    let file = file.ok_or_else(|| OpenReadError::FileDoesNotExist(name.to_owned()))?;
    let mut bytes = Vec::new();
    file.take(LIST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > LIST_BYTES_MAX {
        true => Err(failed(io::Error::new(ErrorKind::InvalidData, "it is too long for a list"))),
        false => Ok(bytes),
    }
}

/// A file that is written under another name and then takes the place of `path` in one step.
pub(crate) struct Replacement<'a> {
    path: &'a Path,
    partial: PathBuf,
    pub(crate) file: File,
    is_done: bool,
}

impl<'a> Replacement<'a> {
    pub(crate) fn begin(path: &'a Path) -> io::Result<Self> {
        let (file, partial) = (create_temporary(path)?, temporary(path));
        Ok(Self { path, partial, file, is_done: false })
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.partial, self.path)?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            // Best effort: the next writer removes what stays.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// Replaces `path` by a file with these bytes, in one step.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = Replacement::begin(path)?;
    new.file.write_all(bytes)?;
    new.finish()
}

/// Takes a lock of the folder for a writer.
pub(crate) fn lock(dir: &Path, lock: &Lock) -> Result<File, LockError> {
    let failed = |error| LockError::IoError(Arc::new(error));
    let file = open_lock(&dir.join(&lock.filepath)).map_err(failed)?;
    if lock.is_blocking {
        file.lock().map_err(failed)?;
    } else {
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => LockError::LockBusy,
            TryLockError::Error(error) => failed(error),
        })?;
    }
    Ok(file)
}

fn open_lock(path: &Path) -> io::Result<File> {
    open_own(path, File::options().read(true).write(true).create(true).truncate(false))
}

/// Takes the lock under which no writer removes a file; readers share it. Returns `None` if the folder
/// cannot be written and has no lock: no writer was at work there, at least not through this mount.
pub(crate) fn lock_for_reading(dir: &Path) -> Result<Option<File>, RetrievalError> {
    let path = dir.join(&META_LOCK.filepath);
    let locked = match open_existing(&path) {
        Ok(Some(file)) => Ok(file),
        Ok(None) => open_lock(&path),
        Err(error) => Err(error),
    };
    match locked.and_then(|file| file.lock_shared().map(|()| file)) {
        Ok(file) => Ok(Some(file)),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::StorageFull
                    | ErrorKind::Unsupported
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(RetrievalError::io(&path, error)),
    }
}
