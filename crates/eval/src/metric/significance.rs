//! Values of runs over the same queries in, their differences, intervals and p out.

use serde::Serialize;

/// Up to this many differences all signs are tried.
const EXACT_MAX: usize = 16;
/// Signs that are drawn for more.
const DRAWS: u32 = 100_000;
/// Samples of the queries for the interval.
const RESAMPLES: usize = 10_000;
/// Values and sums that differ by less are equal: the order of a sum must not decide.
const ROUNDING: f64 = 1e-12;

/// Difference of two runs over the same queries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PairedDifference {
    /// Mean of the second's values less the first's.
    pub mean: f64,
    /// 95 % interval of that mean: the percentiles of 10,000 bootstrap samples of the queries (Efron
    /// 1979).
    pub interval: [f64; 2],
    /// Probability of so large a mean, up or down, if the two runs are worth the same: Fisher's
    /// randomisation test over the signs of the differences, of all signs for up to 16 queries that
    /// differ, else of 100,000 drawn ones (Smucker, Allan and Carterette 2007).
    pub p: f64,
    /// Queries with a higher value in the second.
    pub wins: usize,
    /// Queries with the same value.
    pub ties: usize,
    /// Queries with a lower value in the second.
    pub losses: usize,
}

/// Compares the values of two runs, query by query. The same values give the same result: what is
/// drawn comes from a fixed seed.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn paired_difference(first: &[f64], second: &[f64]) -> PairedDifference {
    assert_eq!(first.len(), second.len(), "values of the same queries");
    let difference = |(a, b): (&f64, &f64)| if (b - a).abs() < ROUNDING { 0.0 } else { b - a };
    let mut differences: Vec<f64> = first.iter().zip(second).map(difference).collect();
    differences.sort_unstable_by(f64::total_cmp);
    let count = differences.len().max(1) as f64;
    let wins = differences.iter().filter(|d| **d > 0.0).count();
    let losses = differences.iter().filter(|d| **d < 0.0).count();
    PairedDifference {
        // Adding 0 takes the sign from a zero.
        mean: differences.iter().sum::<f64>() / count + 0.0,
        interval: interval(&differences).map(|end| end + 0.0),
        p: randomisation_p(&differences),
        wins,
        ties: differences.len() - wins - losses,
        losses,
    }
}

/// Adjusts the p of several tests so that the chance of one false difference among all of them stays
/// what it is for one (Holm 1979): the smallest is multiplied by the number of tests, the next by one
/// less, and none becomes smaller than the one before it or larger than 1.
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let (mut adjusted, mut before) = (vec![0.0; p.len()], 0.0_f64);
    for (left, test) in (1..=p.len()).rev().zip(order) {
        before = before.max(p[test] * left as f64).min(1.0);
        adjusted[test] = before;
    }
    adjusted
}

fn randomisation_p(differences: &[f64]) -> f64 {
    // By size, so that swapping the runs changes nothing.
    let mut sizes: Vec<f64> =
        differences.iter().map(|d| d.abs()).filter(|size| *size > 0.0).collect();
    sizes.sort_unstable_by(f64::total_cmp);
    let observed = differences.iter().sum::<f64>().abs() - ROUNDING;
    let signed_sum = |signs: &mut dyn FnMut() -> bool| {
        sizes.iter().map(|size| if signs() { *size } else { -*size }).sum::<f64>().abs()
    };
    if sizes.len() <= EXACT_MAX {
        let all = 1_u32 << sizes.len();
        let as_large = (0..all).filter(|signs| {
            let mut rest = *signs;
            let mut next = || {
                let sign = rest & 1 == 1;
                rest >>= 1;
                sign
            };
            signed_sum(&mut next) >= observed
        });
        return as_large.count() as f64 / f64::from(all);
    }
    let mut random = Random(0);
    let (mut bits, mut left) = (0, 0);
    let mut next = || {
        if left == 0 {
            (bits, left) = (random.next(), 64);
        }
        left -= 1;
        (bits >> left) & 1 == 1
    };
    let as_large = (0..DRAWS).filter(|_| signed_sum(&mut next) >= observed).count();
    (as_large + 1) as f64 / (f64::from(DRAWS) + 1.0)
}

fn interval(differences: &[f64]) -> [f64; 2] {
    if differences.is_empty() {
        return [0.0; 2];
    }
    // Of the two directions always the same one is sampled, so that swapping the runs only turns the
    // interval over.
    let turned: Vec<f64> = differences.iter().rev().map(|difference| -difference).collect();
    if turned == differences {
        let [low, high] = percentiles(differences);
        let half = (high - low) / 2.0;
        return [-half, half];
    }
    let sum: f64 = differences.iter().sum();
    let turn = if sum.abs() < ROUNDING { turned[..] < *differences } else { sum < 0.0 };
    if turn {
        let [low, high] = percentiles(&turned);
        return [-high, -low];
    }
    percentiles(differences)
}

