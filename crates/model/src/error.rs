//! The errors of finding, fetching and loading a model: causes come in, messages, kinds and remedies go
//! out. It names no flag, and no error knows which command met it.

use std::io;
use std::path::PathBuf;

use hyperrag_core::{Classified, ErrorKind, Hint};
use hyperrag_kernels::error::PackError;

/// Why a model is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A name that is neither in the catalogue nor a path nor an id of the hub.
    #[error(
        "there is no model {name:?}: name one of {known}, the path of a GGUF file or of a folder with config.json and safetensors, or an id of the Hugging Face hub, ORG/NAME[@REVISION]"
    )]
    UnknownName {
        /// The requested name.
        name: String,
        /// Names in the catalogue.
        known: String,
    },
    /// A path where there is nothing.
    #[error("{}: there is no such file or folder{why}", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
        /// Names near it, or what else may be the reason.
        why: String,
    },
    /// A tokenizer in a model's file that cannot be used.
    #[error("{}: its tokenizer cannot be used", path.display())]
    Tokenizer {
        /// The model.
        path: PathBuf,
        /// Cause.
        #[source]
        source: Box<LoadError>,
    },
    /// A tokenizer in the place of the model's that cannot be used.
    #[error("{}: this tokenizer cannot be used in the place of the model's", path.display())]
    OtherTokenizer {
        /// File or folder of the tokenizer.
        path: PathBuf,
        /// Cause.
        #[source]
        source: Box<LoadError>,
    },
    /// A chat template that cannot be used.
    #[error("{}: its chat template cannot be used", path.display())]
    ChatTemplate {
        /// The model.
        path: PathBuf,
        /// Cause.
        #[source]
        source: Box<LoadError>,
    },
    /// A model of the catalogue or of the hub that is not fetched yet.
    #[error("the model {name} is not on this machine (looked for {})", path.display())]
    NotPulled {
        /// The model's name.
        name: String,
        /// Path where its file belongs.
        path: PathBuf,
    },
    /// A file of the model was changed while it was read.
    #[error("{}: the model file was changed while it was read; run the command again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// No folder for models can be determined.
    #[error("there is no folder for models")]
    NoHome,
    /// The package client could not fetch the package.
    #[error("{command} did not fetch {package}: {output}; with no network, copy the model file to {} from another machine", path.display())]
    Download {
        /// The command that was run.
        command: String,
        /// The package to fetch.
        package: String,
        /// Last line of the client's output.
        output: String,
        /// Path where the model file belongs.
        path: PathBuf,
    },
    /// A file with another digest than the catalogue states.
    #[error("{}: sha256 is {actual}, expected {expected}: nothing was kept, pull it again", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Digest in the catalogue.
        expected: String,
        /// Digest found.
        actual: String,
    },
    /// A file that is no GGUF or is cut short.
    #[error("{}: not a readable GGUF file: {what}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The fault in the file.
        what: String,
    },
    /// A metadata entry that is missing or unusable.
    #[error("the model's metadata: {key} {what}")]
    Metadata {
        /// The key.
        key: String,
        /// The fault of the entry.
        what: String,
    },
    /// A model of the hub of which a file cannot be fetched.
    #[error("{id}: {what}")]
    Hub {
        /// The model's id.
        id: String,
        /// The failure and the advice.
        what: String,
    },
    /// A folder that lacks a file that every model has.
    #[error(
        "{}: there is no {file}: the folder of a model has config.json, tokenizer.json, and model.safetensors or model.safetensors.index.json, as save_pretrained of transformers writes them", path.display()
    )]
    NotInFolder {
        /// The folder.
        path: PathBuf,
        /// The file.
        file: &'static str,
    },
    /// A file of a folder with missing or wrong contents.
    #[error("{}: {what}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The fault in the file.
        what: String,
    },
    /// An architecture that is not supported.
    #[error(
        "the model's architecture is {architecture:?}; supported are llama, qwen2, qwen3, gemma, gemma2, gemma3, gemma4, smollm3, granite, olmo2 and phi3"
    )]
    Architecture {
        /// The architecture's name.
        architecture: String,
    },
    /// An architecture that is known and cannot be supported.
    #[error("the model's architecture is {architecture:?}, which is not supported: {reason}")]
    RefusedArchitecture {
        /// The architecture's name.
        architecture: String,
        /// The reason.
        reason: &'static str,
    },
    /// Weights for which the system has no memory.
    #[error("there is no memory for {bytes} bytes of weights")]
    OutOfMemory {
        /// Bytes of the matrix that did not fit.
        bytes: usize,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Threads that the system does not start.
    #[error("the threads that compute cannot be started: let it have more, or use fewer")]
    Threads {
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A feature of the model that the decoder does not have.
    #[error("the model uses {feature}, which is not supported")]
    Unsupported {
        /// The feature.
        feature: String,
    },
    /// A choice of the user that this model or this device cannot have, while another one can.
    #[error("the model uses {choice}, which is not supported")]
    UnsupportedChoice {
        /// The choice.
        choice: String,
        /// The other one.
        hint: Hint,
    },
    /// A program without the decoder for devices.
    #[error(
        "{device}: this program was built without the decoder for devices: build it with `make cuda`"
    )]
    NoDecoder {
        /// The device's name.
        device: String,
    },
    /// A device that cannot be used.
    #[error("{device}: {what}")]
    Device {
        /// The device's name.
        device: String,
        /// The fault of the device.
        what: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: {action}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The action that failed, e.g. `cannot be opened`.
        action: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl LoadError {
    /// Makes the error of weights that cannot be packed.
    pub(crate) fn packing(error: PackError) -> Self {
        match error {
            PackError::OutOfMemory { bytes, source } => Self::OutOfMemory { bytes, source },
            PackError::Int8Inputs { .. } => {
                Self::UnsupportedChoice { choice: error.to_string(), hint: Hint::UseDtype("bf16") }
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

impl Classified for LoadError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownName { .. }
            | Self::NoFile { .. }
            | Self::NotPulled { .. }
            | Self::Gguf { .. }
            | Self::Metadata { .. }
            | Self::NotInFolder { .. }
            | Self::Json { .. }
            | Self::Architecture { .. }
            | Self::RefusedArchitecture { .. }
            | Self::Unsupported { .. }
            | Self::UnsupportedChoice { .. } => ErrorKind::Input,
            Self::OutOfMemory { .. }
            | Self::Threads { .. }
            | Self::NoDecoder { .. }
            | Self::Device { .. }
            | Self::Io { .. } => ErrorKind::Refused,
            Self::Tokenizer { source, .. }
            | Self::OtherTokenizer { source, .. }
            | Self::ChatTemplate { source, .. } => source.kind(),
            Self::Changed { .. }
            | Self::NoHome
            | Self::Download { .. }
            | Self::Checksum { .. }
            | Self::Hub { .. } => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::NotPulled { name, .. } => Some(Hint::PullModel { name: name.clone() }),
            Self::Tokenizer { .. } | Self::OtherTokenizer { .. } => Some(Hint::GiveTokenizer),
            Self::ChatTemplate { .. } => Some(Hint::GiveChatTemplate),
            Self::NoHome => Some(Hint::NameModelFolder),
            Self::OutOfMemory { .. } => Some(Hint::SmallerWeights),
            Self::UnsupportedChoice { hint, .. } => Some(hint.clone()),
            Self::Device { .. } => Some(Hint::UseCpu),
            _ => None,
        }
    }
}
