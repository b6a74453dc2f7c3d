//! A model on disk, opened: a GGUF file or a folder with safetensors.
//!
//! In: a path. Out: sizes, digests, tokenizer, chat template, and weights on request. It does not
//! compute.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use hyperrag_core::Digest;

use crate::arch::config::Config;
use crate::arch::weights::{RowOrder, TensorRows};
use crate::error::LoadError;
use crate::format::digest_memory::DigestMemory;
use crate::format::gguf::{Gguf, QuantisedTensor};
use crate::format::model_folder::ModelFolder;
use crate::format::raw_tensor::RawTensor;
use crate::format::safetensors::PlainTensor;
use crate::format::tokenizer_file::read_tokenizer;
use crate::format::weight_files::only_gguf;
use crate::generate::chat_template::{BYTES_MAX, ChatTemplate};
use crate::tokenizer::Tokenizer;

/// A GGUF file or a folder with safetensors from which a model is loaded. Gives sizes and tokenizer,
/// and weights on request, by their names in GGUF.
pub struct ModelFile {
    pub(super) path: PathBuf,
    config: Config,
    /// Path of a tokenizer in the place of the model's own.
    other_tokenizer: Option<PathBuf>,
    /// Path of a chat template in the place of the model's own.
    other_chat: Option<PathBuf>,
    pub(super) format: ModelFormat,
    pub(super) digest_of_files: OnceLock<Digest>,
    pub(super) digest_of_contents: OnceLock<Digest>,
    pub(super) memory: Option<DigestMemory>,
    /// State of the files when they were opened.
    opened: Vec<FileState>,
}

/// Device, inode, length, and time of modification of a file; `None` where it is gone.
type FileState = Option<(u64, u64, u64, i64, i64)>;

fn file_state(path: &Path) -> FileState {
    let m = path.metadata().ok()?;
    Some((m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec()))
}

pub(super) enum ModelFormat {
    Gguf(Gguf),
    Folder(Box<ModelFolder>),
}

