//! The index that is searched: the store's own, or a replica's once that is damaged.
//!
//! In: readings of an index. Out: what they give, from the next copy where one fails. Which bytes are
//! damaged is seen when they are read, so a copy may be left for the next in mid-session.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use hyperrag_core::Failover;
use hyperrag_retrieval::{Index, RetrievalError};
use hyperrag_store::{Store, Tiered};

use crate::error::EngineError;
use crate::index::open_fitting;

/// The copies of a store's index, of which one is in use.
pub(crate) struct Retriever<'a> {
    store: &'a Tiered,
    /// The index in use, and of which of the store's copies it is.
    open: RwLock<(usize, Arc<Index>)>,
}

impl<'a> Retriever<'a> {
    /// Opens the first index that can be used: the store's own, or a replica's that is not behind.
    pub(crate) fn open(store: &'a Tiered) -> Result<Self, EngineError> {
        let open = RwLock::new(first_of(store, 0, None)?);
        Ok(Self { store, open })
    }

    /// Documents in the index.
    pub(crate) fn documents(&self) -> u64 {
        self.open.read().unwrap_or_else(PoisonError::into_inner).1.documents()
    }

    /// Documents in the index whose rows are below `end`.
    pub(crate) fn documents_before(&self, end: u64) -> u64 {
        self.open.read().unwrap_or_else(PoisonError::into_inner).1.documents_before(end)
    }

    /// Reads from the index, and from the next one where that fails.
    pub(crate) fn read<T>(
        &self,
        reading: impl Fn(&Index) -> Result<T, RetrievalError>,
    ) -> Result<T, EngineError> {
        let (mut copy, mut index) =
            self.open.read().unwrap_or_else(PoisonError::into_inner).clone();
        loop {
            match reading(&index) {
                Err(error @ (RetrievalError::Damaged { .. } | RetrievalError::Io { .. })) => {
                    (copy, index) = first_of(self.store, copy + 1, Some(error))?;
                    let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
                    *open = (copy, Arc::clone(&index));
                }
                read => return Ok(read?),
            }
        }
    }
}

/// The first index that can be used of the copies from `first` on, in the stead of one that failed;
/// the first failure where there is none.
fn first_of(
    store: &Tiered,
    first: usize,
    mut failure: Option<RetrievalError>,
) -> Result<(usize, Arc<Index>), RetrievalError> {
    for (copy, root) in store.roots().enumerate().skip(first) {
        match (open(store, copy, root), &failure) {
            (Ok(index), None) => return Ok((copy, Arc::new(index))),
            (Ok(index), Some(failure)) => {
                let (what, from) = (failure.to_string(), root.to_owned());
                store.note(Failover { what, from, tiered: false });
                return Ok((copy, Arc::new(index)));
            }
            (Err(error), None) => failure = Some(error),
            (Err(_), Some(_)) => {}
        }
    }
    let path = Path::new(&store.manifest().index_folder()).to_owned();
    Err(failure.unwrap_or(RetrievalError::Missing { path }))
}

/// The index of a copy of the store. It may be ahead of the store; a replica's counts only where that
/// has the same shards, for the rows of another history may be other documents.
fn open(store: &Tiered, copy: usize, root: &Path) -> Result<Index, RetrievalError> {
    let manifest = store.manifest();
    let same = |copy: Store| copy.manifest().shards == manifest.shards;
    if copy > 0 && manifest.complete && !Store::open(root).is_ok_and(same) {
        let what = "it is of a store with other shards".to_owned();
        let path = root.join(manifest.index_folder());
        return Err(RetrievalError::Damaged { path, files: Vec::new(), what });
    }
    open_fitting(root, manifest)
}
