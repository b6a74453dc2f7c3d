//! Types that every other crate shares: documents, chunks, blocks, their keys and sizes, the prompt
//! profile, the fingerprint, and the traits between the crates.
//!
//! In: plain values. Out: plain values. It does no I/O, and knows neither the model's library, nor
//! the store's files, nor the search engine.
//!
//! ```
//! use hyperrag_kv::{DocId, InvalidId};
//!
//! assert_eq!(DocId::new("MED-10").unwrap().as_str(), "MED-10");
//! assert_eq!(DocId::new(""), Err(InvalidId::Empty));
//! ```

mod block;
mod calibration;
mod document;
mod element;
mod fingerprint;
mod generate;
mod geometry;
mod guard;
mod layers;
mod ports;
mod profile;
mod query;

pub use block::KvBlock;
pub use calibration::{CALIBRATION_CHUNKS, Calibration, FixedPositions, InvalidCalibration};
pub use document::{
    BlockKey, Chunk, ChunkId, DocId, Document, ID_BYTES_MAX, InvalidId, ShardId, Slot,
};
pub use element::{Element, UnknownElement};
pub use fingerprint::{Coverage, Digest, Exactness, Fingerprint, Mismatch, SCORE_TOLERANCE};
pub use generate::{Generate, Generation, Sampling, Stop, Turn};
pub use geometry::Geometry;
pub use guard::{CaughtPanic, guarded, is_guarded, panic_text};
pub use layers::{Failover, KvLayers};
pub use ports::{
    BlockError, BlockRead, ChunkRead, LanguageModel, ModelError, Opened, Tokenize, is_refusal,
};
pub use profile::{Profile, ProfileError, QueryTemplate, ScorerWords, TITLE_TOKENS_MAX};
pub use query::{Pair, QueryPart, Scorer};