impl ModelFile {
    /// Reads header and metadata.
    ///
    /// # Errors
    /// [`LoadError`] for a path that is neither a GGUF nor such a folder, or a model that is not
    /// supported.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        // A folder that holds nothing but a GGUF stands for that file.
        let only = only_gguf(path).filter(|_| !path.join("config.json").exists());
        let path = only.as_deref().unwrap_or(path);
        let (config, format) = if path.is_dir() {
            let folder = ModelFolder::open(path)?;
            (folder.config().clone(), ModelFormat::Folder(Box::new(folder)))
        } else {
            let file = Gguf::open(path)?;
            (file.config()?, ModelFormat::Gguf(file))
        };
        let (digest_of_files, digest_of_contents) = (OnceLock::new(), OnceLock::new());
        // Any part of a split file stands for all, whose name is that of the first.
        let path = match &format {
            ModelFormat::Gguf(file) => file.path().to_owned(),
            ModelFormat::Folder(_) => path.to_owned(),
        };
        let mut file = Self {
            path,
            config,
            other_tokenizer: None,
            other_chat: None,
            format,
            digest_of_files,
            digest_of_contents,
            memory: None,
            opened: Vec::new(),
        };
        file.opened = file.files().iter().map(|path| file_state(path)).collect();
        Ok(file)
    }

    /// Paths of the files that weights and sizes are read from.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        match &self.format {
            ModelFormat::Gguf(file) => file.files(),
            ModelFormat::Folder(folder) => folder.hashed_files(),
        }
    }

    /// Checks that no file was changed since it was opened, so that all that was read is of one model. A file
    /// that is gone is not changed: it stays as it was for those who have it open.
    ///
    /// # Errors
    /// [`LoadError::Changed`] with the file.
    pub(crate) fn check_unchanged(&self) -> Result<(), LoadError> {
        let files = self.files();
        let states = files.iter().map(|path| file_state(path));
        match states.zip(&self.opened).position(|(now, opened)| now.is_some() && now != *opened) {
            Some(at) => Err(LoadError::Changed { path: files[at].clone() }),
            None => Ok(()),
        }
    }

    /// Puts the tokenizer at `path` in the place of the model's own: a `tokenizer.json`, a folder with one,
    /// or a GGUF.
    ///
    /// # Errors
    /// [`LoadError`] if there is no tokenizer.
    pub fn with_tokenizer(self, path: &Path) -> Result<Self, LoadError> {
        read_tokenizer(path)?;
        Ok(Self { other_tokenizer: Some(path.to_owned()), ..self })
    }

    /// Remembers the digest of the weights in `folder` between processes, as long as the files do not
    /// change.
    #[must_use]
    pub fn with_digests_in(self, folder: &Path) -> Self {
        Self { memory: Some(DigestMemory::at(folder)), ..self }
    }

    /// Puts the chat template in the file `path` in the place of the model's own.
    pub fn set_chat_template(&mut self, path: &Path) {
        self.other_chat = Some(path.to_owned());
    }

    /// Returns the path of the file or folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the hub's id and commit if the path lies in the hub's cache, else the name that the GGUF
    /// states, else the name of the file or folder.
    #[must_use]
    pub fn name(&self) -> String {
        let own = match &self.format {
            ModelFormat::Gguf(file) => file.name(),
            ModelFormat::Folder(_) => None,
        };
        pinned(&self.path).or(own).unwrap_or_else(|| {
            let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
            let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
            name.unwrap_or_default().to_string_lossy().into_owned()
        })
    }

    /// Returns the sizes of the model.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the model's tokenizer.
    ///
    /// # Errors
    /// [`LoadError`] if it is missing or of an unsupported kind.
    pub fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        if let Some(path) = &self.other_tokenizer {
            return read_tokenizer(path);
        }
        match &self.format {
            ModelFormat::Gguf(file) => file.tokenizer().map_err(|error| LoadError::Tokenizer {
                path: self.path.clone(),
                source: Box::new(error),
            }),
            ModelFormat::Folder(folder) => folder.tokenizer(),
        }
    }

    /// Whether the model has a chat template, also one that cannot be used: it was trained to take
    /// turns.
    #[must_use]
    pub fn takes_turns(&self) -> bool {
        !matches!(self.chat(), Ok(None))
    }

    /// Reads the chat template, if there is one.
    pub(crate) fn chat(&self) -> Result<Option<ChatTemplate>, LoadError> {
        if let Some(path) = &self.other_chat {
            let [bos, eos] = match &self.format {
                ModelFormat::Gguf(file) => file.special_texts()?,
                ModelFormat::Folder(folder) => folder.special_texts()?,
            };
            return read_chat(path, &bos, &eos).map(Some);
        }
        let chat = match &self.format {
            ModelFormat::Gguf(file) => file.chat(),
            ModelFormat::Folder(folder) => folder.chat(),
        };
        let path = self.path.clone();
        chat.map_err(|error| LoadError::ChatTemplate { path, source: Box::new(error) })
    }

    /// Returns the tokens that end a text or a turn of the model.
    pub(crate) fn end_tokens(&self) -> Result<Vec<u32>, LoadError> {
        match &self.format {
            ModelFormat::Gguf(file) => file.end_tokens(),
            ModelFormat::Folder(folder) => folder.end_tokens(),
        }
    }

    /// Whether the rotary positions pair the two halves of each head of Q and K. If not, they pair
    /// neighbouring rows.
    pub(crate) fn pairs_halves(&self) -> bool {
        let folder = matches!(self.format, ModelFormat::Folder(_));
        folder || !self.config.architecture.pairs_neighbours_in_gguf()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.format {
            ModelFormat::Gguf(file) => file.has(name),
            ModelFormat::Folder(folder) => folder.has(name),
        }
    }

    /// Names the conventions of the source for the order of rows of Q and K and for norms.
    pub(crate) fn conventions(&self) -> &'static str {
        match &self.format {
            ModelFormat::Gguf(_) => "gguf",
            ModelFormat::Folder(_) => "transformers",
        }
    }

    /// Locates the bytes of the tensor `name` without reading them.
    pub(crate) fn raw(&self, name: &str, shape: &[usize]) -> Result<RawTensor<'_>, LoadError> {
        match &self.format {
            ModelFormat::Gguf(file) => file.raw(name, shape),
            ModelFormat::Folder(folder) => folder.raw(name, shape),
        }
    }

    /// Returns the tensor `name` in the file's own type.
    pub(crate) fn stored(
        &mut self,
        name: &str,
        shape: &[usize],
    ) -> Result<StoredTensor, LoadError> {
        match &mut self.format {
            ModelFormat::Gguf(file) => file.stored(name, shape).map(StoredTensor::Quantised),
            ModelFormat::Folder(folder) => folder.stored(name, shape).map(StoredTensor::Plain),
        }
    }

    /// Returns rows of a tensor, or values if there are no `inputs`, in the file's own type.
    pub(crate) fn stored_rows(
        &mut self,
        TensorRows { name, of, first, rows, .. }: &TensorRows,
        inputs: Option<usize>,
    ) -> Result<StoredTensor, LoadError> {
        let shape: Vec<usize> = [*of].into_iter().chain(inputs).collect();
        let tensor = self.stored(name, &shape)?;
        if rows == of { Ok(tensor) } else { tensor.part(*first, *rows) }
    }

    /// Reads the parts as f32, each in its order of rows, row-major.
    pub(crate) fn values_of(
        &mut self,
        parts: &[TensorRows],
        inputs: Option<usize>,
    ) -> Result<Vec<f32>, LoadError> {
        let rows: usize = parts.iter().map(|part| part.rows).sum();
        let width = inputs.unwrap_or(1);
        let mut all = Vec::with_capacity(rows * width);
        for part in parts {
            let values = self.stored_rows(part, inputs)?.values()?;
            let first = all.len();
            all.extend_from_slice(&values);
            if part.order != RowOrder::AsStored {
                for (row, values) in values.chunks_exact(width).enumerate() {
                    let place = first + part.order.place(row) * width;
                    all[place..][..width].copy_from_slice(values);
                }
            }
        }
        Ok(all)
    }
}

