//! The header of a GGUF file: metadata, and locations of tensors. Lengths are checked against the file
//! and against limits before anything is allocated, so no header takes much more memory than its bytes.

use std::collections::HashMap;
use std::io::{self, BufRead};

use crate::error::LoadError;
use crate::format::gguf::blocks::GgmlType;

/// Largest size of a header, in bytes. Vocabularies of 256,000 tokens take 10 million.
const BYTES_MAX: u64 = 128 << 20;
/// Largest number of values in the metadata, including those of arrays. Vocabularies of 256,000 tokens
/// with their merges have 1.4 million.
const VALUES_MAX: u64 = 1 << 22;
/// Largest depth of arrays in arrays; no known key has any.
const DEPTH_MAX: usize = 4;
/// Largest number of tensors; models of 126 layers have 1,200.
const TENSORS_MAX: u64 = 1 << 16;
/// Largest number of dimensions of a tensor, as in ggml.
const DIMENSIONS_MAX: u32 = 4;
/// Alignment of the tensors if the metadata name none, in bytes.
const ALIGNMENT: u64 = 32;

/// Types of tensors that are not read, with their numbers (ggml's `ggml.h`).
const UNKNOWN_KINDS: [(u32, &str); 18] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MetadataValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Vec<Self>),
}

/// Metadata by key.
pub(crate) type Metadata = HashMap<String, MetadataValue>;

/// The part of a file before the bytes of the tensors.
#[derive(Debug)]
pub(crate) struct GgufHeader {
    pub(crate) metadata: Metadata,
    pub(super) tensors: HashMap<String, GgufTensorInfo>,
}

/// Type, shape and location of a tensor.
#[derive(Debug)]
pub(super) struct GgufTensorInfo {
    pub(super) kind: GgmlType,
    /// Sizes, rows first.
    pub(super) shape: Vec<usize>,
    /// Number of bytes of the file before the tensor.
    pub(super) offset: u64,
}

/// Reason why a header is not read.
#[derive(Debug)]
pub(crate) enum Refusal {
    Io(io::Error),
    Damaged(String),
    Unsupported(String),
}

type Read<T> = Result<T, Refusal>;

