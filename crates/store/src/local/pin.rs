//! Keeps the files of a snapshot in place while a reader uses them.
//!
//! A reader holds a shared lock on the manifest that it read. A writer that replaces the manifest keeps its
//! inode under another name, and removes the files that only it names when nobody holds the lock any more.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hyperrag_core::ShardId;

use crate::error::StoreError;
use crate::format::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::local::open::{open_plain, read_bounded};
use crate::local::paths::{Files, RETIRED, sync_folder};
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

/// Replaces the manifest by `manifest` and removes the files that nobody needs any more. Returns the bytes
/// freed.
pub(crate) fn replace_manifest(files: &Files, manifest: &Manifest) -> Result<u64, StoreError> {
    keep_old_manifest(files);
    manifest.publish(files)?;
    collect(files, manifest)
}

/// Gives the manifest that will be replaced another name. Without hard links, a reader of it may find a file
/// missing later, and says so.
pub(crate) fn keep_old_manifest(files: &Files) {
    let path = files.manifest();
    let inode = |path: &Path| fs::symlink_metadata(path).map(|found| found.ino()).ok();
    if let Some(former) = inode(&path) {
        let retired = files.retired(former);
        if inode(&retired) != Some(former) {
            let _ = fs::remove_file(&retired);
            let _ = fs::hard_link(&path, &retired);
        }
    }
}

/// Removes shards, chunk files and indexes that are named neither by `manifest`, the store's own, nor by any
/// that a reader holds. Returns the bytes freed.
pub(crate) fn collect(files: &Files, manifest: &Manifest) -> Result<u64, StoreError> {
    let mut kept = Named::default();
    kept.add(manifest);
    let mut removed = false;
    for path in entries(&files.root)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(RETIRED) {
            continue;
        }
        let file = match open_plain(&path) {
            Ok(file) => file,
            Err(ReadError::Io(error)) => {
                return Err(StoreError::io(&path, "cannot be read")(error));
            }
            // No reader holds such a file.
            Err(_) => continue,
        };
        match file.try_lock() {
            Ok(()) => {
                remove(&path)?;
                removed = true;
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {
                let read = read_bounded(&file, MANIFEST_BYTES_MAX).ok();
                match read.and_then(|bytes| Manifest::parse(&bytes).ok()) {
                    Some(held) if held.complete => kept.add(&held),
                    // Its files were named in a journal that is gone.
                    _ => return Ok(0),
                }
            }
        }
    }
    let mut freed = 0;
    for folder in [files.shards(), files.chunks()] {
        for path in entries(&folder)? {
            if number(&path).is_some_and(|shard| !kept.shards.contains(&shard)) {
                freed += fs::symlink_metadata(&path).map_or(0, |metadata| metadata.len());
                remove(&path)?;
            }
        }
    }
    for path in entries(&files.root)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if (name == "index" || name.starts_with("index-")) && !kept.indexes.contains(&name) {
            for file in entries(&path)? {
                freed += fs::metadata(file).map_or(0, |metadata| metadata.len());
            }
            fs::remove_dir_all(&path).map_err(StoreError::io(&path, "cannot be removed"))?;
            removed = true;
        }
    }
    if removed {
        sync_folder(&files.root)?;
    }
    Ok(freed)
}

/// Shards and indexes that manifests name.
#[derive(Default)]
struct Named {
    shards: BTreeSet<ShardId>,
    indexes: BTreeSet<String>,
}

impl Named {
    fn add(&mut self, manifest: &Manifest) {
        self.shards.extend(manifest.shards.iter().map(|record| record.shard));
        self.indexes.insert(manifest.index_folder());
    }
}

/// Returns the number of a shard or chunk file, finished or not; `None` for other names.
fn number(path: &Path) -> Option<ShardId> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    let digits = name.strip_suffix(".kv").or_else(|| name.strip_suffix(".parquet"))?;
    digits.parse().ok().map(ShardId)
}

/// Lists the paths in a folder; none if it is absent.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let listed = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(StoreError::io(folder, "the folder cannot be read")),
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    fs::remove_file(path).map_err(StoreError::io(path, "cannot be removed"))
}
