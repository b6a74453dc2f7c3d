use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::QTensor;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::gguf_file::Content;
use hyperrag_kv::Digest;

use crate::chat::Chat;
use crate::device::first_line;
use crate::metadata::Reader;
use crate::rope::Scaling;
use crate::{Architecture, Config, GgufTokenizer, LoadError};

/// Rows of a matrix that are converted at a time.
const ROWS_AT_ONCE: usize = 64;

/// An open GGUF file: its sizes, its tokenizer, and its weights on request.
pub struct ModelFile {
    path: PathBuf,
    file: BufReader<File>,
    content: Content,
    config: Config,
    digest: Digest,
}

impl ModelFile {
    /// Reads the header and the metadata, and hashes the file.
    ///
    /// # Errors
    /// [`LoadError`] for a file that is no GGUF, or of a model that is not supported.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let file =
            File::open(path).map_err(LoadError::io(path, "the model file cannot be opened"))?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut magic = [0; 4];
        let read = file.read_exact(&mut magic).and_then(|()| file.rewind());
        read.map_err(LoadError::io(path, "the model file cannot be read"))?;
        if &magic != b"GGUF" {
            let what = "it does not start with GGUF".to_owned();
            return Err(LoadError::Gguf { path: path.to_owned(), what });
        }
        let damaged = |what| LoadError::Gguf { path: path.to_owned(), what };
        // candle panics where the alignment is 0.
        let content = catch_unwind(AssertUnwindSafe(|| Content::read(&mut file)))
            .map_err(|_| damaged("its header makes no sense".to_owned()))?
            .map_err(|error| damaged(first_line(&error)))?;
        let config = Config::from_metadata(&content.metadata)?;
        let digest = digest(path)?;
        let mut model = Self { path: path.to_owned(), file, content, config, digest };
        model.read_rope_divisors()?;
        Ok(model)
    }

    /// Llama 3's scaling is a tensor, not metadata.
    fn read_rope_divisors(&mut self) -> Result<(), LoadError> {
        if self.has("rope_freqs.weight") {
            let divisors = self.tensor("rope_freqs.weight", &[self.config.head_dim / 2])?;
            self.config.rope.scaling = Scaling::Divisors(divisors);
            self.config.local_rope = self.config.rope.clone();
            self.config = self.config.clone().checked()?;
        }
        Ok(())
    }

    /// Whether the rows of Q and K of each head are such that its halves are turned together, not
    /// neighbours.
    pub(crate) fn pairs_halves(&self) -> bool {
        self.config.architecture != Architecture::Llama
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file calls the model, else the file's name.
    #[must_use]
    pub fn name(&self) -> String {
        let named =
            self.content.metadata.get("general.name").and_then(|name| name.to_string().ok());
        named.cloned().unwrap_or_else(|| {
            self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
        })
    }

    /// Sizes of the model.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Digest of the whole file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The tokenizer inside.
    ///
    /// # Errors
    /// [`LoadError`] where it is missing or of a kind that is not supported.
    pub fn tokenizer(&self) -> Result<GgufTokenizer, LoadError> {
        GgufTokenizer::from_metadata(&self.content.metadata)
    }

    /// The chat template inside, if there is one.
    pub(crate) fn chat(&self) -> Result<Option<Chat>, LoadError> {
        Chat::from_metadata(&self.content.metadata)
    }

    /// The tokens by which the model ends a text or its turn.
    pub(crate) fn end_tokens(&self) -> Result<Vec<u32>, LoadError> {
        let keys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"];
        let tokens = keys.map(|key| Reader(&self.content.metadata).token(key));
        tokens.into_iter().filter_map(Result::transpose).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    /// The tensor `name` as the file has it.
    pub(crate) fn stored(
        &mut self,
        name: &str,
        shape: &[usize],
    ) -> Result<StoredTensor, LoadError> {
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
                Ok(StoredTensor { path, name, tensor })
            }
            Err(error) => Err(damaged(format!("tensor {name}: {}", first_line(&error)))),
        }
    }

    /// The tensor `name` in f32, row-major.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        self.stored(name, shape)?.values()
    }
}

/// A tensor in the file's own type.
pub(crate) struct StoredTensor {
    path: PathBuf,
    name: String,
    tensor: QTensor,
}

impl StoredTensor {
    /// Rows of a matrix.
    pub(crate) fn rows(&self) -> usize {
        self.tensor.shape().dims()[0]
    }

    /// Its values in f32, row-major.
    fn values(&self) -> Result<Vec<f32>, LoadError> {
        dequantized(&self.tensor).map_err(|error| self.failed(&error))
    }

    /// Calls `each` with the values of some rows of a matrix after the others, in f32: few at a time,
    /// so that no second copy of the matrix is made.
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

fn digest(path: &Path) -> Result<Digest, LoadError> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(LoadError::io(path, "the model file cannot be opened"))?;
    let hashed = hasher.update_reader(file);
    hashed.map_err(LoadError::io(path, "the model file cannot be read"))?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}
