//! Types that every other crate shares: documents, chunks, blocks, their keys and sizes, the prompt
//! profile, the fingerprint, and the traits between the crates.
//!
//! In: plain values. Out: plain values. It does no I/O, and knows neither the model's library, nor
//! the store's files, nor the search engine.
//!
//! ```
//! use hyperrag_core::{DocId, InvalidId};
//!
//! assert_eq!(DocId::new("MED-10").unwrap().as_str(), "MED-10");
//! assert_eq!(DocId::new(""), Err(InvalidId::Empty));
//! ```

mod block;
mod counted;
mod document;
mod error;
mod fingerprint;
mod generate;
mod guard;
mod hint;
mod model;
mod prompt;
mod range_read;
mod rank_order;
mod tier;

pub use block::calibration::{CALIBRATION_CHUNKS, Calibration, FixedPositions, InvalidCalibration};
pub use block::kv_block::KvBlock;
pub use block::kv_dtype::{KvDtype, UnknownKvDtype};
pub use block::kv_shape::KvShape;
pub use block::layer_source::{Failover, LayerSource, Presence};
pub use counted::{agreeing, counted};
pub use document::{
    BlockKey, Chunk, ChunkId, DocId, Document, DocumentField, ID_BYTES_MAX, InvalidId, ShardId,
    Slot, check_id,
};
pub use error::{BlockError, BoxedError, Classified, ErrorKind, ModelError, is_refusal, sentence};
pub use fingerprint::{
    Coverage, Digest, Fingerprint, Mismatch, Reproducibility, SCORE_TOLERANCE_MEAN_LOGPROB,
};
pub use generate::{Generate, Generation, Sampling, Stop, Turn};
pub use guard::{CaughtPanic, guarded, is_guarded, panic_text};
pub use hint::{Hint, NotedPart, Warning};
pub use model::{BlockRead, ChunkRead, LanguageModel, Opened, Tokenize};
pub use prompt::profile::{
    Profile, ProfileError, QueryTemplate, QueryTokens, ScorerSpec, TITLE_TOKENS_MAX,
};
pub use prompt::query::{Pair, QuerySuffix, Scorer};
pub use range_read::{FileVersion, FolderEntry, RangeError, RangePlace, RangeRead};
pub use rank_order::rank_order;
pub use tier::{
    Answer, Blob, BlobKey, FactValue, Fetch, FetchSink, FileTier, Piece, Swapped, Tier, TierError,
    TierFact, TierRole, TierShape, WriteWaits,
};
