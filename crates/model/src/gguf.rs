use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::QTensor;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::gguf_file::Content;
use hyperrag_kv::Digest;

use crate::chat::Chat;
use crate::device::first_line;
use crate::metadata::Reader;
use crate::model_file::{ROWS_AT_ONCE, digest_of};
use crate::rope::Scaling;
use crate::{Config, LoadError, Tokenizer, regular};

/// Types of tensors that candle does not know, by their numbers (ggml's `ggml.h`).
const UNKNOWN_TYPES: [(&str, &str); 16] = [
    ("16", "IQ2_XXS"),
    ("17", "IQ2_XS"),
    ("18", "IQ3_XXS"),
    ("19", "IQ1_S"),
    ("20", "IQ4_NL"),
    ("21", "IQ3_S"),
    ("22", "IQ2_S"),
    ("23", "IQ4_XS"),
    ("24", "I8"),
    ("25", "I16"),
    ("26", "I32"),
    ("28", "F64"),
    ("29", "IQ1_M"),
    ("34", "TQ1_0"),
    ("35", "TQ2_0"),
    ("39", "MXFP4"),
];

/// An open GGUF file.
pub(crate) struct Gguf {
    path: PathBuf,
    file: BufReader<File>,
    content: Content,
}

impl Gguf {
    /// Reads header and metadata.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let file =
            regular::open(path).map_err(LoadError::io(path, "the model file cannot be opened"))?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut magic = [0; 4];
        let read = file.read_exact(&mut magic).and_then(|()| file.rewind());
        read.map_err(LoadError::io(path, "the model file cannot be read"))?;
        let damaged = |what| LoadError::Gguf { path: path.to_owned(), what };
        if &magic != b"GGUF" {
            return Err(damaged("it does not start with GGUF".to_owned()));
        }
        // candle panics where the alignment is 0.
        let content = hyperrag_kv::guarded(|| Content::read(&mut file))
            .map_err(|_| damaged("its header makes no sense".to_owned()))?
            .map_err(|error| unknown_type(&error).unwrap_or_else(|| damaged(first_line(&error))))?;
        let parts = content.metadata.get("split.count").map(|count| count.to_u16().unwrap_or(2));
        if parts.is_some_and(|parts| parts > 1) {
            let feature = "a GGUF in several files (join them with llama-gguf-split --merge)";
            return Err(LoadError::Unsupported { feature: feature.to_owned() });
        }
        Ok(Self { path: path.to_owned(), file, content })
    }

    /// What the file calls the model.
    pub(crate) fn name(&self) -> Option<String> {
        self.content.metadata.get("general.name").and_then(|name| name.to_string().ok()).cloned()
    }

    pub(crate) fn config(&mut self) -> Result<Config, LoadError> {
        let mut config = Config::from_metadata(&self.content.metadata)?;
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
        Tokenizer::from_metadata(&self.content.metadata)
    }

    pub(crate) fn chat(&self) -> Result<Option<Chat>, LoadError> {
        Chat::from_metadata(&self.content.metadata)
    }

    pub(crate) fn end_tokens(&self) -> Result<Vec<u32>, LoadError> {
        let keys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"];
        let tokens = keys.map(|key| Reader(&self.content.metadata).token(key));
        tokens.into_iter().filter_map(Result::transpose).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    pub(crate) fn stored(
        &mut self,
        name: &str,
        shape: &[usize],
    ) -> Result<QuantisedTensor, LoadError> {
        let damaged = |what| LoadError::Gguf { path: self.path.clone(), what };
        let Some(info) = self.content.tensor_infos.get(name) else {
            return Err(damaged(format!("it has no tensor {name}")));
        };
        if info.shape.dims() != shape {
            let dims = info.shape.dims();
            return Err(damaged(format!("tensor {name} has shape {dims:?}, expected {shape:?}")));
        }
        match self.content.tensor(&mut self.file, name, &Device::Cpu) {
            Ok(tensor) => {
                let (path, name) = (self.path.clone(), name.to_owned());
                Ok(QuantisedTensor { path, name, tensor })
            }
            Err(error) => Err(damaged(format!("tensor {name}: {}", first_line(&error)))),
        }
    }
}

/// The refusal of a type of tensors that candle speaks of by its number.
fn unknown_type(error: &candle_core::Error) -> Option<LoadError> {
    let said = first_line(error);
    let (_, number) = said.split_once("unknown dtype for tensor ")?;
    let named = UNKNOWN_TYPES.iter().find(|(n, _)| *n == number.trim());
    let name = named.map_or_else(|| format!("of number {}", number.trim()), |(_, n)| (*n).into());
    Some(LoadError::Unsupported { feature: format!("weights quantised as {name}") })
}

/// A tensor in the file's own type.
pub(crate) struct QuantisedTensor {
    path: PathBuf,
    name: String,
    tensor: QTensor,
}

impl QuantisedTensor {
    pub(crate) fn rows(&self) -> usize {
        self.tensor.shape().dims()[0]
    }

    pub(crate) fn values(&self) -> Result<Vec<f32>, LoadError> {
        dequantized(&self.tensor).map_err(|error| self.failed(&error))
    }

    pub(crate) fn each_rows(&self, mut each: impl FnMut(&[f32])) -> Result<(), LoadError> {
        let (dtype, inputs) = (self.tensor.dtype(), self.tensor.shape().dims()[1]);
        if !inputs.is_multiple_of(dtype.block_size()) {
            each(&self.values()?);
            return Ok(());
        }
        let data = self.tensor.data().map_err(|error| self.failed(&error))?;
        let row_bytes = inputs / dtype.block_size() * dtype.type_size();
        for rows in data.chunks(ROWS_AT_ONCE * row_bytes) {
            let shape = vec![rows.len() / row_bytes, inputs];
            let part = qtensor_from_ggml(dtype, rows, shape, &Device::Cpu);
            each(&part.and_then(|part| dequantized(&part)).map_err(|error| self.failed(&error))?);
        }
        Ok(())
    }

    fn failed(&self, error: &candle_core::Error) -> LoadError {
        let what = format!("tensor {}: {}", self.name, first_line(error));
        LoadError::Gguf { path: self.path.clone(), what }
    }
}

fn dequantized(tensor: &QTensor) -> candle_core::Result<Vec<f32>> {
    tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1()
}
