//! Work of a tier since it was opened: answers come in, counts and quantiles go out.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

/// Number of buckets of waits. Each is a quarter of a doubling wide; the last begins above an hour.
const BUCKETS: usize = 128;

/// Counts of a tier.
pub(crate) struct TierStats {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Number of blocks that it did not take.
    pub(crate) refused: AtomicU64,
    /// Number of answers, right or wrong.
    pub(crate) answers: AtomicU64,
    waits: [AtomicU64; BUCKETS],
}

/// Summary of the work of a tier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TierWork {
    /// Name of the tier, without secrets.
    pub tier: String,
    /// Number of blocks that it gave, at least in part.
    pub hits: u64,
    /// Number of blocks that it did not hold.
    pub misses: u64,
    /// Number of blocks whose bytes came too late, wrong or not at all.
    pub failures: u64,
    /// Number of bytes that it gave.
    pub bytes: u64,
    /// Number of blocks that it was to keep and did not take.
    pub refused: u64,
    /// Median of the time from asking for a piece to its arrival, in seconds; `None` without an answer.
    pub wait_p50_seconds: Option<f64>,
    /// 99th percentile of those times, in seconds.
    pub wait_p99_seconds: Option<f64>,
}

impl TierStats {
    pub(crate) fn new() -> Self {
        let [hits, misses, failures, bytes, refused, answers] = [const { AtomicU64::new(0) }; 6];
        let waits = [const { AtomicU64::new(0) }; BUCKETS];
        Self { hits, misses, failures, bytes, refused, answers, waits }
    }

    /// Counts an answer, and the time that it took.
    pub(crate) fn answered(&self, wait: Duration, bytes: usize) {
        self.answers.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.waits[bucket(wait)].fetch_add(1, Relaxed);
    }

    pub(crate) fn work(&self, tier: &str) -> TierWork {
        let load = |count: &AtomicU64| count.load(Relaxed);
        let waits: Vec<u64> = self.waits.iter().map(load).collect();
        TierWork {
            tier: tier.to_owned(),
            hits: load(&self.hits),
            misses: load(&self.misses),
            failures: load(&self.failures),
            bytes: load(&self.bytes),
            refused: load(&self.refused),
            wait_p50_seconds: quantile(&waits, 0.5),
            wait_p99_seconds: quantile(&waits, 0.99),
        }
    }
}

fn bucket(wait: Duration) -> usize {
    let micros = (wait.as_secs_f64() * 1e6).max(1.0);
    ((micros.log2() * 4.0) as usize).min(BUCKETS - 1)
}

/// Returns the upper end of the bucket in which the quantile lies, in seconds.
fn quantile(counts: &[u64], share: f64) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    let rank = (share * all as f64).ceil() as u64;
    let mut below = 0;
    let bucket = counts.iter().position(|count| {
        below += count;
        below >= rank && below > 0
    })?;
    Some(2_f64.powf((bucket + 1) as f64 / 4.0) * 1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let stats = TierStats::new();
        assert_eq!(stats.work("t").wait_p50_seconds, None);
        for millis in 1..=1000 {
            stats.answered(Duration::from_millis(millis), 3);
        }
        let work = stats.work("t");
        let (p50, p99) = (work.wait_p50_seconds.unwrap(), work.wait_p99_seconds.unwrap());
        assert!((0.5..0.6).contains(&p50) && (0.99..1.19).contains(&p99), "{p50} {p99}");
        assert_eq!((work.bytes, work.hits), (3000, 0));
        stats.answered(Duration::from_secs(1 << 40), 0);
    }
}
