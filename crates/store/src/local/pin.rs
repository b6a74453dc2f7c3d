//! Keeps the files of a snapshot in place while a reader uses them: a reader holds a shared lock on the
//! manifest that it read. In: a path. Out: the lock and the bytes. `garbage.rs` has the writer's side.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::format::manifest::MANIFEST_BYTES_MAX;
use crate::local::open::{open_plain, read_bounded};
use crate::read_error::ReadError;

/// A manifest held by a shared lock.
#[derive(Debug)]
pub(crate) struct Pin {
    _file: File,
}

impl Pin {
    /// Locks the manifest at `path` and returns its bytes.
    pub(crate) fn read(path: &Path) -> Result<(Self, Vec<u8>), ReadError> {
        loop {
            let file = open_plain(path)?;
            // Without locks in the file system, nothing can be held.
            let _ = file.lock_shared();
            // If it was replaced before it was locked, a writer may take it for one that nobody holds.
            let (held, now) = (file.metadata()?, fs::symlink_metadata(path)?);
            if (held.dev(), held.ino()) == (now.dev(), now.ino()) {
                let bytes = read_bounded(&file, MANIFEST_BYTES_MAX)?;
                return Ok((Self { _file: file }, bytes));
            }
        }
    }
}
