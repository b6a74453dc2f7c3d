//! Documents that a store had before an input is added to it.
//!
//! In: the index of what readers find, and documents of the input. Out: the version of each that the
//! store has. It does not know what becomes of the documents.

use hyperrag_core::{Document, ShardId};
use hyperrag_retrieval::Index;
use hyperrag_store::{LiveRows, Store};

use crate::error::EngineError;
use crate::index::{check_fitting, open_fitting};

/// The documents that a store had before an input is added to it.
pub(crate) struct PreviousVersions {
    index: Index,
    live: LiveRows,
}

/// The version of a document that the store has.
pub(crate) struct PreviousVersion {
    pub(crate) shard: ShardId,
    pub(crate) row: u64,
    /// Whether title and text are those of the input.
    pub(crate) is_unchanged: bool,
}

impl PreviousVersions {
    /// Takes what readers of `store` find, as long as the input is not all in. `index` is the store's,
    /// if it is open already.
    pub(crate) fn of(store: &Store, index: Option<Index>) -> Result<Self, EngineError> {
        let (root, manifest) = (store.root(), store.manifest());
        let index = match index {
            Some(index) => check_fitting(root, manifest, index)?,
            None => open_fitting(root, manifest)?,
        };
        Ok(Self { index, live: manifest.live_rows() })
    }

    /// Returns the version of a document that the store has.
    pub(crate) fn version(
        &self,
        document: &Document,
    ) -> Result<Option<PreviousVersion>, EngineError> {
        let hit = self.index.get(&document.id, |row| self.live.contains(row))?;
        let Some(hit) = hit else { return Ok(None) };
        let (shard, row) = (hit.location.shard, hit.row);
        let is_unchanged = self.index.read_documents(&[hit])?.first() == Some(document);
        Ok(Some(PreviousVersion { shard, row, is_unchanged }))
    }
}
