//! Notes on the state of a store: an unfinished build, replicas that are behind.

use std::path::Path;

use hyperrag_engine::open::OpenSession;
use hyperrag_store::{Store, Tiered, replica_states, replicas};

use crate::exit::Status;
use crate::report;

/// Says how much of an unfinished build is searched, and how a command ends that has done all that it
/// could with `store`.
pub(crate) fn status_with(store: &Tiered, session: &OpenSession<'_>) -> Status {
    let unindexed = session.unindexed_documents();
    if !store.manifest().complete {
        let documents = store.manifest().documents();
        report::warn(&format!(
            "the build is not finished: {} of the {documents} documents stored so far are in the index, \
             and only these are searched; run the same build again to go on",
            documents - unindexed
        ));
    }
    match store.doubt().is_some() || unindexed > 0 {
        true => Status::Degraded,
        false => Status::Done,
    }
}

/// Names the replicas that a change of the store at `root` has left behind.
pub(crate) fn note_replicas_behind(root: &Path) {
    if replicas(root).is_ok_and(|listed| listed.is_empty()) {
        return;
    }
    let Ok(store) = Store::open(root) else { return };
    for replica in replica_states(root, store.manifest()).unwrap_or_default() {
        if replica.is_behind() {
            let (root, path) = (root.display(), replica.path.display());
            report::note(&format!(
                "{path}: the replica is behind; bring it up to date with \
                 `hyperrag replicate --store {root} --to {path}`"
            ));
        }
    }
}
