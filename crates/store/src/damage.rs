//! Damage of a store's files, as it is reported. In: an error of reading. Out: the damaged place.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::StoreError;
use crate::format::paths::FileKind;

/// A place whose bytes are not those written, or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// File, relative to the store's folder.
    pub file: PathBuf,
    /// Shard of the file, if it belongs to one.
    pub shard: Option<u32>,
    /// Slot of the block, if only a block is damaged.
    pub slot: Option<u32>,
    /// Fault found.
    pub what: String,
}

impl Damage {
    /// Kind of the file.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        FileKind::of(&self.file)
    }

    /// Makes the damage from the error of reading a file.
    #[must_use]
    pub fn from_error(root: &Path, error: &StoreError) -> Self {
        let (path, what) = match error {
            StoreError::Damaged { path, what } => (path.as_path(), what.clone()),
            StoreError::Io { path, action, source } => {
                (path.as_path(), format!("{action} ({source})"))
            }
            other => (root, other.to_string()),
        };
        let file = path.strip_prefix(root).unwrap_or(path).to_owned();
        Self { file, shard: None, slot: None, what }
    }
}