/// Returns the ends of the interval of at least one difference.
fn percentiles(differences: &[f64]) -> [f64; 2] {
    let (mut random, count) = (Random(1), differences.len());
    let mut draw = || differences[((u128::from(random.next()) * count as u128) >> 64) as usize];
    let mut means: Vec<f64> =
        (0..RESAMPLES).map(|_| (0..count).map(|_| draw()).sum::<f64>() / count as f64).collect();
    means.sort_unstable_by(f64::total_cmp);
    [means[RESAMPLES / 40], means[RESAMPLES - 1 - RESAMPLES / 40]]
}

/// splitmix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_cases_by_hand() {
        let same = paired_difference(&[0.5; 3], &[0.5; 3]);
        assert_eq!((same.mean, same.p, same.ties, same.interval), (0.0, 1.0, 3, [0.0; 2]));
        // Of eight combinations of signs only all up and all down are as large.
        let up = paired_difference(&[0.0; 3], &[0.1, 0.2, 0.3]);
        assert_eq!((up.p, up.wins, up.losses), (0.25, 3, 0));
        // 0.3 - 0.1 = 0.2: as large are +-0.2 and +-0.4.
        assert_eq!(paired_difference(&[0.0, 0.1], &[0.3, 0.0]).p, 1.0);
        let rounded = paired_difference(&[0.3, 0.0], &[0.1 + 0.2, 0.5]);
        assert_eq!((rounded.wins, rounded.ties, rounded.p), (1, 1, 1.0));
        let none = paired_difference(&[], &[]);
        assert_eq!((none.mean, none.p), (0.0, 1.0));
    }

    #[test]
    fn p_of_several_tests_is_adjusted() {
        // The third times 3, the first times 2, then the second once: it is not below the first.
        let adjusted = holm(&[0.02, 0.03, 0.01]);
        for (value, expected) in adjusted.iter().zip([0.04, 0.04, 0.03]) {
            assert!((value - expected).abs() < 1e-12, "{adjusted:?}");
        }
        assert_eq!(holm(&[0.6, 0.5, 1.0]), [1.0; 3]);
        assert_eq!(holm(&[0.2]), [0.2]);
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn zero_has_no_sign() {
        let none = paired_difference(&[], &[]);
        let same = paired_difference(&[0.5, 0.2], &[0.5, 0.2]);
        let down = paired_difference(&[0.5; 3], &[0.0, 0.5, 0.5]);
        for difference in [none, same, down] {
            let [low, high] = difference.interval;
            for value in [difference.mean, low, high] {
                assert!(value != 0.0 || value.is_sign_positive(), "{difference:?}");
            }
        }
    }

    #[test]
    fn differences_that_cancel_out_have_an_interval_around_zero() {
        let (a, b) = ([3.0, 0.0, 1.0, 2.0], [2.0, 1.0, 1.0, 2.0]);
        let [low, high] = paired_difference(&a, &b).interval;
        assert!(low < 0.0 && low == -high, "{low} {high}");
        assert_eq!(paired_difference(&b, &a).interval, [low, high]);
    }

    #[test]
    fn many_differences_are_drawn() {
        let zeros = vec![0.0; 40];
        let all_up = paired_difference(&zeros, &vec![0.1; 40]);
        assert!(all_up.p <= 2e-5, "{}", all_up.p);
        assert_eq!(all_up.wins, 40);
        let even: Vec<f64> = (0..40).map(|i| if i % 2 == 0 { 0.1 } else { -0.1 }).collect();
        let even = paired_difference(&zeros, &even);
        assert!(even.p > 0.99 && even.interval[0] < 0.0 && even.interval[1] > 0.0);
        // One sign in four is down: 30 up of 40, two-sided binomial p = 0.00222.
        let mostly: Vec<f64> = (0..40).map(|i| if i % 4 == 0 { -0.1 } else { 0.1 }).collect();
        let p = paired_difference(&zeros, &mostly).p;
        assert!((p - 0.00222).abs() < 6e-4, "{p}");
    }

    proptest! {
        #[test]
        fn swapping_the_runs_turns_the_sign(
            pairs in prop::collection::vec((0..5_u8, 0..5_u8), 0..30),
        ) {
            let a: Vec<f64> = pairs.iter().map(|pair| f64::from(pair.0) / 4.0).collect();
            let b: Vec<f64> = pairs.iter().map(|pair| f64::from(pair.1) / 4.0).collect();
            let (forth, back) = (paired_difference(&a, &b), paired_difference(&b, &a));
            prop_assert_eq!(forth.mean, -back.mean);
            prop_assert_eq!(forth.p, back.p);
            prop_assert_eq!((forth.wins, forth.losses), (back.losses, back.wins));
            prop_assert!(forth.p > 0.0 && forth.p <= 1.0);
            prop_assert!(forth.interval[0] <= forth.interval[1]);
            prop_assert_eq!(forth.interval, [-back.interval[1], -back.interval[0]]);
            let turned = |values: &[f64]| values.iter().rev().copied().collect::<Vec<_>>();
            prop_assert_eq!(paired_difference(&turned(&a), &turned(&b)), forth);
        }
    }
}
