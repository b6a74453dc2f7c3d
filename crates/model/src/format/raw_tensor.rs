//! Bytes of model files as they are: where a tensor lies, and digests.
//!
//! In: open files and paths. Out: digests. It does not know what the bytes mean.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hyperrag_core::Digest;

use crate::error::LoadError;

/// Number of rows of a matrix that are converted at a time.
pub(crate) const ROWS_AT_ONCE: usize = 64;

/// Number of bytes of a tensor that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Location of a tensor's bytes in a file.
pub(crate) struct RawTensor<'a> {
    pub(crate) file: &'a File,
    pub(crate) path: &'a Path,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// Name of the element type in GGUF or safetensors.
    pub(crate) kind: &'a str,
}

impl RawTensor<'_> {
    pub(crate) fn digest(&self) -> Result<Digest, LoadError> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BYTES.min(usize::try_from(self.bytes).unwrap_or(READ_BYTES))];
        let (mut offset, end) = (self.offset, self.offset + self.bytes);
        while offset < end {
            let part = (end - offset).min(READ_BYTES as u64) as usize;
            let read = self.file.read_exact_at(&mut buffer[..part], offset);
            read.map_err(LoadError::io(self.path, "the weights cannot be read"))?;
            hasher.update(&buffer[..part]);
            offset += part as u64;
        }
        Ok(Digest(*hasher.finalize().as_bytes()))
    }
}

/// Hashes a whole file.
pub(crate) fn digest_of(path: &Path) -> Result<Digest, LoadError> {
    let mut hasher = blake3::Hasher::new();
    let file = hyperrag_files::open(path)
        .map_err(LoadError::io(path, "the model file cannot be opened"))?;
    let hashed = hasher.update_reader(file);
    hashed.map_err(LoadError::io(path, "the model file cannot be read"))?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}
