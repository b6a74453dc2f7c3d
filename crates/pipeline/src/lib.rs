//! The stages joined: `build` takes a corpus to a store, `Session` a query to ranked hits,
//! `Session::generate_answer` goes on to an answer, `bench` compares reuse with recompute, `quality`
//! the rankings of several element types.
//!
//! In: an open corpus, model and store. Out: a store, answers, measurements. It does not know the
//! command line, and prints nothing.

mod answer;
mod asked;
mod bench;
mod bench_device;
mod budget;
mod build;
mod compact;
mod delete;
mod dry_run;
mod error;
mod existing;
mod memory;
mod progress;
mod quality;
mod query_first;
mod recompute;
mod repair;
mod replicate;
mod retriever;
mod room;
mod session;
mod threads;
mod tune;
mod units;
mod upgrade;
mod verify;

pub use answer::{AnswerSettings, AnswerStats, GeneratedAnswer, Passage, PassageOrder};
pub use asked::Asked;
pub use bench::{BenchReport, BenchSettings, Comparison, Mode, Sample, Workload, bench, workload};
pub use bench_device::{DeviceBenchSettings, DeviceFigures, bench_device};
pub use budget::{Memory, TooLittleMemory};
pub use build::{Add, BuildInput, BuildSummary, build, calibration_chunks};
pub use compact::{Compaction, compact};
pub use delete::{Deletion, delete};
pub use dry_run::{DryRun, dry_run};
pub use error::PipelineError;
pub use memory::peak_memory_bytes;
pub use progress::{BuildProgress, Counts};
pub use quality::{
    Agreements, Cost, CostPoint, Estimate, How, PairScores, PooledQuery, QualityInput, QualityRow,
    Recomputed, Rounding, cost_points, draw_queries, knee, listed_candidates, quality_rows,
    retrieve_candidates, score_variants, scored_queries,
};
pub use recompute::{Recomputation, Selection, recompute};
pub use repair::{Mend, Recompute, RepairReport, RepairSettings, repair};
pub use replicate::{Replication, replicate};
pub use session::{Answer, AnsweredHit, Query, Session, Stats, query_part};
pub use threads::start_threads;
pub use tune::{Fold, ScoredQuery, Tuning, USUAL_WEIGHT, tune};
pub use upgrade::{Upgrade, upgrade};
pub use verify::{ByteProgress, VerifiedReplica, VerifyReport, VerifySettings, verify};
