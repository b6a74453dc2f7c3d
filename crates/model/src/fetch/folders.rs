//! Folders that the environment names, and locks in them.
//!
//! In: names of variables, and paths. Out: paths, and files that hold a lock. It does not know models.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::LoadError;

/// Returns the folder that an environment variable names, if it is set and not empty.
pub(crate) fn folder_of(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Returns `$XDG_CACHE_HOME`, else `~/.cache`.
pub(crate) fn user_cache() -> Result<PathBuf, LoadError> {
    let home = || Some(folder_of("HOME")?.join(".cache"));
    folder_of("XDG_CACHE_HOME").or_else(home).ok_or(LoadError::NoHome)
}

/// Makes a folder and those above it.
pub(super) fn make_folder(path: &Path) -> Result<(), LoadError> {
    fs::create_dir_all(path).map_err(LoadError::io(path, "the folder cannot be made"))
}

/// Creates the file `path` and locks it until the result is dropped. Waits while another process holds
/// it.
pub(crate) fn lock(path: &Path) -> Result<File, LoadError> {
    let file = File::options().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(LoadError::io(path, "cannot be made"))?;
    file.lock().map_err(LoadError::io(path, "cannot be locked"))?;
    Ok(file)
}
