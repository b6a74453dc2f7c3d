//! Documents that a store had before an input is added to it.

use std::path::Path;

use hyperrag_core::Document;
use hyperrag_retrieval::{Hit, Index};
use hyperrag_store::{LiveRows, Store};

use crate::error::EngineError;
use crate::index::open_fitting;

/// The documents that a store had before an input is added to it.
pub(crate) struct PreviousVersions {
    index: Index,
    live: LiveRows,
}

impl PreviousVersions {
    /// Opens what readers of the store at `root` find, as long as the input is not all in.
    pub(crate) fn open(root: &Path) -> Result<Self, EngineError> {
        let store = Store::open(root)?;
        let index = open_fitting(root, store.manifest())?;
        Ok(Self { index, live: store.manifest().live_rows() })
    }

    /// The former version of a document.
    pub(crate) fn former(&self, document: &Document) -> Result<Option<Hit>, EngineError> {
        Ok(self.index.get(&document.id, |row| self.live.contains(row))?)
    }
}
