//! BM25 retrieval with tantivy.
//!
//! In: documents, each with its row in the corpus and its place in the store. Out: hits, ranked by
//! score and then by row. A ranking is a function of the documents alone: neither the number of commits
//! nor the merges of segments change it. Every byte of an index is checked before it is used, and all
//! bytes are checked before documents are added. This crate knows no model, no tokens and no bytes of
//! shards: a [`Location`] is carried, never followed.
//!
//! ```
//! use hyperrag_core::{DocId, Document, ShardId, Slot};
//! use hyperrag_retrieval::{Analyzer, Index, IndexWriter, Location};
//!
//! let folder = tempfile::tempdir().unwrap();
//! let mut writer = IndexWriter::open(folder.path(), Analyzer::ENGLISH).unwrap();
//! let id = DocId::new("d1").unwrap();
//! let document = Document { id, title: String::new(), text: "The heat of a hive".to_owned() };
//! let location = Location { shard: ShardId(0), first_slot: Slot(0), chunks: 1 };
//! writer.add(0, &document, location).unwrap();
//! writer.finish(1).unwrap();
//!
//! let hits = Index::open(folder.path()).unwrap().search("hives", 10, |_| true).unwrap();
//! assert_eq!(hits[0].document.id.as_str(), "d1");
//! ```

mod analyzer;
mod checked;
mod copy;
mod error;
mod files;
mod folder;
#[cfg(test)]
mod in_use;
mod index;
mod kept;
mod open;
mod pages;
mod rank;
mod schema;
mod seal;
mod snapshot;
#[cfg(test)]
mod tests;
mod writer;

use hyperrag_core::{Document, ShardId, Slot};

pub use analyzer::{Analyzer, UnknownLanguage};
pub use copy::copy_index;
pub use error::RetrievalError;
pub use index::Index;
pub use writer::IndexWriter;

/// Place of a document's blocks: all in one shard, one slot after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// Shard that holds the blocks.
    pub shard: ShardId,
    /// Slot of the first chunk.
    pub first_slot: Slot,
    /// Number of chunks.
    pub chunks: u32,
}

/// A document that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The document as it was added.
    pub document: Document,
    /// Row of the document in the corpus.
    pub row: u64,
    /// BM25 score; 0 if the document was not found by a query.
    pub score: f32,
    /// Place of the document's blocks.
    pub location: Location,
}
