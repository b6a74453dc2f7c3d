//! Copies an index to another folder, file by file, so that a reader of the copy finds the former
//! commit or this one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::open::{META_FILE, directory, guarded, lock_for_reading, open_checked};
use crate::{Index, RetrievalError};

/// Lists the files that tantivy may remove.
const MANAGED_FILE: &str = ".managed.json";

/// Brings the folder `to` to the last commit of the index in `from`, and gives the bytes copied.
/// Both are checked byte for byte.
///
/// # Errors
/// [`RetrievalError`] of either folder.
pub fn copy_index(from: &Path, to: &Path) -> Result<u64, RetrievalError> {
    let copied = guarded(from, || copy(from, to))?;
    Index::open(to)?;
    Ok(copied)
}

fn copy(from: &Path, to: &Path) -> Result<u64, RetrievalError> {
    let source = directory(from)?;
    let checked = open_checked(from, &source)?;
    // Under it no writer removes a file; one that has just committed is looked at again.
    let _lock = lock_for_reading(from, &source)?;
    let metas = checked.index.load_metas();
    let metas = metas.map_err(|error| RetrievalError::from_tantivy(from, error))?;
    let present = |path: &PathBuf| from.join(path).exists();
    let segments = metas.list_segment_files().into_iter().filter(present);
    let mut names: Vec<PathBuf> = segments.collect::<BTreeSet<_>>().into_iter().collect();
    // These last: they name the others.
    names.extend([MANAGED_FILE, META_FILE].map(PathBuf::from).into_iter().filter(present));
    fs::create_dir_all(to).map_err(|error| RetrievalError::io(to, error))?;
    let mut copied = 0;
    for name in &names {
        let (source, target) = (from.join(name), to.join(name));
        let one = copy_file(&source, &target);
        copied += one.map_err(|error| RetrievalError::io(&target, error))?;
    }
    remove_others(to, &names).map_err(|error| RetrievalError::io(to, error))?;
    Ok(copied)
}

/// Copies a file unless it is there already.
fn copy_file(from: &Path, to: &Path) -> io::Result<u64> {
    let bytes = fs::read(from)?;
    if fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(0);
    }
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let partial = to.with_file_name(name);
    let written = fs::write(&partial, &bytes)
        .and_then(|()| File::open(&partial)?.sync_all())
        .and_then(|()| fs::rename(&partial, to));
    written.inspect_err(|_| {
        // Best effort: the next copy writes over what stays.
        let _ = fs::remove_file(&partial);
    })?;
    Ok(bytes.len() as u64)
}

/// Removes what this commit does not have, and syncs the folder.
fn remove_others(folder: &Path, names: &[PathBuf]) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        let lock = name.extension().is_some_and(|extension| extension == "lock");
        if !lock && !names.contains(&name) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    File::open(folder)?.sync_all()
}
