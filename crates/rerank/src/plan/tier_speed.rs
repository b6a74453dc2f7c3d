//! Speed of a tier, learnt while it is used: fetches come in, latency and bandwidth go out.

/// Share of its weight that a fetch keeps when a later one is noted. A tenfold change of the bandwidth is believed
/// after about six fetches.
const KEPT: f64 = 0.7;
/// Weight of the latency that was believed, in fetches from an idle tier. Fetches of one length do not tell latency
/// from bandwidth, and leave it as it is.
const LATENCY_WEIGHT: f64 = 1.0;
/// Weight of the first bandwidth, in fetches: one fetch says little.
const FIRST_WEIGHT: f64 = 2.0;
/// Smallest seconds a byte: no tier gives 10^15 bytes a second.
const SECONDS_A_BYTE_MIN: f64 = 1e-15;

/// Latency and bandwidth of a tier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierEstimate {
    /// Seconds from a request to an idle tier until its first byte.
    pub latency_seconds: f64,
    /// Bytes a second once they come.
    pub bytes_per_second: f64,
}

impl TierEstimate {
    /// A tier of which nothing comes.
    pub(super) const SILENT: Self = Self { latency_seconds: 0.0, bytes_per_second: 1e-9 };

    /// Returns the seconds in which so many bytes come, without the latency.
    #[must_use]
    pub fn seconds_of(&self, bytes: u64) -> f64 {
        bytes as f64 / self.bytes_per_second.max(1e-9)
    }
}

/// A finished fetch from a tier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fetched {
    /// Bytes that came.
    pub bytes: u64,
    /// Seconds since the request, or since the delivery before it where that was later.
    pub seconds: f64,
    /// Whether nothing was under way when these bytes were requested, so that `seconds` has the latency.
    pub was_idle: bool,
}

/// The speed of a tier: least squares of `seconds = latency (if it was idle) + bytes / bandwidth` over the fetches,
/// whose weights decay. What was believed before counts like a few fetches.
#[derive(Clone, Debug)]
pub struct TierSpeed {
    estimate: TierEstimate,
    /// Weights of fetches from an idle tier; their bytes; their seconds.
    idle: [f64; 3],
    /// Squares of bytes; products of bytes and seconds.
    all: [f64; 2],
    /// Squares and products of the fetches that the first estimate stands for.
    first: [f64; 2],
}

impl TierSpeed {
    /// Begins with an estimate, which the first fetches replace.
    #[must_use]
    pub fn new(estimate: TierEstimate) -> Self {
        Self { estimate, idle: [0.0; 3], all: [0.0; 2], first: [0.0; 2] }
    }

    /// Returns what is believed now.
    #[must_use]
    pub fn estimate(&self) -> TierEstimate {
        self.estimate
    }

    /// Takes a fetch into account. One without bytes, or whose time is no number, says nothing.
    pub fn note(&mut self, fetched: Fetched) {
        let Fetched { bytes, seconds, was_idle } = fetched;
        if bytes == 0 || !seconds.is_finite() || seconds < 0.0 {
            return;
        }
        let expected = self.estimate.seconds_of(bytes);
        let bytes = bytes as f64;
        if self.all[0] == 0.0 {
            self.first = [FIRST_WEIGHT * bytes * bytes, FIRST_WEIGHT * bytes * expected];
        }
        let idle = if was_idle { [1.0, bytes, seconds] } else { [0.0; 3] };
        let add = |sum: &mut f64, value: f64| *sum = KEPT * *sum + value;
        self.idle.iter_mut().zip(idle).for_each(|(sum, value)| add(sum, value));
        let all = [bytes * bytes, bytes * seconds];
        self.all.iter_mut().zip(all).for_each(|(sum, value)| add(sum, value));
        self.first.iter_mut().for_each(|sum| add(sum, 0.0));
        self.estimate = self.solved();
    }

