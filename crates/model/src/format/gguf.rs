//! A GGUF, in one file or split into several: configuration, tokenizer and weights of a model. It does not
//! know how they are used.

mod blocks;
pub(crate) mod header;
pub(crate) mod metadata_reader;
pub(crate) mod split;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyperrag_core::Digest;

use crate::arch::config::{Architecture, Config};
use crate::arch::rope::Scaling;
use crate::error::LoadError;
use crate::format::gguf::metadata_reader::MetadataReader;
use crate::format::gguf::split::Split;
use crate::format::raw_tensor::{ROWS_AT_ONCE, RawTensor, digest_of};
use crate::generate::chat_template::{ChatTemplate, special_texts};
use crate::tokenizer::Tokenizer;
use blocks::GgmlType;
use header::{GgufHeader, GgufTensorInfo, Metadata, MetadataValue};

/// An open GGUF file, or all files of a split one.
pub(crate) struct Gguf {
    /// The file, or the parts in order.
    files: Vec<GgufFile>,
    /// Metadata of the first file.
    metadata: Metadata,
    /// Tensors of all files, each with the index of its file.
    tensors: HashMap<String, (usize, GgufTensorInfo)>,
}

/// File of a model, which may have several.
struct GgufFile {
    path: PathBuf,
    file: Arc<File>,
    /// Size of the file, in bytes.
    bytes: u64,
}

impl GgufFile {
    fn open(path: &Path) -> Result<(Self, GgufHeader), LoadError> {
        let failed = || LoadError::io(path, "the model file cannot be opened");
        let file = hyperrag_files::open(path).map_err(failed())?;
        let bytes = file.metadata().map_err(failed())?.len();
        let reader = BufReader::with_capacity(1 << 20, &file);
        let header = GgufHeader::read(reader, bytes).map_err(|refusal| refusal.of(path))?;
        Ok((Self { path: path.to_owned(), file: Arc::new(file), bytes }, header))
    }
}

