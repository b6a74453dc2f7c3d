//! Reads the documents to be retrieved and reranked from files, and cuts them to the model's length.
//!
//! In: paths of Parquet, JSON, TSV and CSV files, files outside this machine behind
//! [`hyperrag_core::RangePlace`], and a tokenizer behind [`hyperrag_core::Tokenize`].
//! Out: documents one after the other ([`Corpus::rows`]), then the chunks of each
//! ([`Chunker::chunks`]). It streams: besides the current row and a batch of Parquet rows, both
//! bounded in bytes ([`Limits`]), it keeps at most 24 bytes a document, to find duplicate ids
//! ([`IdSet`]). It knows neither model, nor store, nor search index.
//!
//! ```
//! use hyperrag_corpus::{Columns, Corpus};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("corpus.jsonl");
//! std::fs::write(&path, r#"{"_id": "a", "text": "one"}"#)?;
//! let corpus = Corpus::open(&[path.display().to_string()], Columns::default())?;
//! for row in corpus.rows() {
//!     assert_eq!(row?.document.text, "one");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod array;
mod bad_rows;
mod chunk;
mod columns;
mod corpus;
mod delta;
mod error;
mod format;
mod ids;
mod input;
mod json;
mod lenient;
mod limits;
mod lines;
mod objects;
mod options;
mod pages;
mod parquet;
mod pattern;
mod place;
mod quoted;
mod ranges;
mod row;
mod source;
mod table;
mod taken;
#[cfg(test)]
mod testing;

pub use bad_rows::BadRows;
pub use chunk::{ChunkError, Chunker, TEXT_TOKENS_MIN};
pub use columns::{Columns, RowKind, usual_names};
pub use corpus::{Corpus, CorpusSize, Rows};
pub use error::CorpusError;
pub use format::{Format, Quoting};
pub use ids::IdSet;
pub use limits::Limits;
pub use objects::JsonObjects;
pub use options::ReadOptions;
pub use place::Place;
pub use row::Row;
pub use taken::{ColumnsTaken, FileColumns};
