//! A build's counters in, a bar out.

use std::time::Instant;

use hyperrag_corpus::CorpusSize;
use hyperrag_engine::BuildProgress;
use hyperrag_engine::progress::Counts;
use indicatif::{HumanBytes, HumanCount, ProgressBar};

use crate::report;

const BAR: &str = "{elapsed_precise} {bar:24} {pos}/{len} rows, {msg}, ETA {eta_precise}";

/// Runs `work` while a thread shows its progress.
pub(crate) fn watch<T>(
    progress: &BuildProgress,
    size: CorpusSize,
    limit: Option<u64>,
    work: impl FnOnce() -> T,
) -> T {
    let bar = report::bar(None, BAR);
    let start = Instant::now();
    let watched = || {
        let counts = progress.counts();
        let rows = expected_rows(&counts, size, limit);
        show(&bar, &counts, rows, start.elapsed().as_secs_f64());
    };
    report::watch(&bar, watched, work)
}

/// Rows of the whole input: known for Parquet, else estimated from the bytes read so far.
fn expected_rows(counts: &Counts, size: CorpusSize, limit: Option<u64>) -> Option<u64> {
    let estimate = || {
        let share = counts.bytes_read as f64 / size.bytes.max(1) as f64;
        (counts.rows_read > 0).then(|| (counts.rows_read as f64 / share).round() as u64)
    };
    let rows = size.rows.or_else(estimate);
    match (rows, limit) {
        (Some(rows), Some(limit)) => Some(rows.min(limit)),
        (rows, limit) => rows.or(limit),
    }
}

/// Shows how a build goes. `rows` is the expected number.
fn show(bar: &ProgressBar, counts: &Counts, rows: Option<u64>, seconds: f64) {
    if let Some(rows) = rows {
        bar.set_length(rows);
    }
    bar.set_position(counts.rows_done);
    let rate = counts.tokens as f64 / seconds.max(1e-9);
    bar.set_message(format!(
        "{} documents, {} tokens at {rate:.0}/s, {}",
        HumanCount(counts.documents),
        HumanCount(counts.tokens),
        HumanBytes(counts.bytes_written),
    ));
}
