//! Opens the files of a store and reads them within size limits. In: paths. Out: files, bytes or faults.
//! Knows nothing of what they hold.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::Path;

use hyperrag_files::temporary;

use crate::error::StoreError;
use crate::read_error::ReadError;

/// Opens a file of the store for reading.
pub(crate) fn open_plain(path: &Path) -> Result<File, ReadError> {
    open(path, File::options().read(true))
}

/// Opens a file like [`open_plain`]. It must have `bytes` bytes.
pub(crate) fn open_sized(path: &Path, bytes: u64) -> Result<File, ReadError> {
    let file = open_plain(path)?;
    let length = file.metadata()?.len();
    if length != bytes {
        return Err(format!("{length} bytes, expected {bytes}").into());
    }
    Ok(file)
}

/// Reads a whole file of the store. It may have at most `max` bytes.
pub(crate) fn read_plain(path: &Path, max: u64) -> Result<Vec<u8>, ReadError> {
    read_bounded(&open_plain(path)?, max)
}

/// Reads a whole open file. It may have at most `max` bytes.
pub(crate) fn read_bounded(file: &File, max: u64) -> Result<Vec<u8>, ReadError> {
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    if length <= max {
        bytes.try_reserve_exact(length as usize).map_err(|_| ErrorKind::OutOfMemory)?;
        // One byte more shows a file that grows meanwhile beyond `max`.
        file.take(max + 1).read_to_end(&mut bytes)?;
    }
    match length.max(bytes.len() as u64) {
        length if length > max => Err(format!("{length} bytes, at most {max} are possible").into()),
        _ => Ok(bytes),
    }
}

/// Opens a file of the store for writing without truncation. Makes it if there is none.
pub(crate) fn open_or_create(path: &Path, options: &mut OpenOptions) -> Result<File, ReadError> {
    open(path, options.create(true).truncate(false))
}

/// Makes a file under the temporary name of `path`.
pub(crate) fn create_temporary(path: &Path) -> Result<File, StoreError> {
    let made = hyperrag_files::create_temporary(path);
    made.map_err(StoreError::io(&temporary(path), "cannot be made"))
}

fn open(path: &Path, options: &mut OpenOptions) -> Result<File, ReadError> {
    hyperrag_files::open_own(path, options).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => format!("{error}; the store's files must be its own").into(),
        _ => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_so_much_of_a_plain_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), b"bytes").unwrap();
        symlink(path("file"), path("link")).unwrap();
        assert_eq!(read_plain(&path("file"), 5).unwrap(), b"bytes");
        let refused = |name: &str, max| read_plain(&path(name), max).unwrap_err().to_string();
        assert_eq!(refused("file", 4), "5 bytes, at most 4 are possible");
        let own = "it is a symbolic link, not a file; the store's files must be its own";
        assert_eq!(refused("link", 5), own);
        assert!(matches!(read_plain(&path("none"), 5), Err(ReadError::Missing)));
    }
}
