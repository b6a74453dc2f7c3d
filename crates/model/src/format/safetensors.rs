//! Files of safetensors: their headers, and tensors read in f32.
//!
//! In: a path. Out: locations of tensors by name, and values. It does not know which tensors a model has.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::LoadError;
use crate::format::json;
use crate::format::raw_tensor::ROWS_AT_ONCE;

/// Largest size of the header of a safetensors file, in bytes. With 10,000 tensors it has one million.
const HEADER_BYTES_MAX: u64 = 32 << 20;

/// Location of a tensor in a file.
pub(super) struct SafetensorsTensor {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) kind: String,
    pub(super) shape: Vec<usize>,
}

/// A tensor in the header of a safetensors file.
#[derive(Deserialize)]
pub(crate) struct SafetensorsEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// Reads the tensors in the header of a safetensors file.
pub(super) fn read_header(path: &Path) -> Result<Vec<(String, SafetensorsTensor)>, LoadError> {
    let opened =
        hyperrag_files::open(path).map_err(LoadError::io(path, "the weights cannot be opened"))?;
    let failed = || LoadError::io(path, "the weights cannot be read");
    let bytes = opened.metadata().map_err(failed())?.len();
    let mut length = [0; 8];
    opened.read_exact_at(&mut length, 0).map_err(failed())?;
    let length = u64::from_le_bytes(length);
    let after = bytes.saturating_sub(8);
    if length > after.min(HEADER_BYTES_MAX) {
        let what = format!("no safetensors: its header would take {length} of {after} bytes");
        return Err(json::json_error(path)(what));
    }
    let mut header = vec![0; length as usize];
    opened.read_exact_at(&mut header, 8).map_err(failed())?;
    let file = Arc::new(opened);
    let entries = entries(&header, after - length).map_err(json::json_error(path))?;
    let places = entries.into_iter().map(|(name, entry)| {
        let (file, path) = (Arc::clone(&file), path.to_owned());
        let SafetensorsEntry { dtype: kind, shape, data_offsets: [start, _] } = entry;
        (name, SafetensorsTensor { file, path, offset: 8 + length + start, kind, shape })
    });
    Ok(places.collect())
}

/// Reads the tensors in the header of a safetensors file. Lengths and offsets are checked against the
/// `data` bytes after it.
pub(crate) fn entries(header: &[u8], data: u64) -> Result<Vec<(String, SafetensorsEntry)>, String> {
    json::check_json_size(header)?;
    // As text first, so that nothing is kept of entries that are no tensors.
    let texts: HashMap<String, Box<RawValue>> =
        serde_json::from_slice(header).map_err(|error| error.to_string())?;
    let tensors = texts.into_iter().filter(|(name, _)| name != "__metadata__");
    let checked = tensors.map(|(name, text)| {
        let entry: SafetensorsEntry =
            serde_json::from_str(text.get()).map_err(|error| format!("{name}: {error}"))?;
        let SafetensorsEntry { dtype, shape, data_offsets: [start, end] } = &entry;
        let size = SafetensorsDtype::named(dtype).map(SafetensorsDtype::bytes);
        let count = shape.iter().try_fold(1_u64, |all, n| all.checked_mul(*n as u64));
        let fits = match (size, count) {
            (Some(size), Some(count)) => count.checked_mul(size) == end.checked_sub(*start),
            // A type that is not read: its length does not matter.
            (None, _) => start <= end,
            (_, None) => false,
        };
        match fits && *end <= data {
            true => Ok((name, entry)),
            false => Err(format!("tensor {name} is not within the file, or not of its shape")),
        }
    });
    checked.collect()
}

/// Types from which weights are read.
#[derive(Clone, Copy)]
pub(super) enum SafetensorsDtype {
    F32,
    F16,
    Bf16,
}

impl SafetensorsDtype {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::Bf16),
            _ => None,
        }
    }

    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A tensor whose values are still in the file.
pub(crate) struct PlainTensor {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) kind: SafetensorsDtype,
    pub(super) rows: usize,
    pub(super) inputs: usize,
    /// Number added to every value.
    pub(super) added: f32,
}

impl PlainTensor {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Keeps `rows` rows from the row `first` on.
    pub(crate) fn part(self, first: usize, rows: usize) -> Self {
        let row_bytes = self.inputs as u64 * self.kind.bytes();
        Self { offset: self.offset + first as u64 * row_bytes, rows, ..self }
    }

    pub(crate) fn values(&self) -> Result<Vec<f32>, LoadError> {
        let mut values = Vec::with_capacity(self.rows * self.inputs);
        self.each_rows(|rows| values.extend_from_slice(rows))?;
        Ok(values)
    }

    pub(crate) fn each_rows(&self, mut each: impl FnMut(&[f32])) -> Result<(), LoadError> {
        let row_bytes = self.inputs * self.kind.bytes() as usize;
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        // Vectors have rows of one value.
        let at_once = if self.inputs == 1 { self.rows.max(1) } else { ROWS_AT_ONCE };
        for first in (0..self.rows).step_by(at_once) {
            bytes.resize(at_once.min(self.rows - first) * row_bytes, 0);
            let offset = self.offset + (first * row_bytes) as u64;
            let read = self.file.read_exact_at(&mut bytes, offset);
            read.map_err(LoadError::io(&self.path, "the weights cannot be read"))?;
            values.clear();
            let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
            let added = |value: f32| value + self.added;
            match self.kind {
                SafetensorsDtype::F32 => {
                    let words = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
                    values.extend(words.map(f32::from_le_bytes).map(added));
                }
                SafetensorsDtype::F16 => {
                    values.extend(pairs().map(|b| added(f16::from_le_bytes(b).to_f32())))
                }
                SafetensorsDtype::Bf16 => {
                    values.extend(pairs().map(|b| added(bf16::from_le_bytes(b).to_f32())))
                }
            }
            each(&values);
        }
        Ok(())
    }
}
