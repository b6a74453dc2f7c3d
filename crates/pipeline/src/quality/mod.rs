//! What smaller element types and other arithmetic cost in quality: judged queries, their candidates
//! scored by several models, and what each ranking is worth.

mod cost;
mod pass;
mod pool;
mod report;

pub use cost::{Cost, CostPoint, cost_points, knee};
pub use pass::{PairScores, QualityInput, Recomputed, Rounding, score_variants};
pub use pool::{PooledQuery, draw_queries, listed_candidates, retrieve_candidates};
pub use report::{Agreements, Estimate, How, QualityRow, quality_rows, scored_queries};
