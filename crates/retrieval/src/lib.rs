//! BM25 retrieval with tantivy.
//!
//! In: documents, each with its row in the corpus and its place in the store. Out: hits, ranked by
//! score and then by row, so that a ranking is a function of the documents alone: neither how
//! often was committed nor how segments were merged changes it. No byte of an index is used that was
//! not checked, and all are before it is added to. This crate knows no model, no tokens and nothing of the
//! shards' bytes: a [`Location`] is carried, never followed.

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

use hyperrag_kv::{Document, ShardId, Slot};

pub use analyzer::{Analyzer, UnknownLanguage};
pub use copy::copy_index;
pub use error::RetrievalError;
pub use index::Index;
pub use writer::IndexWriter;

/// Where the blocks of a document are: all in one shard, one slot after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The shard that holds them.
    pub shard: ShardId,
    /// The slot of the first chunk.
    pub first_slot: Slot,
    /// The number of chunks.
    pub chunks: u32,
}

/// A document that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The document, as it was added.
    pub document: Document,
    /// Its row.
    pub row: u64,
    /// Its BM25 score; 0 where it was not found by a query.
    pub score: f32,
    /// Where its blocks are.
    pub location: Location,
}
