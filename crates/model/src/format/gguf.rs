//! A GGUF file: configuration, tokenizer and weights of a model. It does not know how they are used.

mod blocks;
pub(crate) mod header;
pub(crate) mod metadata_reader;

use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hyperrag_core::Digest;

use crate::arch::config::Config;
use crate::arch::rope::Scaling;
use crate::error::LoadError;
use crate::format::gguf::header::MetadataValue;
use crate::format::gguf::metadata_reader::MetadataReader;
use crate::format::raw_tensor::{ROWS_AT_ONCE, RawTensor, digest_of};
use crate::generate::chat_template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use blocks::GgmlType;
use header::{GgufHeader, GgufTensorInfo};

/// An open GGUF file.
pub(crate) struct Gguf {
    path: PathBuf,
    file: File,
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
        Ok(Self { path: path.to_owned(), file, bytes, header })
    }

    /// Returns the model's name as the file states it.
    pub(crate) fn name(&self) -> Option<String> {
        self.header.metadata.get("general.name").and_then(MetadataValue::text).map(str::to_owned)
    }

    pub(crate) fn config(&self) -> Result<Config, LoadError> {
        let mut config = Config::from_metadata(&self.header.metadata)?;
        // Llama 3's scaling is a tensor, not metadata.
        if self.has("rope_freqs.weight") {
            let divisors = self.stored("rope_freqs.weight", &[config.head_dim / 2])?.values();
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
        let (place, bytes) = self.place(name, shape)?;
        let mut data = vec![0; bytes];
        let read = self.file.read_exact_at(&mut data, place.offset);
        read.map_err(LoadError::io(&self.path, "the model file cannot be read"))?;
        Ok(QuantisedTensor { kind: place.kind, shape: shape.to_vec(), data })
    }
}

/// A tensor in the file's own type.
pub(crate) struct QuantisedTensor {
    kind: GgmlType,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl QuantisedTensor {
    pub(crate) fn rows(&self) -> usize {
        self.shape[0]
    }

    pub(crate) fn values(&self) -> Vec<f32> {
        self.kind.dequantise(&self.data)
    }

    pub(crate) fn each_rows(&self, mut each: impl FnMut(&[f32])) {
        let inputs = self.shape[1];
        if !inputs.is_multiple_of(self.kind.values()) {
            return each(&self.values());
        }
        let row_bytes = inputs / self.kind.values() * self.kind.bytes();
        for rows in self.data.chunks(ROWS_AT_ONCE * row_bytes) {
            each(&self.kind.dequantise(rows));
        }
    }
}
