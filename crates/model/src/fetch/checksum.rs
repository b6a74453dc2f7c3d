//! SHA-256 of what was fetched. It does not know what the bytes are.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::error::LoadError;

/// Returns the SHA-256 of the rest of a file.
pub(super) fn sha256_of(file: &mut File, path: &Path) -> Result<String, LoadError> {
    let mut hasher = Sha256::new();
    hash_into(file, &mut io::sink(), &mut hasher, path)?;
    Ok(hexadecimal(hasher))
}

/// Copies all bytes and hashes them.
pub(super) fn hash_into(
    from: &mut impl Read,
    to: &mut impl Write,
    hasher: &mut Sha256,
    path: &Path,
) -> Result<(), LoadError> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = from.read(&mut buffer).map_err(LoadError::io(path, "cannot be read"))?;
        if count == 0 {
            return Ok(());
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count]).map_err(LoadError::io(path, "cannot be written"))?;
    }
}

/// Ends a digest and spells it.
pub(super) fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks the digest of the file at `path`.
pub(super) fn check_sha256(path: &Path, expected: &str, actual: String) -> Result<(), LoadError> {
    if actual == expected {
        return Ok(());
    }
    let (path, expected) = (path.to_owned(), expected.to_owned());
    Err(LoadError::Checksum { path, expected, actual })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_copied_and_hashed() {
        // FIPS 180-2, appendix B.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let path = Path::new("abc");
        let (mut copy, mut hasher) = (Vec::new(), Sha256::new());
        for part in [&b"a"[..], b"bc"] {
            hash_into(&mut &part[..], &mut copy, &mut hasher, path).unwrap();
        }
        let hash = hexadecimal(hasher);
        assert_eq!((hash.as_str(), &copy[..]), (abc, &b"abc"[..]));
        assert!(check_sha256(path, abc, hash.clone()).is_ok());
        match check_sha256(path, &abc.replace('b', "c"), hash) {
            Err(LoadError::Checksum { expected, actual, .. }) => {
                assert_ne!(expected, abc);
                assert_eq!(actual, abc);
            }
            other => panic!("{other:?}"),
        }
    }
}
