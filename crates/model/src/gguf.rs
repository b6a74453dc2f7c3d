use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::Content;
use hyperrag_kv::Digest;

use crate::device::first_line;
use crate::{Config, GgufTokenizer, LoadError};

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
        Ok(Self { path: path.to_owned(), file, content, config, digest })
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
    /// Its values in f32, row-major.
    pub(crate) fn values(&self) -> Result<Vec<f32>, LoadError> {
        let values = self.tensor.dequantize(&Device::Cpu);
        let values = values.and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
        values.map_err(|error| {
            let what = format!("tensor {}: {}", self.name, first_line(&error));
            LoadError::Gguf { path: self.path.clone(), what }
        })
    }
}

fn digest(path: &Path) -> Result<Digest, LoadError> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(LoadError::io(path, "the model file cannot be opened"))?;
    let hashed = hasher.update_reader(file);
    hashed.map_err(LoadError::io(path, "the model file cannot be read"))?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}
