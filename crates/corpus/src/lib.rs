//! The corpus: what is to be retrieved and reranked, read from files and cut to the model's length.
//!
//! In: paths of Parquet, JSONL and TSV files, and a tokenizer behind [`hyperrag_kv::Tokenize`].
//! Out: documents one after the other ([`Corpus::rows`]), then the chunks of each
//! ([`Chunker::chunks`]). It streams: beside the row at hand and a batch of Parquet rows, both
//! bounded in bytes ([`Limits`]), it keeps at most 24 bytes a document, to find ids that occur twice
//! ([`IdSet`]). It knows neither model, nor store, nor search index.

mod chunk;
mod columns;
mod corpus;
mod delta;
mod error;
mod ids;
mod input;
mod jsonl;
mod limits;
mod lines;
mod pages;
mod parquet;
mod place;
#[cfg(test)]
mod testing;
mod tsv;

pub use chunk::{ChunkError, Chunker, TEXT_TOKENS_MIN};
pub use columns::{Column, Columns};
pub use corpus::{Corpus, CorpusSize, Row, Rows};
pub use error::CorpusError;
pub use ids::IdSet;
pub use limits::Limits;
pub use place::Place;
