//! Errors of models and of reading blocks: causes come in, sentences go out.

use std::io::{self, ErrorKind};

use crate::block::kv_shape::KvShape;

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
    #[error(
        "{what} gave a value that is not a number; on a GPU, try --dtype bf16, whose range is larger"
    )]
    NotANumber {
        /// Chunk or candidate.
        what: String,
    },
    /// The tokenizer failed.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
    /// The memory of the device cannot hold a single sequence.
    #[error(
        "the device has too little memory for one sequence of {rows} rows: free some, or use --device cpu"
    )]
    OutOfMemory {
        /// Rows of the sequence.
        rows: usize,
    },
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
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

/// Whether the system refuses to open or read a file for a reason that says nothing about its bytes: missing
/// rights, or no descriptors or memory left.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::OutOfMemory)
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