/// Reads a chat template in a file of its own.
fn read_chat(path: &Path, bos: &str, eos: &str) -> Result<ChatTemplate, LoadError> {
    let file = hyperrag_files::open(path);
    let file = file.map_err(LoadError::io(path, "the chat template cannot be opened"))?;
    let mut text = String::new();
    // One byte more than is read tells of a longer one.
    let read = file.take(BYTES_MAX as u64 + 1).read_to_string(&mut text);
    read.map_err(LoadError::io(path, "the chat template cannot be read"))?;
    let text = text.trim_start_matches('\u{feff}');
    ChatTemplate::new(text, bos, eos).map_err(|what| LoadError::Json {
        path: path.to_owned(),
        what: format!("the chat template {what}"),
    })
}

/// A tensor in the file's own type.
pub(crate) enum StoredTensor {
    Quantised(QuantisedTensor),
    Plain(PlainTensor),
}

impl StoredTensor {
    /// Keeps `rows` rows from the row `first` on.
    fn part(self, first: usize, rows: usize) -> Result<Self, LoadError> {
        Ok(match self {
            Self::Quantised(tensor) => Self::Quantised(tensor.part(first, rows)?),
            Self::Plain(tensor) => Self::Plain(tensor.part(first, rows)),
        })
    }

    /// Reads all values as f32, row-major.
    fn values(&self) -> Result<Vec<f32>, LoadError> {
        match self {
            Self::Quantised(tensor) => tensor.values(),
            Self::Plain(tensor) => tensor.values(),
        }
    }

    /// Number of rows of a matrix, or of values of a vector.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Quantised(tensor) => tensor.rows(),
            Self::Plain(tensor) => tensor.rows(),
        }
    }

    /// Calls `each` with the values of successive rows of a matrix, in f32. A call gets few rows, so
    /// that no second copy of the matrix is made.
    pub(crate) fn each_rows(&self, each: impl FnMut(&[f32])) -> Result<(), LoadError> {
        match self {
            Self::Quantised(tensor) => tensor.each_rows(each),
            Self::Plain(tensor) => tensor.each_rows(each),
        }
    }
}

/// Returns `org/name/FILE@commit` for a path in the hub's cache,
/// `models--org--name/snapshots/commit/FILE`.
fn pinned(path: &Path) -> Option<String> {
    let absolute = std::path::absolute(path).ok()?;
    let parts: Vec<&str> = absolute
        .components()
        .filter_map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect();
    let at = parts.iter().rposition(|part| *part == "snapshots")?;
    let id = parts.get(at.checked_sub(1)?)?.strip_prefix("models--")?.replacen("--", "/", 1);
    let commit = parts.get(at + 1)?;
    let file = parts[at + 2..].iter().map(|part| format!("/{part}")).collect::<String>();
    Some(format!("{id}{file}@{commit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_after_it_was_opened_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        let write = |seed| {
            crate::testing::tiny::write(seed, &mut std::fs::File::create(&path).unwrap()).unwrap();
        };
        write(0);
        let file = ModelFile::open(&path).unwrap();
        file.check_unchanged().unwrap();
        let whole = file.digest(hyperrag_core::Coverage::Files).unwrap();
        // In place, with the same length.
        let before = path.metadata().unwrap();
        while path.metadata().unwrap().modified().unwrap() == before.modified().unwrap() {
            std::thread::sleep(std::time::Duration::from_millis(20));
            write(1);
        }
        assert!(matches!(file.check_unchanged(), Err(LoadError::Changed { .. })));
        let error = file.digest(hyperrag_core::Coverage::Contents).unwrap_err();
        assert!(error.to_string().contains("was changed while it was read"), "{error}");
        let other = ModelFile::open(&path).unwrap();
        assert_ne!(other.digest(hyperrag_core::Coverage::Files).unwrap(), whole);
    }

    #[test]
    fn the_hubs_cache_pins_a_commit() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(pinned(Path::new(path)).as_deref(), expected, "{path}");
        };
        check("/c/hub/models--org--a-name/snapshots/0123", Some("org/a-name@0123"));
        check("/c/models--org--name/snapshots/0123/q4.gguf", Some("org/name/q4.gguf@0123"));
        check("/c/models--org--name/snapshots", None);
        check("/c/org--name/snapshots/0123", None);
        check("/c/model", None);
    }
}
