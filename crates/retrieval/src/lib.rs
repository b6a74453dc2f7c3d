//! BM25 retrieval with tantivy.
//!
//! In: documents, each with its row in the corpus and its place in the store. Out: hits, ranked by
//! score and then by row, and the documents of those that are named. A ranking is a function of the
//! documents alone: neither the number of commits nor the merges of segments change it. Every byte of an
//! index is checked before it is used, and all bytes are checked before documents are added. This crate
//! knows no model, no tokens and no bytes of shards: a [`Location`] is carried, never followed.
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
//! let index = Index::open(folder.path()).unwrap();
//! let hits = index.search("hives", 10, |_| true).unwrap();
//! assert_eq!((hits[0].id.as_str(), hits[0].location), ("d1", location));
//! assert_eq!(index.read_documents(&hits).unwrap()[0].text, "The heat of a hive");
//! ```

mod analyzer;
mod checked;
mod compounds;
mod copy;
mod detect;
mod error;
mod files;
mod folder;
mod hit;
#[cfg(test)]
mod in_use;
mod index;
mod kept;
#[cfg(test)]
mod languages;
#[cfg(test)]
mod layouts;
mod names;
mod near;
mod open;
mod pages;
mod rank;
mod schema;
mod scripts;
mod seal;
mod segment;
mod snapshot;
#[cfg(test)]
mod tests;
mod word_counts;
mod words;
mod writer;

pub use analyzer::{Analyzer, UnknownLanguage};
pub use copy::copy_index;
pub use detect::detect_language;
pub use error::RetrievalError;
pub use hit::{Hit, Location, Retrieved};
pub use index::Index;
pub use open::recorded_analyzer;
pub use word_counts::WordCounts;
pub use writer::IndexWriter;
