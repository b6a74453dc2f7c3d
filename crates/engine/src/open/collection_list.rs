//! The list of stores of a collection: a path comes in, the list goes out, or why it cannot be used. It opens no
//! store.

use std::io;
use std::path::{Path, PathBuf};

use hyperrag_core::{Classified, ErrorKind};
use hyperrag_store::{COLLECTION, COLLECTION_BYTES_MAX, Collection, CollectionFault, Store};

/// Tells why a list of stores cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoCollection {
    /// A file that cannot be read.
    #[error("{}: the list of stores cannot be read", path.display())]
    Unreadable {
        /// The list.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A file that is no list of stores.
    #[error("{}: not a usable list of stores", path.display())]
    Unusable {
        /// The list.
        path: PathBuf,
        /// Cause.
        #[source]
        source: CollectionFault,
    },
}

impl Classified for NoCollection {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Input
    }
}

/// Returns the list that a path names as a store: a file whose name ends with `.json`, or the list in a folder
/// that is no store.
#[must_use]
pub fn collection_at(store: &Path) -> Option<PathBuf> {
    let inside = store.join(COLLECTION);
    match store.extension() {
        Some(end) if end == "json" && store.is_file() => Some(store.to_owned()),
        _ if inside.is_file() && !Store::exists(store) => Some(inside),
        _ => None,
    }
}

/// Reads the list at `path`.
pub(crate) fn read_list(path: &Path) -> Result<Collection, NoCollection> {
    let text = hyperrag_files::open(path)
        .and_then(|file| crate::text::read(file, COLLECTION_BYTES_MAX))
        .map_err(|source| NoCollection::Unreadable { path: path.to_owned(), source })?;
    Collection::parse(&text)
        .map_err(|source| NoCollection::Unusable { path: path.to_owned(), source })
}
