//! The lock of a store's one writer. In: a store's folder. Out: the lock, or who holds it.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;

use crate::error::StoreError;
use crate::format::paths::StorePaths;
use crate::local::open::open_or_create;
use crate::read_error::ReadError;

/// Takes the operating system's lock on the lock file, which ends with the process. The text in the file is
/// for messages only.
pub(crate) fn lock(paths: &StorePaths) -> Result<File, StoreError> {
    let path = paths.lock();
    let opened = open_or_create(&path, File::options().read(true).write(true));
    let mut file = opened.map_err(|fault| match fault {
        ReadError::Io(error) => StoreError::io(&path, "cannot be made")(error),
        other => StoreError::Foreign { path: path.clone(), what: format!("{other}: remove it") },
    })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Best effort: without it the message says less.
            let _ = (&mut file).take(200).read_to_string(&mut holder);
            return Err(StoreError::Locked {
                path: paths.root.clone(),
                holder: holder.trim().to_owned(),
            });
        }
        Err(TryLockError::Error(error)) => {
            return Err(StoreError::io(&path, "cannot be locked")(error));
        }
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let holder = format!("process {} on {}\n", std::process::id(), host.trim());
    let noted = file.metadata().and_then(|found| match found.nlink() {
        1 => file.set_len(0).and_then(|()| file.write_all(holder.as_bytes())),
        // Under its other name it may be any file.
        _ => Ok(()),
    });
    noted.map_err(StoreError::io(&path, "cannot be written"))?;
    Ok(file)
}
