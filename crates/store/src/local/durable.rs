//! Gives files and folders their names durably. In: paths and bytes. Out: what survives a loss of power. It
//! knows nothing of what files hold.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use hyperrag_files::temporary;

use crate::error::StoreError;
use crate::local::open::create_temporary;

/// Makes a folder if there is none. Its name survives a loss of power.
pub(crate) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| *parent != Path::new("")) {
        make_folder(parent)?;
    }
    let made = fs::create_dir_all(folder);
    made.map_err(StoreError::io(folder, "the folder cannot be made"))?;
    sync_parent(folder)
}

/// Makes a folder in a store like [`make_folder`]. Refuses one that is a link.
pub(crate) fn make_own_folder(folder: &Path) -> Result<(), StoreError> {
    check_own_folder(folder)?;
    make_folder(folder)
}

/// Refuses a folder of a store that is a link. Writers remove files from it, which may belong to another
/// store.
pub(crate) fn check_own_folder(folder: &Path) -> Result<(), StoreError> {
    let what = "it is a symbolic link, and what is written and removed there may be another's: move \
                the folder here, or make the whole store the link";
    match fs::symlink_metadata(folder).is_ok_and(|found| found.is_symlink()) {
        true => Err(StoreError::Foreign { path: folder.to_owned(), what: what.to_owned() }),
        false => Ok(()),
    }
}

/// Makes the name of a file or folder durable.
pub(crate) fn sync_parent(folder: &Path) -> Result<(), StoreError> {
    let parent = folder.parent().filter(|parent| *parent != Path::new(""));
    match File::open(parent.unwrap_or(Path::new("."))).and_then(|parent| parent.sync_all()) {
        // Others made it, in a folder that this user may only pass through.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        synced => synced.map_err(StoreError::io(folder, "its name cannot be synced")),
    }
}

pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(StoreError::io(folder, "the folder cannot be synced"))
}

/// Gives a finished and synced temporary file its name, durably.
pub(crate) fn publish(path: &Path) -> Result<(), StoreError> {
    fs::rename(temporary(path), path).map_err(StoreError::io(path, "cannot be put in place"))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Writes a whole file under a temporary name and renames it, so that a reader sees the old or the new one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = create_temporary(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let published =
        written.map_err(StoreError::io(path, "cannot be written")).and_then(|()| publish(path));
    published.inspect_err(|_| {
        // Best effort: the next writer of this file makes it anew.
        let _ = fs::remove_file(temporary(path));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_put_in_place_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::create_dir(&path).unwrap();
        assert!(write_whole(&path, b"bytes").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
