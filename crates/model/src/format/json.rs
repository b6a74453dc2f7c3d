//! Reads JSON files of a model, bounded in bytes and values before anything is parsed.

use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::LoadError;

/// Largest size of a file beside the weights, in bytes. Tokenizers are the largest, at some 35 MB.
const BYTES_MAX: u64 = 128 << 20;

/// Largest number of values in a file. A value takes many times its bytes in memory; the tokenizer of
/// 262,144 tokens has 1.9 million.
const VALUES_MAX: usize = 1 << 22;

/// Reads the bytes of a file; `None` if there is none.
pub(crate) fn read_json(path: &Path) -> Result<Option<Vec<u8>>, LoadError> {
    if !path.exists() {
        return Ok(None);
    }
    let file = hyperrag_files::open(path).map_err(LoadError::io(path, "cannot be opened"))?;
    let mut bytes = Vec::new();
    let read = file.take(BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(LoadError::io(path, "cannot be read"))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(json_error(path)(format!("it is larger than {BYTES_MAX} bytes")));
    }
    check_json_size(&bytes).map_err(json_error(path))?;
    Ok(Some(bytes))
}

/// Refuses JSON of too many values before it is parsed.
pub(crate) fn check_json_size(text: &[u8]) -> Result<(), String> {
    // Characters inside texts count as well.
    let values = text.iter().filter(|byte| b",[{".contains(byte)).count();
    match values > VALUES_MAX {
        true => Err(format!("it has more than {VALUES_MAX} values")),
        false => Ok(()),
    }
}

pub(crate) fn parse_json<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, LoadError> {
    serde_json::from_slice(text).map_err(json_error(path))
}

/// Makes the error that names a file and its fault.
pub(crate) fn json_error<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> LoadError {
    let path = path.to_owned();
    move |what| LoadError::Json { path: path.clone(), what: what.to_string() }
}
