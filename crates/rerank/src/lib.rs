//! Candidates in, ranks out: which blocks are fetched or recomputed in which batches, their
//! scores, and the order of the documents.
//!
//! In: block keys, and the traits of model and blocks. Out: scores and ranks. It knows neither
//! files nor the search engine nor the model's library.

mod fuse;
mod rank;
mod score;

pub use fuse::Fusion;
pub use rank::{Aggregate, Candidate, Ranked, Ranking};
pub use score::{Damage, OnDamage, Request, RerankError, Scored, Source, Work, score};
