//! Numbers about rankings and answers.
//!
//! In: rankings, as TREC run files or as scores of the same candidates, judgements, answers, and
//! samples. Out: what a ranking or an answer is worth, how far two rankings agree, whether two runs
//! differ, and what a row of samples amounts to. It opens no file, and knows neither model nor store.

mod agreement;
mod chart;
mod evaluate;
mod measure;
mod qa;
mod qrels;
mod run;
mod significance;
mod stats;
mod svg;

pub use agreement::{Agreement, agreement};
pub use chart::{Panel, Point, panels_svg};
pub use evaluate::{Evaluation, Metric, evaluate};
pub use measure::{Measure, UnknownMeasure};
pub use qa::{exact_match, f1, normalize_answer};
pub use qrels::{Qrels, QrelsError};
pub use run::{Run, RunError, RunHit, run_id, run_line};
pub use significance::{PairedDifference, paired_difference};
pub use stats::Summary;
pub use svg::gains_svg;
