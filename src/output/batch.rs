//! Results of a batch of queries, printed as they come: warnings given once, and how the batch ends.

use std::collections::HashSet;

use anyhow::Result;
use hyperrag_core::{Failover, Hint};
use hyperrag_engine::EngineError;
use hyperrag_rerank::{DamagedBlock, RerankError};
use indicatif::ProgressBar;

use crate::exit::Status;
use crate::hint;
use crate::input::queries::QueryBatch;
use crate::report;

/// Warnings that were given, each once.
#[derive(Default)]
pub(crate) struct WarnedOnce(HashSet<String>);

impl WarnedOnce {
    /// Gives the warning, unless it was given before.
    pub(crate) fn once(&mut self, text: &str) {
        if self.0.insert(text.to_owned()) {
            report::warn(text);
        }
    }

    /// Speaks of damages and failovers, and gives the status that a query with them has.
    pub(crate) fn warn(&mut self, damages: &[DamagedBlock], failovers: &[Failover]) -> Status {
        warn_of_damages(damages);
        warn_of_failovers(failovers, &mut self.0);
        if damages.is_empty() { Status::Done } else { Status::Degraded }
    }
}

/// A bar over a batch.
pub(crate) fn batch_bar(batch: &QueryBatch) -> ProgressBar {
    report::bar(
        batch.count.filter(|_| !batch.single),
        "{elapsed_precise} {bar:24} {pos}/{len} queries, ETA {eta_precise}",
    )
}

/// Has `show` print each result of a batch of queries. Returns how the batch ends: with `start`, or
/// degraded. A query that fails is reported and does not end the batch, unless it is the `single` one. A
/// result that cannot be printed ends it.
pub(crate) fn for_each_result<T>(
    start: Status,
    results: impl Iterator<Item = Result<T>>,
    single: bool,
    bar: &ProgressBar,
    mut show: impl FnMut(T, &mut WarnedOnce) -> Result<Status>,
) -> Result<Status> {
    let (mut status, mut warned) = (start, WarnedOnce::default());
    for result in results {
        match result {
            Ok(result) => {
                if show(result, &mut warned)? == Status::Degraded {
                    status = Status::Degraded;
                }
            }
            Err(error) if !single && !is_fatal(&error) => {
                report::warn(&hint::sentence(&error));
                status = Status::Degraded;
            }
            Err(error) => return Err(error),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(status)
}

/// Whether an error is the store's or the program's rather than the query's.
fn is_fatal(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<EngineError>() {
        Some(
            EngineError::Model(_)
            | EngineError::EmptyQuery
            | EngineError::PromptTooLong { .. }
            // Another query may not need the damaged bytes.
            | EngineError::Index(_)
            | EngineError::UnknownDocument { .. }
            | EngineError::ScoreRange { .. },
        ) => false,
        Some(EngineError::Rerank(error)) => {
            matches!(
                error,
                RerankError::Absent(_) | RerankError::Damaged { .. } | RerankError::Refused { .. }
            )
        }
        Some(_) => true,
        None => false,
    }
}

/// Speaks of every block that was damaged, and computed again or left out.
fn warn_of_damages(damages: &[DamagedBlock]) {
    for damage in damages {
        report::warn(&format!(
            "{}; the block of {} was {}",
            damage.what,
            damage.key.chunk,
            if damage.skipped { "left out" } else { "computed again" }
        ));
    }
}

/// Speaks of everything that was read from a replica, once of each thing in the life of `warned`.
fn warn_of_failovers(failovers: &[Failover], warned: &mut HashSet<String>) {
    for Failover { what, from } in failovers {
        if warned.insert(what.clone()) {
            let from = from.display();
            let text = format!("{what}; read from the replica {from} instead");
            report::warn(&hint::with_hint(text, Some(&Hint::Repair)));
        }
    }
}
