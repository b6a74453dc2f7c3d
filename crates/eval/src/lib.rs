//! Numbers about rankings, answers and speed.
//!
//! `metric` is pure: rankings, as TREC run files or as scores of the same candidates, judgements,
//! answers and samples in; out what a ranking or an answer is worth, how far two rankings agree,
//! whether two runs differ. `experiment` takes such numbers with an open store and model, and `report`
//! draws them. It does not know the command line, and prints nothing.
//!
//! ```
//! use hyperrag_eval::metric::evaluate::evaluate;
//! use hyperrag_eval::{Measure, Qrels, Run};
//!
//! let run = Run::parse(&b"q1 Q0 a 1 2.0 x\nq1 Q0 b 2 1.0 x\n"[..], "my.run")?;
//! let qrels = Qrels::parse(&b"q1 0 b 1\n"[..], "qrels")?;
//! let measures = ["RR@10".parse::<Measure>()?];
//! assert_eq!(evaluate(&run, &qrels, &measures).values(&measures[0]), [0.5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod experiment;
pub mod metric;
pub mod report;

pub use metric::measure::Measure;
pub use metric::measure_name::Measures;
pub use metric::qrels::Qrels;
pub use metric::run::Run;
