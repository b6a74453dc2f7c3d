//! Errors of models and of reading blocks, and what every error of the workspace tells: its kind, its remedy,
//! and a sentence with its causes. Knows no exit code and no flag.

use std::error::Error;
use std::fmt;
use std::io;

use crate::block::kv_shape::KvShape;
use crate::hint::Hint;

/// Class of an error: what the caller must do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Correct the request or the settings: they make no sense together.
    Usage,
    /// Correct the input: a file, a document, a query or a model that cannot be used.
    Input,
    /// Have the system give what it refused: rights, memory, threads, room on the disk.
    Refused,
    /// Wait until another process has finished.
    Busy,
    /// Repair the store.
    Damaged,
    /// Use the model and the program that made the store.
    Mismatch,
    /// Do nothing: a signal asked to stop.
    Interrupted,
    /// Read the message: no other class says more.
    Failed,
}

/// An error that tells its kind and, where there is one, a remedy that its message leaves to the program.
pub trait Classified: Error {
    /// Returns the class of the error.
    fn kind(&self) -> ErrorKind;

    /// Returns the remedy.
    fn hint(&self) -> Option<Hint> {
        None
    }
}

/// An error of a crate that the caller does not know, with its kind and its remedy.
#[derive(Debug)]
pub struct BoxedError(Box<dyn Classified + Send + Sync>);

impl BoxedError {
    /// Boxes an error.
    #[must_use]
    pub fn new(error: impl Classified + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for BoxedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for BoxedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl Classified for BoxedError {
    fn kind(&self) -> ErrorKind {
        self.0.kind()
    }

    fn hint(&self) -> Option<Hint> {
        self.0.hint()
    }
}

/// Joins an error and its causes to one sentence.
#[must_use]
pub fn sentence(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let mut said = String::new();
    for cause in causes.map(ToString::to_string) {
        // Transparent errors repeat their cause.
        if !said.ends_with(&cause) {
            said = if said.is_empty() { cause } else { format!("{said}: {cause}") };
        }
    }
    said
}

/// Reason why a model did not compute.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A chunk or query without tokens.
    #[error("{what} has no tokens")]
    Empty {
        /// Chunk or query.
        what: String,
    },
    /// A chunk or query with more positions than the model was trained for.
    #[error("{what} needs {tokens} positions, the model has {max}")]
    TooLong {
        /// Chunk or query.
        what: String,
        /// Positions needed.
        tokens: usize,
        /// Positions that the model has.
        max: usize,
    },
    /// A token id outside the vocabulary.
    #[error("{what} has token {token}, the vocabulary ends at {vocabulary}")]
    UnknownToken {
        /// Chunk or query.
        what: String,
        /// The token id.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// A block made by another model or with another element type.
    #[error("the block's sizes {block:?} are not the model's {model:?}")]
    KvShape {
        /// Sizes of the block.
        block: Box<KvShape>,
        /// Sizes of the model.
        model: Box<KvShape>,
    },
    /// A score or a state that is not a number, because the block or the weights hold such values.
    #[error("{what} gave a value that is not a number")]
    NotANumber {
        /// Chunk or candidate.
        what: String,
    },
    /// The tokenizer failed.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
    /// The memory of the device cannot hold a single sequence.
    #[error("the device has too little memory for one sequence of {rows} rows")]
    OutOfMemory {
        /// Rows of the sequence.
        rows: usize,
    },
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
    /// A computation that only the CPU does.
    #[error("{what} is not done on a GPU")]
    OnCpuOnly {
        /// The computation.
        what: &'static str,
    },
}

impl Classified for ModelError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty { .. } | Self::TooLong { .. } | Self::UnknownToken { .. } => {
                ErrorKind::Input
            }
            Self::OutOfMemory { .. } => ErrorKind::Refused,
            // The store and its model are compared elsewhere: here a caller mixed up blocks.
            Self::KvShape { .. }
            | Self::NotANumber { .. }
            | Self::Tokenizer(_)
            | Self::Device(_)
            | Self::OnCpuOnly { .. } => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::TooLong { .. } => Some(Hint::ShorterQuery),
            Self::NotANumber { .. } => Some(Hint::WiderDtype),
            Self::OutOfMemory { .. } => Some(Hint::FreeDeviceMemory),
            Self::OnCpuOnly { .. } => Some(Hint::UseCpu),
            _ => None,
        }
    }
}

/// Reason why a block was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The bytes are not those written, or belong to another chunk.
    #[error("{place}: {what}")]
    Damaged {
        /// File and slot.
        place: String,
        /// Fault found.
        what: String,
    },
    /// The place cannot be reached.
    #[error("{place}: cannot be read")]
    Io {
        /// File or address.
        place: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl BlockError {
    /// Whether the system refuses the read (see [`is_refusal`]), which is no damage.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_refusal(source))
    }
}

impl Classified for BlockError {
    fn kind(&self) -> ErrorKind {
        if self.is_refusal() { ErrorKind::Refused } else { ErrorKind::Damaged }
    }
}

/// Whether the system refuses to open or read a file for a reason that says nothing about its bytes: missing
/// rights, or no descriptors or memory left.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::OutOfMemory)
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
