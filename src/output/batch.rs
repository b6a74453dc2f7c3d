//! Results of a batch of queries, printed as they come: warnings given once, and how the batch ends.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Result, anyhow};
use hyperrag_core::{Failover, Hint, counted};
use hyperrag_engine::EngineError;
use hyperrag_rerank::{DamagedBlock, RerankError};
use indicatif::ProgressBar;
use serde_json::json;

use crate::exit::Status;
use crate::hint;
use crate::input::queries::QueryBatch;
use crate::input::stdin::LineError;
use crate::report;

/// Warnings of a kind that are given; of the others the number is told.
const SAID_MAX: usize = 10;

/// Warnings that were given, each once.
#[derive(Default)]
pub(crate) struct WarnedOnce {
    said: HashSet<String>,
    /// Number of warnings by their kind.
    kinds: BTreeMap<&'static str, usize>,
}

impl WarnedOnce {
    /// Gives the warning, unless it was given before.
    pub(crate) fn once(&mut self, text: &str) {
        if self.said.insert(text.to_owned()) {
            report::warn(text);
        }
    }

    /// Gives the first warnings on queries that have something in common, and counts the others.
    pub(crate) fn few(&mut self, kind: &'static str, text: impl FnOnce() -> String) {
        let count = self.kinds.entry(kind).or_default();
        *count += 1;
        if *count <= SAID_MAX {
            report::warn(&text());
        }
    }

    /// Says by which words the hits of a query were found, where no document has one of its own.
    pub(crate) fn near_words(&mut self, query_id: &str, near_words: &[String]) {
        if near_words.is_empty() {
            return;
        }
        self.few("have hits for near words alone", || {
            let words = near_words.join(", ");
            format!("no document has a word of query {query_id}: hits are for near words: {words}")
        });
    }

    /// Tells how many warnings were not given.
    fn finish(&self) {
        for (kind, count) in self.kinds.iter().filter(|(_, count)| **count > SAID_MAX) {
            report::warn(&format!("{} more queries {kind}", count - SAID_MAX));
        }
    }

    /// Speaks of damages and failovers, and gives the status that a query with them has.
    pub(crate) fn warn(&mut self, damages: &[DamagedBlock], failovers: &[Failover]) -> Status {
        warn_of_damages(damages);
        warn_of_failovers(failovers, &mut self.said);
        if damages.is_empty() { Status::Done } else { Status::Degraded }
    }
}

/// A result that was printed.
pub(crate) struct Shown {
    /// Status that the query has.
    pub(crate) status: Status,
    /// Whether there were documents to rank, or none were asked for.
    pub(crate) found: bool,
}

/// Forms in which a batch is printed.
pub(crate) struct BatchOutput<'a> {
    /// Whether it is the one query of a command line: its failure is the command's.
    pub(crate) single: bool,
    /// Whether a query that fails has a record on stdout, too.
    pub(crate) json: bool,
    /// The bar over the batch.
    pub(crate) bar: &'a ProgressBar,
}

/// A bar over a batch.
pub(crate) fn batch_bar(batch: &QueryBatch) -> ProgressBar {
    report::bar(
        batch.count.filter(|_| !batch.single),
        "{elapsed_precise} {bar:24} {pos}/{len} queries, ETA {eta_precise}",
    )
}

/// Has `show` print each result of a batch of queries, which stands beside the query's id. Returns how the
/// batch ends: with `start`, or degraded. A query that fails is reported and does not end the batch, unless it
/// is the single one. A result that cannot be printed ends it.
///
/// # Errors
/// The words of `nothing`, which gets the number of results, if there are some and none of them found a
/// document.
pub(crate) fn for_each_result<T>(
    start: Status,
    results: impl Iterator<Item = (String, Result<T>)>,
    output: &BatchOutput<'_>,
    mut show: impl FnMut(T, &mut WarnedOnce) -> Result<Shown>,
    nothing: impl FnOnce(usize) -> Option<String>,
) -> Result<Status> {
    let BatchOutput { single, json, bar } = *output;
    let (mut status, mut warned) = (start, WarnedOnce::default());
    let (mut shown, mut found) = (0, 0);
    for (id, result) in results {
        match result {
            Ok(result) => {
                let Shown { status: own, found: any } = show(result, &mut warned)?;
                if own == Status::Degraded {
                    status = Status::Degraded;
                }
                shown += 1;
                found += usize::from(any);
            }
            Err(error) if !single && !is_fatal(&error) => {
                let sentence = hint::sentence(&error);
                report::warn(&sentence);
                if json {
                    let record = json!({"query_id": id, "error": sentence});
                    bar.suspend(|| report::print_data(&record.to_string()))?;
                }
                status = Status::Degraded;
            }
            Err(error) => return Err(error),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    warned.finish();
    let nothing = (shown > 0 && found == 0).then(|| nothing(shown)).flatten();
    nothing.map_or(Ok(status), |what| Err(anyhow!(what)))
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
            | EngineError::QueryTooLong { .. },
        ) => false,
        Some(EngineError::Rerank(error)) => {
            matches!(
                error,
                RerankError::Absent(_) | RerankError::Damaged { .. } | RerankError::Refused { .. }
            )
        }
        Some(_) => true,
        None => matches!(error.downcast_ref::<LineError>(), Some(LineError::Io(_))),
    }
}

/// Speaks of every block that was damaged, and computed again or left out. Blocks with one reason share a
/// sentence.
fn warn_of_damages(damages: &[DamagedBlock]) {
    let mut reasons: BTreeMap<(&str, bool), Vec<&DamagedBlock>> = BTreeMap::new();
    for damage in damages {
        reasons.entry((&damage.what, damage.skipped)).or_default().push(damage);
    }
    for damage in damages {
        // In the order of the blocks.
        let Some(blocks) = reasons.remove(&(&damage.what[..], damage.skipped)) else { continue };
        let done = if damage.skipped { "left out" } else { "computed again" };
        let of = match &blocks[..] {
            [one] => format!("the block of {} was", one.key.chunk),
            all => {
                format!("{}, the first of {}, were", counted(all.len(), "block"), all[0].key.chunk)
            }
        };
        report::warn(&format!("{}; {of} {done}", damage.what));
    }
}

/// Speaks of everything that was read from a replica or another tier, once of each thing in the life of `warned`.
fn warn_of_failovers(failovers: &[Failover], warned: &mut HashSet<String>) {
    for Failover { what, from, tiered } in failovers {
        if warned.insert(what.clone()) {
            let from = from.display();
            match tiered {
                true => report::warn(&format!("{what}; read from {from} instead")),
                false => {
                    let text = format!("{what}; read from the replica {from} instead");
                    report::warn(&hint::with_hint(text, Some(&Hint::Repair)));
                }
            }
        }
    }
}
