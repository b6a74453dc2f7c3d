//! Faults of a file's bytes before their place is known. A caller who knows the place turns a fault into an
//! error or a [`crate::damage::Damage`].

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

use hyperrag_core::{BlockError, is_refusal};

use crate::error::StoreError;

/// Reason why a file's bytes cannot be used.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The file does not exist.
    Missing,
    /// The bytes are not those written.
    Damaged(String),
    /// The system cannot read the file.
    Io(io::Error),
}

impl ReadError {
    /// Whether the system refuses the file for a reason that says nothing about its bytes.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Io(error) if is_refusal(error))
    }

    pub(crate) fn at_block(self, place: String) -> BlockError {
        match self {
            Self::Io(source) => BlockError::Io { place, source },
            damaged => BlockError::Damaged { place, what: damaged.to_string() },
        }
    }

    pub(crate) fn of_file(self, path: &Path) -> StoreError {
        match self {
            Self::Io(source) => StoreError::io(path, "cannot be read")(source),
            damaged => StoreError::damaged(path, damaged.to_string()),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the file is missing"),
            Self::Damaged(what) => f.write_str(what),
            Self::Io(source) => write!(f, "it cannot be read ({source})"),
        }
    }
}

impl From<String> for ReadError {
    fn from(what: String) -> Self {
        Self::Damaged(what)
    }
}

impl From<ErrorKind> for ReadError {
    fn from(kind: ErrorKind) -> Self {
        io::Error::from(kind).into()
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Missing,
            ErrorKind::UnexpectedEof => Self::Damaged("the file is cut short".to_owned()),
            _ => Self::Io(error),
        }
    }
}
