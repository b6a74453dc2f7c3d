//! The file `generation`, a second place of a store's generation. It announces a manifest before that is put
//! in place.
//!
//! In: the manifest to come. Out: the announcement, for a reader that finds the manifest damaged or lost. It
//! knows nothing of replicas.

use crate::damage::Damage;
use crate::error::StoreError;
use crate::format::announcement::{ANNOUNCEMENT_BYTES_MAX, Announced};
use crate::format::manifest::Manifest;
use crate::format::paths::StorePaths;
use crate::local::durable::write_whole;
use crate::local::open::read_plain;
use crate::read_error::ReadError;

/// Reads the store's file; `None` if a version without it wrote the store.
///
/// # Errors
/// [`StoreError::Damaged`] if the file is not what was written.
pub(crate) fn read(paths: &StorePaths) -> Result<Option<Announced>, StoreError> {
    let path = paths.generation();
    let bytes = match read_plain(&path, ANNOUNCEMENT_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(ReadError::Missing) => return Ok(None),
        Err(fault) => return Err(fault.of_file(&path)),
    };
    let damaged = || StoreError::damaged(&path, "it is not a generation as it was written");
    Announced::parse(&bytes).map(Some).ok_or_else(damaged)
}

/// Reads the store's file. If it is damaged, returns the damage instead.
///
/// # Errors
/// [`StoreError::Io`] if the system refuses it.
pub(crate) fn read_if_whole(
    paths: &StorePaths,
) -> Result<(Option<Announced>, Option<Damage>), StoreError> {
    match read(paths) {
        Ok(announced) => Ok((announced, None)),
        Err(error) if error.is_refusal() => Err(error),
        Err(error) => Ok((None, Some(Damage::from_error(&paths.root, &error)))),
    }
}

/// Writes the file, unless the file announces this very manifest already.
///
/// # Errors
/// [`StoreError`] if it cannot be written.
pub(crate) fn write(paths: &StorePaths, announced: &Announced) -> Result<(), StoreError> {
    let announces = |there: &Announced| {
        (there.generation, there.checksum) == (announced.generation, announced.checksum)
    };
    if matches!(read(paths), Ok(Some(there)) if announces(&there)) {
        return Ok(());
    }
    write_whole(&paths.generation(), announced.line().as_bytes())
}

/// Publishes `manifest` as the next snapshot, with an empty journal.
pub(crate) fn publish_manifest(paths: &StorePaths, manifest: &Manifest) -> Result<(), StoreError> {
    let (generation, checksum) = (manifest.generation, manifest.checksum());
    let previous = generation.saturating_sub(1).max(1);
    write(paths, &Announced { previous, generation, checksum })?;
    write_whole(&paths.manifest(), &manifest.to_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use hyperrag_core::Digest;

    use super::*;

    #[test]
    fn no_byte_may_change() {
        let folder = tempfile::tempdir().unwrap();
        let paths = StorePaths::new(folder.path());
        assert_eq!(read(&paths).unwrap(), None);
        let largest =
            Announced { previous: u64::MAX, generation: u64::MAX, checksum: Digest([7; 32]) };
        for announced in [Announced { previous: 11, generation: 12, ..largest }, largest] {
            write(&paths, &announced).unwrap();
            assert_eq!(read(&paths).unwrap(), Some(announced));
        }
        let whole = fs::read(paths.generation()).unwrap();
        assert_eq!(whole.len() as u64, ANNOUNCEMENT_BYTES_MAX);
        let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
        damaged.push([&whole[..], b"\n"].concat());
        damaged.extend((0..8 * whole.len()).map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        }));
        for bytes in damaged {
            fs::write(paths.generation(), &bytes).unwrap();
            let found = read(&paths);
            assert!(matches!(found, Err(StoreError::Damaged { .. })), "{bytes:?}: {found:?}");
        }
    }
}
