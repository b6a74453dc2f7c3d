//! The file `generation`, a second place of a store's generation. It announces a manifest before that is put
//! in place.
//!
//! In: the manifest to come. Out: the announcement, for a reader that finds the manifest damaged or lost. It
//! knows nothing of replicas.

use std::path::Path;

use hyperrag_core::Digest;

use crate::error::StoreError;
use crate::local::open::read_plain;
use crate::local::paths::{Files, write_whole};
use crate::maintain::verify::Damage;
use crate::read_error::ReadError;

/// Length of the longest line, in bytes: a checksum, two numbers of 20 digits, a digest.
const BYTES_MAX: u64 = 8 + 1 + 20 + 1 + 20 + 1 + 64 + 1;

/// A manifest that is, or is about to be, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Generation of the manifest before it. No older one is in place from now on.
    pub(crate) former: u64,
    /// Generation of the announced manifest.
    pub(crate) generation: u64,
    /// Checksum of the announced manifest.
    pub(crate) checksum: Digest,
}

impl Announced {
    fn line(&self) -> String {
        let Self { former, generation, checksum } = self;
        let text = format!("{former} {generation} {checksum}");
        format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes()))
    }

    /// Reads a line. It has only one spelling: the values are written again and compared.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(bytes).ok()?;
        let mut words = line.trim_end().split(' ').skip(1);
        let mut number = || words.next()?.parse().ok();
        let (former, generation) = (number()?, number()?);
        let checksum = Digest(*blake3::Hash::from_hex(words.next()?).ok()?.as_bytes());
        let announced = Self { former, generation, checksum };
        (announced.line() == line).then_some(announced)
    }

    /// Reads the store's file; `None` if a version without it wrote the store.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the file is not what was written.
    pub(crate) fn read(files: &Files) -> Result<Option<Self>, StoreError> {
        let path = files.generation();
        let bytes = match read_plain(&path, BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(ReadError::Missing) => return Ok(None),
            Err(fault) => return Err(fault.of_file(&path)),
        };
        let damaged = || StoreError::damaged(&path, "it is not a generation as it was written");
        Self::parse(&bytes).map(Some).ok_or_else(damaged)
    }

    /// Reads the store's file. If it is damaged, returns the damage instead.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system refuses it.
    pub(crate) fn read_if_whole(
        files: &Files,
    ) -> Result<(Option<Self>, Option<Damage>), StoreError> {
        match Self::read(files) {
            Ok(announced) => Ok((announced, None)),
            Err(error) if error.is_refusal() => Err(error),
            Err(error) => Ok((None, Some(Damage::from_error(&files.root, &error)))),
        }
    }

    /// Writes the file, unless it announces this very manifest already.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    pub(crate) fn write(&self, files: &Files) -> Result<(), StoreError> {
        let announces =
            |there: &Self| (there.generation, there.checksum) == (self.generation, self.checksum);
        if matches!(Self::read(files), Ok(Some(there)) if announces(&there)) {
            return Ok(());
        }
        write_whole(&files.generation(), self.line().as_bytes())
    }
}

/// Checks the file of the store at `root`.
///
/// # Errors
/// [`StoreError::Io`] if the system refuses it.
pub fn generation_damage(root: &Path) -> Result<Option<Damage>, StoreError> {
    Ok(Announced::read_if_whole(&Files { root: root.to_owned() })?.1)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn no_byte_may_change() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files { root: folder.path().to_owned() };
        assert_eq!(Announced::read(&files).unwrap(), None);
        let largest =
            Announced { former: u64::MAX, generation: u64::MAX, checksum: Digest([7; 32]) };
        for announced in [Announced { former: 11, generation: 12, ..largest }, largest] {
            announced.write(&files).unwrap();
            assert_eq!(Announced::read(&files).unwrap(), Some(announced));
        }
        let whole = fs::read(files.generation()).unwrap();
        assert_eq!(whole.len() as u64, BYTES_MAX);
        let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
        damaged.push([&whole[..], b"\n"].concat());
        damaged.extend((0..8 * whole.len()).map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        }));
        for bytes in damaged {
            fs::write(files.generation(), &bytes).unwrap();
            let found = Announced::read(&files);
            assert!(matches!(found, Err(StoreError::Damaged { .. })), "{bytes:?}: {found:?}");
        }
    }
}