impl Gguf {
    /// Reads header and metadata. `path` may be any part of a split file.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let (file, header) = GgufFile::open(path)?;
        let Some(split) = Split::of(path, &header.metadata)? else {
            return Self::new(vec![(file, header)]);
        };
        let mut parts = Vec::new();
        for (i, path) in split.paths(path)?.into_iter().enumerate() {
            let (file, header) = GgufFile::open(&path)?;
            split.check(i, &path, &header)?;
            parts.push((file, header));
        }
        let gguf = Self::new(parts)?;
        split.check_tensors(gguf.path(), gguf.tensors.len())?;
        Ok(gguf)
    }

    /// Joins the files, whose metadata are those of the first.
    fn new(parts: Vec<(GgufFile, GgufHeader)>) -> Result<Self, LoadError> {
        let (mut files, mut metadata, mut tensors) = (Vec::new(), None, HashMap::new());
        for (i, (file, header)) in parts.into_iter().enumerate() {
            metadata.get_or_insert(header.metadata);
            for (name, tensor) in header.tensors {
                if let Some((_, (other, _))) = tensors.remove_entry(&name) {
                    let other: &GgufFile = &files[other];
                    let what = format!("tensor {name} is in {} too", other.path.display());
                    return Err(LoadError::Gguf { path: file.path, what });
                }
                tensors.insert(name, (i, tensor));
            }
            files.push(file);
        }
        Ok(Self { files, metadata: metadata.unwrap_or_default(), tensors })
    }

    /// Returns the path of the file, or of the first part.
    pub(crate) fn path(&self) -> &Path {
        &self.files[0].path
    }

    /// Returns the paths of all files.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path.clone()).collect()
    }

    /// Returns the model's name as the file states it.
    pub(crate) fn name(&self) -> Option<String> {
        self.metadata.get("general.name").and_then(MetadataValue::text).map(str::to_owned)
    }

    pub(crate) fn config(&self) -> Result<Config, LoadError> {
        let mut config = Config::from_metadata(&self.metadata)?;
        // The scalings of Llama 3 and of LongRoPE are tensors, not metadata. LongRoPE has another one
        // for texts that are longer than the configuration admits.
        let names = ["rope_freqs.weight", "rope_factors_short.weight"];
        if let Some(name) = names.into_iter().find(|name| self.has(name)) {
            let rotary = config.rotary_dim_of_kind(false);
            let divisors = self.stored(name, &[rotary / 2])?.values()?;
            config.rope.scaling = Scaling::Divisors(divisors);
            if config.mixed.is_none() {
                config.local_rope = config.rope.clone();
            }
        }
        if let Some(mixed) = &mut config.mixed {
            let last = (0..config.layers - mixed.shared).rev();
            let local = |layer: usize| config.window.as_ref().is_some_and(|w| w.local[layer]);
            // llama.cpp has no V of its own where there is no tensor for it.
            mixed.keys_as_values = last
                .into_iter()
                .find(|layer| !local(*layer))
                .is_some_and(|layer| !self.has(&format!("blk.{layer}.attn_v.weight")));
            if config.rope.scaling == Scaling::None {
                let what = "it has no tensor rope_freqs.weight".to_owned();
                return Err(LoadError::Gguf { path: self.path().to_owned(), what });
            }
        }
        config.checked()
    }

    /// Hashes the file, or the digests of all parts.
    pub(crate) fn digest(&self) -> Result<Digest, LoadError> {
        if let [file] = &self.files[..] {
            return digest_of(&file.path);
        }
        let mut hasher = blake3::Hasher::new();
        for file in &self.files {
            hasher.update(&digest_of(&file.path)?.0);
        }
        Ok(Digest(*hasher.finalize().as_bytes()))
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        Tokenizer::from_metadata(&self.metadata)
    }

    pub(crate) fn chat(&self) -> Result<Option<ChatTemplate>, LoadError> {
        ChatTemplate::from_metadata(&self.metadata)
    }

    /// Returns the texts of the tokens that begin and end a text.
    pub(crate) fn special_texts(&self) -> Result<[String; 2], LoadError> {
        special_texts(&self.metadata)
    }

    pub(crate) fn end_tokens(&self) -> Result<Vec<u32>, LoadError> {
        let keys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"];
        let tokens = keys.map(|key| MetadataReader(&self.metadata).token(key));
        tokens.into_iter().filter_map(Result::transpose).collect()
    }

    /// Returns the file's name of a tensor.
    fn name_in_file<'n>(&self, name: &'n str) -> Cow<'n, str> {
        let fused = name.strip_suffix("ffn_gate_up.weight");
        match fused.filter(|_| self.has_fused_gates()) {
            Some(layer) => Cow::Owned(format!("{layer}ffn_up.weight")),
            None => Cow::Borrowed(name),
        }
    }

    /// Whether the gates lie above the ups, in the tensor of the ups.
    fn has_fused_gates(&self) -> bool {
        let architecture = self.metadata.get("general.architecture");
        architecture.and_then(MetadataValue::text) == Some(Architecture::Phi3.name())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(&*self.name_in_file(name))
    }

    /// Returns the location of a tensor's bytes, which must lie within its file, with their number.
    fn place(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<(&GgufFile, &GgufTensorInfo, usize), LoadError> {
        let name = &*self.name_in_file(name);
        let Some((file, place)) = self.tensors.get(name) else {
            let what = format!("it has no tensor {name}");
            return Err(LoadError::Gguf { path: self.path().to_owned(), what });
        };
        let file = &self.files[*file];
        let damaged = |what| LoadError::Gguf { path: file.path.clone(), what };
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
        if place.offset.checked_add(bytes as u64).is_none_or(|end| end > file.bytes) {
            return Err(damaged(format!("tensor {name} goes beyond the end of the file")));
        }
        Ok((file, place, bytes))
    }

    pub(crate) fn raw(&self, name: &str, shape: &[usize]) -> Result<RawTensor<'_>, LoadError> {
        let (GgufFile { file, path, .. }, tensor, bytes) = self.place(name, shape)?;
        let GgufTensorInfo { kind, offset, .. } = tensor;
        Ok(RawTensor { file, path, offset: *offset, bytes: bytes as u64, kind: kind.name() })
    }

    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<QuantisedTensor, LoadError> {
        let (GgufFile { file, path, .. }, tensor, _) = self.place(name, shape)?;
        Ok(QuantisedTensor {
            file: Arc::clone(file),
            path: path.clone(),
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

    /// Keeps `rows` rows from the row `first` on.
    pub(crate) fn part(self, first: usize, rows: usize) -> Result<Self, LoadError> {
        let (values, bytes) = (self.kind.values(), self.kind.bytes());
        if [first, rows].iter().any(|rows| !(rows * self.inputs).is_multiple_of(values)) {
            let feature = format!("rows of {} that share a block", self.kind.name());
            return Err(LoadError::Unsupported { feature });
        }
        let offset = self.offset + (first * self.inputs / values * bytes) as u64;
        Ok(Self { offset, rows, ..self })
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
