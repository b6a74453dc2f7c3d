//! Removes the files of a store that nobody needs any more.
//!
//! A writer that replaces the manifest keeps its inode under another name, on which readers hold a lock (see
//! `pin.rs`). It removes the files that only this manifest names when nobody holds the lock any more.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hyperrag_core::{Digest, ShardId};

use crate::error::StoreError;
use crate::format::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::format::paths::{
    StorePaths, chunk_file_number, finished_name, is_index, is_old_manifest, shard_number,
    table_number,
};
use crate::local::durable::sync_folder;
use crate::local::generation::publish_manifest;
use crate::local::open::{open_plain, read_bounded};
use crate::local::shard_reader::table_digest;
use crate::read_error::ReadError;

/// Replaces the manifest by `manifest` and removes the files that nobody needs any more. Returns the bytes
/// freed.
pub(crate) fn replace_manifest(paths: &StorePaths, manifest: &Manifest) -> Result<u64, StoreError> {
    keep_old_manifest(paths);
    publish_manifest(paths, manifest)?;
    garbage_collect(paths, manifest)
}

/// Gives the manifest that will be replaced another name. Without hard links, a reader of it may find a file
/// missing later, and says so.
pub(crate) fn keep_old_manifest(paths: &StorePaths) {
    let path = paths.manifest();
    let inode = |path: &Path| fs::symlink_metadata(path).map(|found| found.ino()).ok();
    if let Some(previous) = inode(&path) {
        let old_manifest = paths.old_manifest(previous);
        if inode(&old_manifest) != Some(previous) {
            let _ = fs::remove_file(&old_manifest);
            let _ = fs::hard_link(&path, &old_manifest);
        }
    }
}

/// Removes shards, chunk files, block tables and indexes that are named neither by `manifest`, the store's own, nor by any
/// that a reader holds. Returns the bytes freed.
pub(crate) fn garbage_collect(paths: &StorePaths, manifest: &Manifest) -> Result<u64, StoreError> {
    let mut kept = Named::default();
    kept.add(manifest);
    let mut removed = false;
    for path in entries(&paths.root)? {
        if !is_old_manifest(&name_of(&path)) {
            continue;
        }
        match old_manifest(&path)? {
            OldManifest::Unheld(_lock) => {
                remove(&path)?;
                removed = true;
            }
            OldManifest::Held(Some(held)) if held.complete => kept.add(&held),
            // Its files were named in a journal that is gone.
            OldManifest::Held(_) => return Ok(0),
            OldManifest::NoFile => {}
        }
    }
    let shards = remove_shards(paths, &kept)? + remove_tables(paths, &kept)?;
    let indexes = remove_indexes(paths, &kept)?;
    if removed || indexes.is_some() {
        sync_folder(&paths.root)?;
    }
    Ok(shards + indexes.unwrap_or(0))
}

/// A manifest that was replaced.
enum OldManifest {
    /// No reader holds it, and none can while it is locked here.
    Unheld(File),
    /// A reader holds it; `None` if it cannot be read.
    Held(Option<Box<Manifest>>),
    /// No file, so no reader holds it.
    NoFile,
}

/// Locks a manifest that was replaced, or reads the one that a reader holds.
fn old_manifest(path: &Path) -> Result<OldManifest, StoreError> {
    let file = match open_plain(path) {
        Ok(file) => file,
        Err(ReadError::Io(error)) => return Err(StoreError::io(path, "cannot be read")(error)),
        Err(_) => return Ok(OldManifest::NoFile),
    };
    Ok(match file.try_lock() {
        Ok(()) => OldManifest::Unheld(file),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {
            let read = read_bounded(&file, MANIFEST_BYTES_MAX).ok();
            OldManifest::Held(read.and_then(|bytes| Manifest::parse(&bytes).ok()).map(Box::new))
        }
    })
}

/// Removes the shards and chunk files that are not kept, finished or not. Returns the bytes freed.
fn remove_shards(paths: &StorePaths, kept: &Named) -> Result<u64, StoreError> {
    let mut freed = 0;
    for folder in [paths.shards(), paths.chunks()] {
        for path in entries(&folder)? {
            let name = name_of(&path);
            let name = finished_name(&name);
            let shard = shard_number(name).or_else(|| chunk_file_number(name));
            if shard.is_some_and(|shard| !kept.shards.contains(&shard)) {
                freed += fs::symlink_metadata(&path).map_or(0, |metadata| metadata.len());
                remove(&path)?;
            }
        }
    }
    Ok(freed)
}

/// Removes the block tables that are kept by themselves and are not those of kept shards, finished or not.
/// Returns the bytes freed.
fn remove_tables(paths: &StorePaths, kept: &Named) -> Result<u64, StoreError> {
    let mut freed = 0;
    for path in entries(&paths.tables())? {
        let name = name_of(&path);
        let fits = table_digest(&path).is_some_and(|digest| kept.tables.contains(&digest));
        if table_number(finished_name(&name)).is_some() && (finished_name(&name) != name || !fits) {
            freed += fs::symlink_metadata(&path).map_or(0, |metadata| metadata.len());
            remove(&path)?;
        }
    }
    Ok(freed)
}

/// Removes the indexes that are not kept. Returns the bytes freed; `None` if there were none.
fn remove_indexes(paths: &StorePaths, kept: &Named) -> Result<Option<u64>, StoreError> {
    let mut freed = None;
    for path in entries(&paths.root)? {
        let name = name_of(&path);
        if is_index(&name) && !kept.indexes.contains(&name) {
            let bytes = freed.get_or_insert(0);
            for file in entries(&path)? {
                *bytes += fs::metadata(file).map_or(0, |metadata| metadata.len());
            }
            fs::remove_dir_all(&path).map_err(StoreError::io(&path, "cannot be removed"))?;
        }
    }
    Ok(freed)
}

/// Shards and indexes that manifests name.
#[derive(Default)]
struct Named {
    shards: BTreeSet<ShardId>,
    /// Digests of headers and tables.
    tables: HashSet<Digest>,
    indexes: BTreeSet<String>,
}

impl Named {
    fn add(&mut self, manifest: &Manifest) {
        self.shards.extend(manifest.shards.iter().map(|record| record.shard));
        self.tables.extend(manifest.shards.iter().map(|record| record.kv.digest));
        self.indexes.insert(manifest.index_folder());
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
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
