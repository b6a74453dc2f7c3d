//! Work of a tier since it was opened: answers come in, counts and quantiles go out.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

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
    first_layers: [AtomicU64; BUCKETS],
    /// Longest of these times, in microseconds.
    first_layer_longest: AtomicU64,
    /// Time that readers waited, summed over threads, in microseconds.
    waited: AtomicU64,
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
    /// Median over the requests for blocks of the time from the request to its first checked layer, in
    /// seconds; `None` if the tier gave no layer.
    pub first_layer_seconds: Option<f64>,
    /// Longest of those times, in seconds.
    pub first_layer_longest_seconds: Option<f64>,
    /// Time that threads waited for bytes of the tier, summed over the threads, in seconds.
    pub waited_seconds: f64,
}

/// The time since a request for blocks, and which places have given a layer since.
pub(crate) struct RequestClock {
    start: Instant,
    given: Box<[AtomicBool]>,
}

impl RequestClock {
    /// Starts the clock of a request, for so many places.
    pub(crate) fn start(places: usize) -> Self {
        let given = std::iter::repeat_with(|| AtomicBool::new(false)).take(places).collect();
        Self { start: Instant::now(), given }
    }

    /// Returns the time since the request if a layer from `place` is the first one, else `None`.
    fn first(&self, place: usize) -> Option<Duration> {
        let given = &self.given[place];
        (!given.load(Relaxed) && !given.swap(true, Relaxed)).then(|| self.start.elapsed())
    }
}

impl TierStats {
    pub(crate) fn new() -> Self {
        let zeros = || [const { AtomicU64::new(0) }; BUCKETS];
        let [hits, misses, failures, bytes, refused, answers] = [const { AtomicU64::new(0) }; 6];
        let [first_layer_longest, waited] = [const { AtomicU64::new(0) }; 2];
        let (waits, first_layers) = (zeros(), zeros());
        Self {
            hits,
            misses,
            failures,
            bytes,
            refused,
            answers,
            waits,
            first_layers,
            first_layer_longest,
            waited,
        }
    }

    /// Counts a checked layer from `place`, if it is the first of its request.
    pub(crate) fn layer(&self, clock: &RequestClock, place: usize) {
        if let Some(time) = clock.first(place) {
            self.first_layers[bucket(time)].fetch_add(1, Relaxed);
            self.first_layer_longest.fetch_max(micros(time), Relaxed);
        }
    }

    /// Counts the time that a reader waited.
    pub(crate) fn waited(&self, time: Duration) {
        self.waited.fetch_add(micros(time), Relaxed);
    }

    /// Counts an answer, and the time that it took.
    pub(crate) fn answered(&self, wait: Duration, bytes: usize) {
        self.answers.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.waits[bucket(wait)].fetch_add(1, Relaxed);
    }

    pub(crate) fn work(&self, tier: &str) -> TierWork {
        let load = |count: &AtomicU64| count.load(Relaxed);
        let counts = |buckets: &[AtomicU64]| buckets.iter().map(load).collect::<Vec<u64>>();
        let (waits, first_layers) = (counts(&self.waits), counts(&self.first_layers));
        let longest = load(&self.first_layer_longest) as f64 * 1e-6;
        // A quantile is the end of a bucket.
        let first_layer_seconds = quantile(&first_layers, 0.5).map(|median| median.min(longest));
        TierWork {
            tier: tier.to_owned(),
            hits: load(&self.hits),
            misses: load(&self.misses),
            failures: load(&self.failures),
            bytes: load(&self.bytes),
            refused: load(&self.refused),
            wait_p50_seconds: quantile(&waits, 0.5),
            wait_p99_seconds: quantile(&waits, 0.99),
            first_layer_seconds,
            first_layer_longest_seconds: first_layer_seconds.map(|_| longest),
            waited_seconds: load(&self.waited) as f64 * 1e-6,
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
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

    #[test]
    fn a_request_has_one_first_layer_from_each_place() {
        let stats = TierStats::new();
        assert_eq!(stats.work("t").first_layer_longest_seconds, None);
        for _ in 0..3 {
            let clock = RequestClock::start(2);
            (0..4).for_each(|_| stats.layer(&clock, 1));
        }
        let counted: u64 = stats.first_layers.iter().map(|count| count.load(Relaxed)).sum();
        assert_eq!(counted, 3);
        let work = stats.work("t");
        let (median, longest) = (work.first_layer_seconds, work.first_layer_longest_seconds);
        assert!(median.is_some() && median <= longest, "{median:?} {longest:?}");
    }
}
