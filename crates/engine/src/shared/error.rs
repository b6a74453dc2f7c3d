//! Errors of stores that several machines share: places and causes come in, messages and kinds go out. It names no
//! flag.

use std::io;
use std::path::{Path, PathBuf};

use hyperrag_core::{Classified, ErrorKind, Hint, TierError};
use hyperrag_store::StoreError;
use hyperrag_tiers::SpecError;

use crate::open::tiers::TierOpenError;

/// Reason why a store was not sent to a place or not read from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// A text that names no place.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A tier that cannot hold a store.
    #[error(
        "{tier}: no place of a store: name s3://, redis://, rediss://, file:///FOLDER or a folder"
    )]
    NoPlace {
        /// The tier, without secrets.
        tier: String,
    },
    /// Settings with which the place cannot be opened.
    #[error(transparent)]
    Opening(#[from] TierOpenError),
    /// The place does not give or take what is asked of it.
    #[error("{place}: {source}")]
    Place {
        /// Name of the place.
        place: String,
        /// Cause.
        source: TierError,
    },
    /// Nothing was exported to the place.
    #[error("{place}: no store was exported to this place")]
    Nothing {
        /// Name of the place.
        place: String,
    },
    /// The place has other bytes than were sent there.
    #[error("{place}: {what}")]
    Damaged {
        /// Name of the place.
        place: String,
        /// Object and fault.
        what: String,
    },
    /// The place has a store that the export would take back or replace.
    #[error("{place}: {what}")]
    Newer {
        /// Name of the place.
        place: String,
        /// Sentence with both generations.
        what: String,
    },
    /// Another process was faster.
    #[error("{place}: another process exports to it at the same time")]
    Raced {
        /// Name of the place.
        place: String,
    },
    /// A file on this machine.
    #[error("{}: {action}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Action that failed.
        action: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// There is no room for the files.
    #[error("{}: {free} bytes are free and the files of the store take {needed}", path.display())]
    NoRoom {
        /// Folder that they go to.
        path: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ShareError {
    /// Returns a function that turns an I/O error on `path` into an error.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, action, source }
    }
}

impl Classified for ShareError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Spec(error) => error.kind(),
            Self::NoPlace { .. } => ErrorKind::Usage,
            Self::Opening(error) => error.kind(),
            Self::Place { source, .. } => source.kind(),
            Self::Nothing { .. } | Self::Newer { .. } => ErrorKind::Input,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Raced { .. } => ErrorKind::Busy,
            Self::File { .. } | Self::NoRoom { .. } => ErrorKind::Refused,
            Self::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }
}
