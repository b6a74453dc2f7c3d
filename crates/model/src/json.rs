//! Reading JSON files of a model.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::LoadError;

/// Bytes of a file beside the weights at most: tokenizers are the largest, at some 35 MB.
const BYTES_MAX: u64 = 256 << 20;

/// The bytes of a file; `None` where there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, LoadError> {
    if !path.exists() {
        return Ok(None);
    }
    let file = File::open(path).map_err(LoadError::io(path, "cannot be opened"))?;
    let mut bytes = Vec::new();
    let read = file.take(BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(LoadError::io(path, "cannot be read"))?;
    match bytes.len() as u64 > BYTES_MAX {
        true => Err(wrong(path)(format!("it is larger than {BYTES_MAX} bytes"))),
        false => Ok(Some(bytes)),
    }
}

pub(crate) fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, LoadError> {
    serde_json::from_slice(text).map_err(wrong(path))
}

/// What is wrong with a file.
pub(crate) fn wrong<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> LoadError {
    let path = path.to_owned();
    move |what| LoadError::Json { path: path.clone(), what: what.to_string() }
}
