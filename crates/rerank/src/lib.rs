//! Reranks candidates: fetches or recomputes their blocks in batches, scores them, and orders the
//! documents.
//!
//! In: block keys, and the traits of model and blocks. Out: scores and ranks. `plan` divides blocks into loaded and
//! computed ones, and `cost` says what storing them costs. The crate knows neither files nor the search engine nor
//! the model's library.
//!
//! ```
//! use hyperrag_core::DocId;
//! use hyperrag_rerank::{Candidate, Ranking};
//!
//! let id = DocId::new("hives").unwrap();
//! let candidate = Candidate { id: &id, chunks: 0..2, retriever_score: 7.5 };
//! let ranked = Ranking::default().rank(&[candidate], &[Some(-2.0), Some(-1.0)]);
//! assert_eq!((ranked[0].score, ranked[0].chunk), (-1.0, 1));
//! ```

pub mod cost;
mod first_contact;
mod fuse;
mod plan;
mod planned;
mod rank;
mod score;

pub use fuse::Fusion;
pub use plan::both_ends::{BothEnds, Step, TierWait};
pub use plan::cost_model::{CostModel, ModelRates, PlannedBlock};
pub use plan::explain::{PlanReason, TierShare};
pub use plan::planner::{PlanWork, Planner};
pub use plan::tier_speed::{Fetched, TierEstimate, TierSpeed};
pub use rank::{Aggregate, Candidate, RankedCandidate, Ranking};
pub use score::{
    BlockSource, DamagedBlock, OnDamage, RerankError, ScoreRequest, ScoredBlocks, Work, score,
};
