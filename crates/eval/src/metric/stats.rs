//! Samples in, their mean, spread and percentiles out.

use serde::Serialize;

/// Summary of samples, in the samples' unit.
///
/// Percentiles are by nearest rank: the smallest sample that at least so many percent of all do not
/// exceed. Each is a sample that occurred, never a value between two.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the sample (divisor n - 1); 0 for one sample.
    pub stddev: f64,
    /// The smallest.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile; the largest of fewer than 100 samples.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// Number of samples.
    pub samples: usize,
}

impl Summary {
    /// Sums up the samples; `None` where there are none, or one is not a finite number.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        if samples.iter().any(|sample| !sample.is_finite()) {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let count = sorted.len() as f64;
        // The mean of numbers lies between them; rounding must not carry it out.
        let mean = (sorted.iter().sum::<f64>() / count).clamp(min, max);
        let squares: f64 = sorted.iter().map(|sample| (sample - mean).powi(2)).sum();
        Some(Self {
            mean,
            stddev: if sorted.len() == 1 { 0.0 } else { (squares / (count - 1.0)).sqrt() },
            min,
            p50: nearest_rank(&sorted, 50),
            p90: nearest_rank(&sorted, 90),
            p99: nearest_rank(&sorted, 99),
            max,
            samples: sorted.len(),
        })
    }
}

/// Returns a percentile of at least one sample, in ascending order.
fn nearest_rank(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let summary = Summary::of(&hundred).unwrap();
        assert_eq!((summary.p50, summary.p90, summary.p99), (50.0, 90.0, 99.0));
        assert_eq!((summary.min, summary.max, summary.mean), (1.0, 100.0, 50.5));
        assert!((summary.stddev - 29.011_491_975_882_016).abs() < 1e-12);
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        let summary = Summary::of(&ten).unwrap();
        assert_eq!((summary.p50, summary.p90, summary.p99), (5.0, 9.0, 10.0));
    }

    #[test]
    fn few_samples() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[1.0, f64::NAN]), None);
        assert_eq!(Summary::of(&[f64::INFINITY]), None);
        let one = Summary::of(&[0.1]).unwrap();
        assert_eq!((one.mean, one.stddev, one.p50, one.p99), (0.1, 0.0, 0.1, 0.1));
        assert_eq!(Summary::of(&[0.1; 3]).unwrap().mean, 0.1);
    }

    proptest! {
        #[test]
        fn all_lies_between_min_and_max(samples in prop::collection::vec(-1e9..1e9_f64, 1..50)) {
            let Summary { mean, stddev, min, p50, p90, p99, max, samples: count } =
                Summary::of(&samples).unwrap();
            prop_assert!(min <= p50 && p50 <= p90 && p90 <= p99 && p99 <= max);
            prop_assert!(min <= mean && mean <= max && stddev >= 0.0);
            prop_assert_eq!(count, samples.len());
            let not_above = samples.iter().filter(|sample| **sample <= p90).count();
            prop_assert!(not_above * 100 >= samples.len() * 90);
        }
    }
}
