//! Deletes documents by their ids: one new manifest, no shard is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hyperrag_core::{DocId, ShardId};
use hyperrag_store::{StoreWriter, Tombstones};
use serde::Serialize;

use crate::error::EngineError;
use crate::index::open_fitting;

/// Report of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Deletion {
    /// Documents that count no longer.
    pub deleted: u64,
    /// Ids that the store does not have.
    pub unknown: Vec<String>,
    /// Documents left.
    pub documents: u64,
}

/// Lets the documents of these ids count no longer: all of them at once, for whoever opens the store
/// from now on. Blanks around an id count only if the store has a document of that id, which those have that
/// were built before ids were without blanks. Ids of blanks alone that the store does not have are passed over.
///
/// # Errors
/// [`EngineError`] where the store is unfinished, damaged, or being written.
pub fn delete<'a>(
    root: &Path,
    ids: impl IntoIterator<Item = &'a str>,
) -> Result<Deletion, EngineError> {
    let mut store = StoreWriter::open_complete(root)?;
    let index = open_fitting(root, store.manifest())?;
    let live = store.manifest().live_rows();
    let mut done = Deletion::default();
    let mut rows: BTreeMap<ShardId, BTreeSet<u64>> = BTreeMap::new();
    for id in ids {
        let find = |id: &str| match DocId::stored(id) {
            Ok(id) => index.get(&id, |row| live.contains(row)),
            Err(_) => Ok(None),
        };
        let trimmed = id.trim();
        let found = match find(id)? {
            None if trimmed != id => find(trimmed)?,
            found => found,
        };
        match found {
            Some(hit) => {
                done.deleted +=
                    u64::from(rows.entry(hit.location.shard).or_default().insert(hit.row))
            }
            None if trimmed.is_empty() => {}
            None => done.unknown.push(trimmed.to_owned()),
        }
    }
    let dead: Vec<Tombstones> = rows
        .into_iter()
        .map(|(shard, rows)| Tombstones { shard, rows: rows.into_iter().collect() })
        .collect();
    if !dead.is_empty() {
        store.delete(&dead)?;
    }
    done.documents = store.manifest().documents() - store.manifest().deleted_documents();
    Ok(done)
}
