//! Documents that were found, and where their blocks are. Nothing is done here.

use hyperrag_core::{DocId, ShardId, Slot};

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

/// A document that was found. [`Index::read_documents`](crate::index::Index::read_documents) reads its title and text.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Id of the document.
    pub id: DocId,
    /// Row of the document in the corpus.
    pub row: u64,
    /// BM25 score; 0 if the document was not found by a query.
    pub score: f32,
    /// Place of the document's blocks.
    pub location: Location,
}

/// Documents that a query found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retrieved {
    /// The documents, best first.
    pub hits: Vec<Hit>,
    /// Words of the index that the documents were found by, where none has a word of the query; else empty.
    pub near_words: Vec<String>,
}