    fn solved(&self) -> TierEstimate {
        let ([count, bytes, seconds], [squares, products]) = (self.idle, self.all);
        let believed = self.estimate.latency_seconds;
        let apart = (count + LATENCY_WEIGHT) * squares - bytes * bytes;
        let latency = ((seconds + LATENCY_WEIGHT * believed) * squares - bytes * products) / apart;
        let mut latency = latency.max(0.0);
        let rest =
            |latency: f64| (products + self.first[1] - latency * bytes) / (squares + self.first[0]);
        if count > 0.0 && latency >= seconds / count {
            // Whole fetches were shorter than the latency that was believed.
            latency = 0.5 * seconds / count;
        }
        let seconds_a_byte = rest(latency).max(SECONDS_A_BYTE_MIN);
        TierEstimate { latency_seconds: latency, bytes_per_second: 1.0 / seconds_a_byte }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: TierEstimate = TierEstimate { latency_seconds: 0.01, bytes_per_second: 1e8 };

    fn fetched(bytes: u64, of: TierEstimate, was_idle: bool) -> Fetched {
        let latency = if was_idle { of.latency_seconds } else { 0.0 };
        Fetched { bytes, seconds: latency + of.seconds_of(bytes), was_idle }
    }

    #[track_caller]
    fn about(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 0.01, "{found} is not about {expected}");
    }

    #[test]
    fn latency_and_bandwidth_are_told_apart() {
        let of = TierEstimate { latency_seconds: 0.2, bytes_per_second: 3e9 };
        let mut speed = TierSpeed::new(START);
        (0..40).for_each(|n| speed.note(fetched(6_000_000, of, n % 4 == 0)));
        about(speed.estimate().latency_seconds, 0.2);
        about(speed.estimate().bytes_per_second, 3e9);
        // Also by fetches from an idle tier alone, if their lengths differ.
        let mut speed = TierSpeed::new(START);
        (0..40).for_each(|n| speed.note(fetched(1_000_000 + 8_000_000 * (n % 2), of, true)));
        about(speed.estimate().latency_seconds, 0.2);
        about(speed.estimate().bytes_per_second, 3e9);
    }

    #[test]
    fn fetches_of_one_length_keep_the_latency_that_was_believed() {
        let of = TierEstimate { bytes_per_second: 2e9, ..START };
        let mut speed = TierSpeed::new(START);
        (0..20).for_each(|_| speed.note(fetched(6_000_000, of, true)));
        about(speed.estimate().latency_seconds, 0.01);
        about(speed.estimate().bytes_per_second, 2e9);
        // A latency that no fetch took is not kept.
        let mut speed = TierSpeed::new(START);
        let short = Fetched { bytes: 1000, seconds: 1e-3, was_idle: true };
        (0..40).for_each(|_| speed.note(short));
        let found = speed.estimate();
        assert!(found.latency_seconds < 1e-3 && found.bytes_per_second > 1e5, "{found:?}");
    }

    #[test]
    fn a_tenfold_change_is_believed_after_ten_fetches() {
        for factor in [0.1, 10.0] {
            let mut speed = TierSpeed::new(START);
            (0..20).for_each(|_| speed.note(fetched(6_000_000, START, false)));
            let changed = TierEstimate { bytes_per_second: factor * 1e8, ..START };
            (0..10).for_each(|_| speed.note(fetched(6_000_000, changed, false)));
            let found = speed.estimate().bytes_per_second / changed.bytes_per_second;
            assert!((0.75..1.35).contains(&found), "{factor}: {found}");
        }
    }

    #[test]
    fn nonsense_changes_nothing() {
        let mut speed = TierSpeed::new(START);
        for (bytes, seconds) in [(0, 1.0), (9, f64::NAN), (9, f64::INFINITY), (9, -1.0)] {
            speed.note(Fetched { bytes, seconds, was_idle: true });
        }
        assert_eq!(speed.estimate(), START);
        speed.note(Fetched { bytes: 1, seconds: 0.0, was_idle: false });
        assert!(speed.estimate().bytes_per_second.is_finite());
    }
}
