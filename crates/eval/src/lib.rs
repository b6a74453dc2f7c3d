//! Numbers about rankings, answers and speed.
//!
//! `metric` is pure: rankings, as TREC run files or as scores of the same candidates, judgements,
//! answers and samples in; out what a ranking or an answer is worth, how far two rankings agree,
//! whether two runs differ. `experiment` takes such numbers with an open store and model, and `report`
//! draws them. It does not know the command line, and prints nothing.

pub mod experiment;
pub mod metric;
pub mod report;

pub use metric::measure::Measure;
pub use metric::qrels::Qrels;
pub use metric::run::Run;