impl MetadataValue {
    pub(crate) fn boolean(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    pub(crate) fn array(&self) -> Option<&[Self]> {
        if let Self::Array(values) = self { Some(values) } else { None }
    }

    pub(crate) fn float(&self) -> Option<f32> {
        if let Self::F32(value) = self { Some(*value) } else { None }
    }

    /// Returns a whole number that is not negative, of any width.
    pub(crate) fn size(&self) -> Option<u64> {
        match *self {
            Self::U8(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::U64(n) => Some(n),
            Self::I8(n) => n.try_into().ok(),
            Self::I16(n) => n.try_into().ok(),
            Self::I32(n) => n.try_into().ok(),
            Self::I64(n) => n.try_into().ok(),
            _ => None,
        }
    }
}

impl GgufHeader {
    /// Reads the header of a file of `file_bytes` bytes.
    pub(crate) fn read(file: impl BufRead, file_bytes: u64) -> Read<Self> {
        let mut bytes = Bytes { file, at: 0, end: file_bytes, values: 0, wide: true };
        if &bytes.take()? != b"GGUF" {
            return damaged("it does not start with GGUF");
        }
        match bytes.u32()? {
            1 => bytes.wide = false,
            2 | 3 => {}
            version => return damaged(format!("its version is {version}, not 1, 2 or 3")),
        }
        let (tensor_count, value_count) = (bytes.length()?, bytes.length()?);
        if tensor_count > TENSORS_MAX {
            return damaged(format!("it names {tensor_count} tensors, {TENSORS_MAX} at most"));
        }
        let mut metadata = HashMap::new();
        for _ in 0..value_count {
            let key = bytes.text()?;
            let kind = bytes.u32()?;
            metadata.insert(key, bytes.value(kind, 0)?);
        }
        let mut tensors = HashMap::new();
        for _ in 0..tensor_count {
            let name = bytes.text()?;
            tensors.insert(name, bytes.place()?);
        }
        let alignment = metadata.get("general.alignment");
        let alignment = alignment.map_or(Some(ALIGNMENT), MetadataValue::size);
        let Some(alignment) = alignment.filter(|n| (1..=1 << 20).contains(n)) else {
            return damaged("general.alignment is not from 1 to a million");
        };
        let start = bytes.at.next_multiple_of(alignment);
        for place in tensors.values_mut() {
            let offset = start.checked_add(place.offset).ok_or(());
            place.offset = offset.or_else(|()| damaged("a tensor begins beyond its end"))?;
        }
        Ok(Self { metadata, tensors })
    }
}

/// Reads from a file within its length and the limits.
struct Bytes<F> {
    file: F,
    at: u64,
    /// Size of the file, in bytes.
    end: u64,
    /// Number of values read so far.
    values: u64,
    /// Whether lengths have 64 bits, as in all versions but the first.
    wide: bool,
}

impl<F: BufRead> Bytes<F> {
    /// Refuses a header that ends before the next `bytes` bytes.
    fn check(&self, bytes: u64) -> Read<()> {
        let after = self.at.saturating_add(bytes);
        if after > self.end {
            return damaged(format!("its header ends after {} bytes", self.end));
        }
        if after > BYTES_MAX {
            return damaged(format!("its header is longer than {BYTES_MAX} bytes"));
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Read<()> {
        self.check(buffer.len() as u64)?;
        self.file.read_exact(buffer).map_err(Refusal::Io)?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Read<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Read<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn length(&mut self) -> Read<u64> {
        if self.wide { self.u64() } else { self.u32().map(u64::from) }
    }

    fn text(&mut self) -> Read<String> {
        let length = self.length()?;
        self.check(length)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        // Some writers end texts as C does, and not all write UTF-8.
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// Reads a value whose type has the number `kind`.
    fn value(&mut self, kind: u32, depth: usize) -> Read<MetadataValue> {
        self.count(1)?;
        Ok(match kind {
            0 => MetadataValue::U8(u8::from_le_bytes(self.take()?)),
            1 => MetadataValue::I8(i8::from_le_bytes(self.take()?)),
            2 => MetadataValue::U16(u16::from_le_bytes(self.take()?)),
            3 => MetadataValue::I16(i16::from_le_bytes(self.take()?)),
            4 => MetadataValue::U32(self.u32()?),
            5 => MetadataValue::I32(i32::from_le_bytes(self.take()?)),
            6 => MetadataValue::F32(f32::from_le_bytes(self.take()?)),
            7 => match self.take()? {
                [0] => MetadataValue::Bool(false),
                [1] => MetadataValue::Bool(true),
                [byte] => return damaged(format!("{byte} stands for a truth value")),
            },
            8 => MetadataValue::String(self.text()?),
            9 => {
                let (kind, length) = (self.u32()?, self.length()?);
                if depth == DEPTH_MAX {
                    return damaged(format!("more than {DEPTH_MAX} arrays are in one another"));
                }
                // Every value takes a byte or more.
                self.check(length)?;
                self.count(length)?;
                self.values -= length;
                let values = (0..length).map(|_| self.value(kind, depth + 1));
                MetadataValue::Array(values.collect::<Read<_>>()?)
            }
            10 => MetadataValue::U64(self.u64()?),
            11 => MetadataValue::I64(i64::from_le_bytes(self.take()?)),
            12 => MetadataValue::F64(f64::from_le_bytes(self.take()?)),
            _ => return damaged(format!("{kind} is no type of metadata")),
        })
    }

    /// Counts `values` more values and refuses them if they are too many.
    fn count(&mut self, values: u64) -> Read<()> {
        self.values = self.values.saturating_add(values);
        match self.values > VALUES_MAX {
            true => damaged(format!("its metadata have more than {VALUES_MAX} values")),
            false => Ok(()),
        }
    }

    /// Reads the description of a tensor, with its offset from the first tensor.
    fn place(&mut self) -> Read<GgufTensorInfo> {
        let dimensions = self.u32()?;
        if dimensions > DIMENSIONS_MAX {
            return damaged(format!("a tensor has {dimensions} dimensions"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = usize::try_from(self.length()?);
            shape.push(size.or_else(|_| damaged("a tensor is larger than any memory"))?);
        }
        shape.reverse();
        let number = self.u32()?;
        let Some(kind) = GgmlType::of(number) else {
            let named = UNKNOWN_KINDS.iter().find(|(n, _)| *n == number);
            let name = named.map_or_else(|| format!("of number {number}"), |(_, n)| (*n).into());
            return Err(Refusal::Unsupported(format!("weights quantised as {name}")));
        };
        Ok(GgufTensorInfo { kind, shape, offset: self.u64()? })
    }
}

fn damaged<T>(what: impl Into<String>) -> Read<T> {
    Err(Refusal::Damaged(what.into()))
}

impl Refusal {
    /// Makes the error for the file at `path`.
    pub(super) fn of(self, path: &std::path::Path) -> LoadError {
        match self {
            Self::Io(error) => LoadError::io(path, "the model file cannot be read")(error),
            Self::Damaged(what) => LoadError::Gguf { path: path.to_owned(), what },
            Self::Unsupported(feature) => LoadError::Unsupported { feature },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a header with no tensors and one value: `value`, which begins with the number of its type.
    fn read(value: &[u8]) -> Read<MetadataValue> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend([0_u64, 1, 1].map(u64::to_le_bytes).concat());
        bytes.extend(b"k");
        bytes.extend(value);
        let mut header = GgufHeader::read(&bytes[..], bytes.len() as u64)?;
        Ok(header.metadata.remove("k").unwrap())
    }

    fn array(kind: u32, length: u64) -> Vec<u8> {
        [&9_u32.to_le_bytes()[..], &kind.to_le_bytes(), &length.to_le_bytes()].concat()
    }

    #[track_caller]
    fn refused(value: &[u8], expected: &str) {
        match read(value) {
            Err(Refusal::Damaged(what)) => assert!(what.contains(expected), "{what}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_are_read() {
        let text = [&8_u32.to_le_bytes()[..], &4_u64.to_le_bytes(), b"hi\0\0"].concat();
        assert_eq!(read(&text).unwrap(), MetadataValue::String("hi".to_owned()));
        let small = [array(3, 2), [-2_i16, 3].map(i16::to_le_bytes).concat()].concat();
        let expected = MetadataValue::Array(vec![MetadataValue::I16(-2), MetadataValue::I16(3)]);
        assert_eq!(read(&small).unwrap(), expected);
        assert_eq!(expected.array().unwrap()[1].size(), Some(3));
        assert_eq!(expected.array().unwrap()[0].size(), None);
    }

    #[test]
    fn lengths_are_checked_before_they_are_believed() {
        refused(&array(0, u64::MAX), "its header ends after");
        let text = [&8_u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
        refused(&text, "its header ends after");
        refused(&[array(7, 1), vec![2]].concat(), "2 stands for a truth value");
        refused(&[13, 0, 0, 0], "13 is no type");
        let nested = [&9_u32.to_le_bytes()[..], &array(9, 1)[4..].repeat(5), &[0; 64]].concat();
        refused(&nested, "more than 4 arrays");
        // As many bytes as promised, but more values than the bound.
        let many = VALUES_MAX as usize + 1;
        refused(&[array(0, many as u64), vec![0; many]].concat(), "more than 4194304 values");
        let long = BYTES_MAX as usize;
        let text = [&8_u32.to_le_bytes()[..], &(long as u64).to_le_bytes(), &vec![0; long]];
        refused(&text.concat(), "longer than 134217728 bytes");
    }
}
