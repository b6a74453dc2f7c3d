//! A GGUF file: configuration, tokenizer and weights of a model. It does not know how they are used.

mod blocks;
pub(crate) mod header;
pub(crate) mod metadata_reader;

use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyperrag_core::Digest;

use crate::arch::config::Config;
use crate::arch::rope::Scaling;
use crate::error::LoadError;
use crate::format::gguf::header::MetadataValue;
use crate::format::gguf::metadata_reader::MetadataReader;
use crate::format::raw_tensor::{ROWS_AT_ONCE, RawTensor, digest_of};
use crate::generate::chat_template::{ChatTemplate, special_texts};
use crate::tokenizer::Tokenizer;
use blocks::GgmlType;
use header::{GgufHeader, GgufTensorInfo};

/// An open GGUF file.
pub(crate) struct Gguf {
    path: PathBuf,
    file: Arc<File>,
    /// Size of the file, in bytes.
    bytes: u64,
    header: GgufHeader,
}

impl Gguf {
    /// Reads header and metadata.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let failed = || LoadError::io(path, "the model file cannot be opened");
        let file = hyperrag_files::open(path).map_err(failed())?;
        let bytes = file.metadata().map_err(failed())?.len();
        let reader = BufReader::with_capacity(1 << 20, &file);
        let header = GgufHeader::read(reader, bytes).map_err(|refusal| refusal.of(path))?;
        let parts = header.metadata.get("split.count").map(|count| count.size().unwrap_or(2));
        if parts.is_some_and(|parts| parts > 1) {
            let feature = "a GGUF in several files (join them with llama-gguf-split --merge)";
            return Err(LoadError::Unsupported { feature: feature.to_owned() });
        }
        Ok(Self { path: path.to_owned(), file: Arc::new(file), bytes, header })
    }

    /// Returns the model's name as the file states it.
    pub(crate) fn name(&self) -> Option<String> {
        self.header.metadata.get("general.name").and_then(MetadataValue::text).map(str::to_owned)
    }

    pub(crate) fn config(&self) -> Result<Config, LoadError> {
        let mut config = Config::from_metadata(&self.header.metadata)?;
        // Llama 3's scaling is a tensor, not metadata.
        if self.has("rope_freqs.weight") {
            let divisors = self.stored("rope_freqs.weight", &[config.head_dim / 2])?.values()?;
            config.rope.scaling = Scaling::Divisors(divisors);
            config.local_rope = config.rope.clone();
        }
        config.checked()
    }

    pub(crate) fn digest(&self) -> Result<Digest, LoadError> {
        digest_of(&self.path)
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        Tokenizer::from_metadata(&self.header.metadata)
    }

    pub(crate) fn chat(&self) -> Result<Option<ChatTemplate>, LoadError> {
        ChatTemplate::from_metadata(&self.header.metadata)
    }

    /// Returns the texts of the tokens that begin and end a text.
    pub(crate) fn special_texts(&self) -> Result<[String; 2], LoadError> {
        special_texts(&self.header.metadata)
    }

    pub(crate) fn end_tokens(&self) -> Result<Vec<u32>, LoadError> {
        let keys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"];
        let tokens = keys.map(|key| MetadataReader(&self.header.metadata).token(key));
        tokens.into_iter().filter_map(Result::transpose).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }

    /// Returns the location of a tensor's bytes, which must lie within the file.
    fn place(&self, name: &str, shape: &[usize]) -> Result<(&GgufTensorInfo, usize), LoadError> {
        let damaged = |what| LoadError::Gguf { path: self.path.clone(), what };
        let Some(place) = self.header.tensors.get(name) else {
            return Err(damaged(format!("it has no tensor {name}")));
        };
        if place.shape != shape {
            let found = &place.shape;
            return Err(damaged(format!("tensor {name} has shape {found:?}, expected {shape:?}")));
        }
        let kind = place.kind;
        let values = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let blocks = values.filter(|values| values.is_multiple_of(kind.values()));
        let bytes = blocks.and_then(|values| (values / kind.values()).checked_mul(kind.bytes()));
        let Some(bytes) = bytes else {
            return Err(damaged(format!("tensor {name} of shape {shape:?} is not whole blocks")));
        };
        if place.offset.checked_add(bytes as u64).is_none_or(|end| end > self.bytes) {
            return Err(damaged(format!("tensor {name} goes beyond the end of the file")));
        }
        Ok((place, bytes))
    }

    pub(crate) fn raw(&self, name: &str, shape: &[usize]) -> Result<RawTensor<'_>, LoadError> {
        let (GgufTensorInfo { kind, offset, .. }, bytes) = self.place(name, shape)?;
        let (file, path) = (&self.file, &self.path);
        Ok(RawTensor { file, path, offset: *offset, bytes: bytes as u64, kind: kind.name() })
    }

    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<QuantisedTensor, LoadError> {
        let (tensor, _) = self.place(name, shape)?;
        Ok(QuantisedTensor {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            offset: tensor.offset,
            kind: tensor.kind,
            rows: shape[0],
            inputs: shape[1..].iter().product(),
        })
    }
}

/// A tensor in the file's own type. Its bytes are still in the file.
pub(crate) struct QuantisedTensor {
    file: Arc<File>,
    path: PathBuf,
    offset: u64,
    kind: GgmlType,
    rows: usize,
    inputs: usize,
}

impl QuantisedTensor {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn values(&self) -> Result<Vec<f32>, LoadError> {
        let mut values = Vec::new();
        self.read(0, self.rows * self.inputs, &mut Vec::new(), &mut values)?;
        Ok(values)
    }

    pub(crate) fn each_rows(&self, mut each: impl FnMut(&[f32])) -> Result<(), LoadError> {
        if !self.inputs.is_multiple_of(self.kind.values()) {
            each(&self.values()?);
            return Ok(());
        }
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        for first in (0..self.rows).step_by(ROWS_AT_ONCE) {
            let rows = ROWS_AT_ONCE.min(self.rows - first);
            self.read(first * self.inputs, rows * self.inputs, &mut bytes, &mut values)?;
            each(&values);
        }
        Ok(())
    }

    /// Reads `count` values from the value `first` on, whole blocks both. `bytes` is memory for what is read.
    fn read(
        &self,
        first: usize,
        count: usize,
        bytes: &mut Vec<u8>,
        values: &mut Vec<f32>,
    ) -> Result<(), LoadError> {
        let bytes_of = |values: usize| values / self.kind.values() * self.kind.bytes();
        bytes.resize(bytes_of(count), 0);
        let read = self.file.read_exact_at(bytes, self.offset + bytes_of(first) as u64);
        read.map_err(LoadError::io(&self.path, "the model file cannot be read"))?;
        self.kind.dequantise(bytes, values);
        Ok(())
    }
}
