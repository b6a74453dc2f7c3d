//! The error of this crate. Messages name the path, the cause and the remedy.

use std::io;
use std::path::PathBuf;

use hyperrag_kernels::error::PackError;

/// Why a model is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A name that is neither in the catalogue nor a path, and no id of the hub.
    #[error(
        "there is no model {name:?}: name one of {known}, the path of a GGUF file or of a folder with config.json and safetensors, or an id of the Hugging Face hub, ORG/NAME[@REVISION]"
    )]
    UnknownName {
        /// What was asked for.
        name: String,
        /// The catalogue.
        known: String,
    },
    /// In the catalogue, but not fetched yet.
    #[error("the model {name} is not on this machine (looked for {}): run `hyperrag model pull {name}`", path.display())]
    NotPulled {
        /// Its name.
        name: String,
        /// Where it would be.
        path: PathBuf,
    },
    /// No folder for models can be determined.
    #[error("no folder for models: set HYPERRAG_HOME, XDG_CACHE_HOME or HOME")]
    NoHome,
    /// The package client could not fetch the package.
    #[error("{command} did not fetch {package}: {output}; with no network, copy the model file to {} from another machine", path.display())]
    Download {
        /// The command that was run.
        command: String,
        /// What it was to fetch.
        package: String,
        /// What it said last.
        output: String,
        /// Where the model file belongs.
        path: PathBuf,
    },
    /// Bytes that are not the ones the catalogue names.
    #[error("{}: sha256 is {actual}, expected {expected}: nothing was kept, pull it again", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Digest in the catalogue.
        expected: String,
        /// Digest found.
        actual: String,
    },
    /// The file is no GGUF, or is cut short.
    #[error("{}: not a readable GGUF file: {what}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A metadata entry is missing or unusable.
    #[error("the model's metadata: {key} {what}")]
    Metadata {
        /// The key.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// A file of the hub's model cannot be had.
    #[error("{id}: {what}")]
    Hub {
        /// The model's id.
        id: String,
        /// What failed, and what to do.
        what: String,
    },
    /// A folder without a file that every model has.
    #[error(
        "{}: there is no {file}: the folder of a model has config.json, tokenizer.json, and model.safetensors or model.safetensors.index.json, as save_pretrained of transformers writes them", path.display()
    )]
    NotInFolder {
        /// The folder.
        path: PathBuf,
        /// The file.
        file: &'static str,
    },
    /// A file of a folder that does not say what it must.
    #[error("{}: {what}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Another kind of model.
    #[error(
        "the model's architecture is {architecture:?}; supported are llama, qwen2, qwen3, gemma, gemma2 and gemma3"
    )]
    Architecture {
        /// Its name.
        architecture: String,
    },
    /// The system has no memory for the weights.
    #[error(
        "there is no memory for {bytes} bytes of weights: free some, or use --compute bf16, which takes half of f32's"
    )]
    OutOfMemory {
        /// Bytes of the matrix that did not fit.
        bytes: usize,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The system starts no more threads.
    #[error("the threads that compute cannot be started: let it have more, or use fewer")]
    Threads {
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A feature that the decoder does not have.
    #[error("the model uses {feature}, which is not supported")]
    Unsupported {
        /// The feature.
        feature: String,
    },
    /// The device can not be used.
    #[error("{device}: {what}")]
    Device {
        /// Its name.
        device: String,
        /// What is wrong.
        what: String,
    },
    /// A file can not be read or written.
    #[error("{}: {action}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, e.g. `cannot be opened`.
        action: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl LoadError {
    /// Weights that cannot be packed, with the remedy.
    pub(crate) fn packing(error: PackError) -> Self {
        match error {
            PackError::OutOfMemory { bytes, source } => Self::OutOfMemory { bytes, source },
            PackError::Int8Inputs { .. } => {
                Self::Unsupported { feature: format!("{error} (use --compute bf16)") }
            }
        }
    }

    pub(crate) fn io(
        path: &std::path::Path,
        action: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}
