//! Copies a commit of an index to another folder, file by file, so that a reader of the copy finds
//! either the former commit or this one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::checked::CheckedFile;
use crate::error::RetrievalError;
use crate::files::{Replacement, open_existing, replace};
use crate::index::Index;
use crate::kept::{kept_in, segment_of};
use crate::names::{MANAGED_FILE, META_FILE};
use crate::open::{OpenCommit, open_commit};
use crate::pages::encode;
use crate::snapshot::{Check, Snapshot};

/// Brings the folder `to` to the last commit of the index in `from`. Returns the number of bytes
/// copied. Both folders are checked byte for byte.
///
/// # Errors
/// [`RetrievalError`] of either folder.
pub fn copy_index(from: &Path, to: &Path) -> Result<u64, RetrievalError> {
    // Later changes by a writer are not seen: exactly one commit is copied.
    let OpenCommit { snapshot, .. } = open_commit(from, Check::Opening)?;
    let copied = copy(&snapshot, to)?;
    Index::open_verified(to)?;
    Ok(copied)
}

fn copy(snapshot: &Snapshot, to: &Path) -> Result<u64, RetrievalError> {
    fs::create_dir_all(to).map_err(|error| RetrievalError::io(to, error))?;
    let mut names = BTreeSet::new();
    let mut copied = 0;
    for (name, file) in snapshot.files() {
        copied += copy_file(file, &to.join(name))?;
        names.insert(name.clone());
    }
    let pages = kept(snapshot);
    // These come last, because they name the others.
    let lists = [MANAGED_FILE, META_FILE].into_iter();
    let lists = lists.filter_map(|name| Some((name.into(), snapshot.list(name)?.to_vec())));
    for (name, bytes) in pages.into_iter().chain(lists) {
        let path = to.join(&name);
        copied += put(&bytes, &path).map_err(|error| RetrievalError::io(&path, error))?;
        names.insert(name);
    }
    remove_others(to, &names).map_err(|error| RetrievalError::io(to, error))?;
    Ok(copied)
}

/// Returns the pages of each segment, whether the copied index keeps them or not.
fn kept(snapshot: &Snapshot) -> Vec<(PathBuf, Vec<u8>)> {
    let segments: BTreeSet<&str> = snapshot.files().keys().map(|name| segment_of(name)).collect();
    let of = |segment| {
        let files = snapshot.files().iter().filter(|(name, _)| segment_of(name) == segment);
        encode(files.map(|(name, file)| (name.as_path(), file.pages())))
    };
    segments.into_iter().map(|segment| (kept_in(segment), of(segment))).collect()
}

/// Copies a file unless it is there already. Returns the number of bytes copied.
fn copy_file(from: &CheckedFile, to: &Path) -> Result<u64, RetrievalError> {
    let failed = |error| RetrievalError::io(to, error);
    if is_copied(from, to)? {
        return Ok(0);
    }
    let mut new = Replacement::begin(to).map_err(failed)?;
    for part in from.parts() {
        new.file.write_all(&part?).map_err(failed)?;
    }
    new.finish().map_err(failed)?;
    Ok(from.pages().bytes() as u64)
}

/// Whether a file has the bytes of another.
fn is_copied(from: &CheckedFile, to: &Path) -> Result<bool, RetrievalError> {
    let Ok(Some(mut there)) = open_existing(to) else { return Ok(false) };
    let mut buffer = Vec::new();
    for part in from.parts() {
        let part = part?;
        buffer.resize(part.len(), 0);
        if there.read_exact(&mut buffer).is_err() || buffer != part.as_slice() {
            return Ok(false);
        }
    }
    Ok(there.read(&mut [0]).is_ok_and(|more| more == 0))
}

/// Writes a file unless it is there already. Returns the number of bytes written.
fn put(bytes: &[u8], to: &Path) -> io::Result<u64> {
    let there = open_existing(to).ok().flatten();
    let same = there.is_some_and(|file| {
        let mut found = Vec::new();
        file.take(bytes.len() as u64 + 1).read_to_end(&mut found).is_ok() && found == bytes
    });
    if same {
        return Ok(0);
    }
    replace(to, bytes)?;
    Ok(bytes.len() as u64)
}

/// Removes files that this commit does not have, and syncs the folder.
fn remove_others(folder: &Path, names: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        let lock = name.extension().is_some_and(|extension| extension == "lock");
        if !lock && !names.contains(&name) && !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
        }
    }
    File::open(folder)?.sync_all()
}
