//! Numbers about rankings.
//!
//! In: rankings, as TREC run files or as scores of the same candidates, and samples. Out: how far
//! two rankings agree, and what a row of samples amounts to. It opens no file, and knows neither
//! model nor store.

mod agreement;
mod run;
mod stats;

pub use agreement::{Agreement, agreement};
pub use run::{Run, RunError, RunHit, run_line};
pub use stats::Summary;
