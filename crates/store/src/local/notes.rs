//! Reads and writes the file with the notes of a store. In: a folder. Out: the notes. It knows no model.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use hyperrag_core::Mismatch;

use crate::error::StoreError;
use crate::format::notes::{BYTES_MAX, StoreNotes, encode, parse};
use crate::format::paths::StorePaths;
use crate::local::durable::{sync_folder, write_whole};
use crate::local::open::read_plain;
use crate::read_error::ReadError;

/// Reads the notes of the store at `root`; `None` if there are none, as older versions wrote none.
///
/// # Errors
/// [`StoreError::Damaged`] if they are not what was written.
pub fn notes(root: &Path) -> Result<Option<StoreNotes>, StoreError> {
    let path = StorePaths::new(root).notes();
    match read_plain(&path, BYTES_MAX) {
        Ok(bytes) => parse(&bytes).map(Some).map_err(|what| StoreError::damaged(&path, what)),
        Err(ReadError::Missing) => Ok(None),
        Err(fault) => Err(fault.of_file(&path)),
    }
}

/// Writes the notes of the store at `root`, unless it has these already. Damaged ones are replaced. The caller
/// holds the store's lock.
pub(crate) fn write(root: &Path, now: &StoreNotes) -> Result<(), StoreError> {
    match notes(root) {
        Ok(Some(there)) if there == *now => Ok(()),
        Err(error) if error.is_refusal() => Err(error),
        _ => write_whole(&StorePaths::new(root).notes(), &encode(now)),
    }
}

/// Removes the notes of the store at `root`, which are damaged.
pub(crate) fn remove(root: &Path) -> Result<(), StoreError> {
    let path = StorePaths::new(root).notes();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StoreError::io(&path, "cannot be removed")(error))
        }
        _ => sync_folder(root),
    }
}

impl StoreError {
    /// Makes the error of a store that was made with something else, which its notes may name.
    #[must_use]
    pub fn mismatch(root: &Path, mismatch: Mismatch) -> Self {
        let noted = notes(root).ok().flatten().and_then(|notes| notes.model);
        Self::Mismatch { path: root.to_owned(), mismatch: Box::new(mismatch), noted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_may_change() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(notes(root).unwrap(), None);
        let model = Some("/models/tiny.gguf".to_owned());
        let now = StoreNotes { model, ..StoreNotes::default() };
        write(root, &now).unwrap();
        assert_eq!(notes(root).unwrap(), Some(now.clone()));
        let path = StorePaths::new(root).notes();
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() - 1 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 5);
            fs::write(&path, &changed).unwrap();
            let found = notes(root);
            assert!(matches!(found, Err(StoreError::Damaged { .. })), "byte {at}: {found:?}");
        }
        write(root, &now).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        remove(root).unwrap();
        remove(root).unwrap();
        assert_eq!(notes(root).unwrap(), None);
    }
}
