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
    /// Two folders of a list that are one store.
    #[error("{}: {} and {} are one store", path.display(), first.display(), second.display())]
    Twice {
        /// The list.
        path: PathBuf,
        /// Folder of the store.
        first: PathBuf,
        /// The other name of the folder.
        second: PathBuf,
    },
    /// A list in a list.
    #[error("{}: {} is a list of stores, and a list names stores alone", path.display(), inner.display())]
    Nested {
        /// The list.
        path: PathBuf,
        /// The list that it names.
        inner: PathBuf,
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

/// Returns the folders of the stores of the list at `path`, each once.
pub(crate) fn folders(path: &Path) -> Result<Vec<PathBuf>, NoCollection> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let list = read_list(path)?;
    let folders: Vec<PathBuf> = list.stores.iter().map(|store| folder.join(store)).collect();
    let mut seen: Vec<PathBuf> = Vec::new();
    for second in &folders {
        if let Some(inner) = collection_at(second) {
            return Err(NoCollection::Nested { path: path.to_owned(), inner });
        }
        // What is not there is named by whoever opens it.
        let known = second.canonicalize().unwrap_or_else(|_| second.clone());
        if let Some(at) = seen.iter().position(|other| *other == known) {
            let (path, first) = (path.to_owned(), folders[at].clone());
            return Err(NoCollection::Twice { path, first, second: second.clone() });
        }
        seen.push(known);
    }
    Ok(folders)
}

/// Reads the list at `path`.
fn read_list(path: &Path) -> Result<Collection, NoCollection> {
    let text = hyperrag_files::open(path)
        .and_then(|file| crate::text::read(file, COLLECTION_BYTES_MAX))
        .map_err(|source| NoCollection::Unreadable { path: path.to_owned(), source })?;
    Collection::parse(&text)
        .map_err(|source| NoCollection::Unusable { path: path.to_owned(), source })
}
