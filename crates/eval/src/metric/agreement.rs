//! Two lists of scores of the same candidates in, how far their rankings agree out.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde::Serialize;

/// Number of the best that are compared.
const TOP: usize = 10;

/// Agreement of two scorings of the same candidates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// The largest difference between the two scores of a candidate. Infinite where only one of
    /// them is a number.
    pub score_difference_max: f64,
    /// The share of the ten best (or of all, where there are fewer) that both name; equal scores
    /// rank by index.
    pub top10_overlap: f64,
    /// Kendall's tau-b over all pairs: 1 for the same order, -1 for the reverse. Pairs that tie in
    /// both agree. Where one scoring ties all and the other does not, it is 0.
    pub kendall_tau: f64,
}

/// Compares two scorings; the scores at one index belong to the same candidate. Scorings of no
/// candidates agree in everything. No field is ever NaN.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn agreement(a: &[f32], b: &[f32]) -> Agreement {
    assert_eq!(a.len(), b.len(), "scores of the same candidates");
    Agreement {
        score_difference_max: a.iter().zip(b).map(|(a, b)| difference(*a, *b)).fold(0.0, f64::max),
        top10_overlap: top_overlap(a, b),
        kendall_tau: kendall_tau(a, b),
    }
}

fn difference(a: f32, b: f32) -> f64 {
    if compare(a, b).is_eq() {
        return 0.0;
    }
    let difference = (f64::from(a) - f64::from(b)).abs();
    if difference.is_nan() { f64::INFINITY } else { difference }
}

/// A total order in which the two zeros are equal, and so is every NaN, above all numbers.
fn compare(a: f32, b: f32) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn top_overlap(a: &[f32], b: &[f32]) -> f64 {
    let count = a.len().min(TOP);
    if count == 0 {
        return 1.0;
    }
    let top = |scores: &[f32]| -> HashSet<usize> {
        let mut ranking: Vec<usize> = (0..scores.len()).collect();
        ranking.sort_by(|&i, &j| compare(scores[j], scores[i]));
        ranking.into_iter().take(count).collect()
    };
    top(a).intersection(&top(b)).count() as f64 / count as f64
}

/// Knight's method: sorted by `a`, the pairs that disagree are the inversions of `b`.
fn kendall_tau(a: &[f32], b: &[f32]) -> f64 {
    let mut pairs: Vec<(f32, f32)> = a.iter().copied().zip(b.iter().copied()).collect();
    pairs.sort_unstable_by(|x, y| compare(x.0, y.0).then(compare(x.1, y.1)));
    let all = pair_count(pairs.len());
    let tied_a = tied_pairs(&pairs, |x, y| compare(x.0, y.0).is_eq());
    let tied_both =
        tied_pairs(&pairs, |x, y| compare(x.0, y.0).is_eq() && compare(x.1, y.1).is_eq());
    let mut b: Vec<f32> = pairs.iter().map(|pair| pair.1).collect();
    let discordant = sort_counting_inversions(&mut b);
    let tied_b = tied_pairs(&b, |x, y| compare(*x, *y).is_eq());

    let (untied_a, untied_b) = (all - tied_a, all - tied_b);
    if untied_a == 0 || untied_b == 0 {
        return if untied_a == untied_b { 1.0 } else { 0.0 };
    }
    let concordant_less_discordant = all - tied_a - tied_b + tied_both - 2 * discordant;
    // The root of a square is exact, so equal orders give 1 and not nearly 1.
    let pairs = (untied_a as f64 * untied_b as f64).sqrt();
    (concordant_less_discordant as f64 / pairs).clamp(-1.0, 1.0)
}

fn pair_count(items: usize) -> i64 {
    let items = i64::try_from(items).expect("a slice is no longer than isize::MAX");
    items * (items - 1) / 2
}

/// Pairs of equal items in a slice in which these stand together.
fn tied_pairs<T>(items: &[T], equal: impl Fn(&T, &T) -> bool) -> i64 {
    items.chunk_by(equal).map(|group| pair_count(group.len())).sum()
}

/// Merge sort; the number of pairs that stood in descending order.
fn sort_counting_inversions(values: &mut [f32]) -> i64 {
    let middle = values.len() / 2;
    if middle == 0 {
        return 0;
    }
    let (left, right) = values.split_at_mut(middle);
    let mut inversions = sort_counting_inversions(left) + sort_counting_inversions(right);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut i, mut j) = (0, 0);
    while i < left.len() && j < right.len() {
        if compare(left[i], right[j]).is_le() {
            merged.push(left[i]);
            i += 1;
        } else {
            inversions += i64::try_from(left.len() - i).expect("a slice's length");
            merged.push(right[j]);
            j += 1;
        }
    }
    merged.extend_from_slice(&left[i..]);
    merged.extend_from_slice(&right[j..]);
    values.copy_from_slice(&merged);
    inversions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(a: &[f32], b: &[f32], difference: f64, overlap: f64, tau: f64) {
        let expected = Agreement {
            score_difference_max: difference,
            top10_overlap: overlap,
            kendall_tau: tau,
        };
        assert_eq!(agreement(a, b), expected, "{a:?} {b:?}");
    }

    #[test]
    fn small_cases() {
        check(&[], &[], 0.0, 1.0, 1.0);
        check(&[1.0], &[-2.0], 3.0, 1.0, 1.0);
        check(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0], 0.0, 1.0, 1.0);
        check(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0], 2.0, 1.0, -1.0);
        check(&[1.0, 2.0, 3.0], &[2.0, 1.0, 3.0], 1.0, 1.0, 1.0 / 3.0);
        check(&[5.0; 4], &[5.0; 4], 0.0, 1.0, 1.0);
        check(&[5.0; 4], &[7.0; 4], 2.0, 1.0, 1.0);
        check(&[5.0; 2], &[5.0, 6.0], 1.0, 1.0, 0.0);
        check(&[0.0, -0.0], &[-0.0, 0.0], 0.0, 1.0, 1.0);
        let infinity = f32::INFINITY;
        check(&[infinity, 1.0], &[infinity, 1.0], 0.0, 1.0, 1.0);
        check(&[f32::NAN, 1.0], &[2.0, 1.0], f64::INFINITY, 1.0, 1.0);
        check(&[f32::NAN, 1.0], &[-f32::NAN, 1.0], 0.0, 1.0, 1.0);
    }

    #[test]
    fn the_overlap_counts_ten() {
        let a: Vec<f32> = (0_u8..20).map(f32::from).collect();
        let mut b = a.clone();
        b.swap(19, 0);
        b.swap(10, 9);
        assert_eq!(agreement(&a, &b).top10_overlap, 0.8);
        assert_eq!(agreement(&[1.0; 20], &a).top10_overlap, 0.0, "ties rank by index");
    }

    /// tau-b by its definition, pair by pair.
    fn naive_tau(a: &[f32], b: &[f32]) -> f64 {
        let (mut sum, mut untied_a, mut untied_b) = (0, 0, 0);
        for i in 0..a.len() {
            for j in 0..i {
                let x = compare(a[i], a[j]) as i64;
                let y = compare(b[i], b[j]) as i64;
                sum += x * y;
                untied_a += x * x;
                untied_b += y * y;
            }
        }
        if untied_a == 0 || untied_b == 0 {
            return if untied_a == untied_b { 1.0 } else { 0.0 };
        }
        sum as f64 / (untied_a as f64 * untied_b as f64).sqrt()
    }

    proptest! {
        #[test]
        fn tau_is_as_defined(
            pairs in prop::collection::vec((-4_i8..4, -4_i8..4), 0..40),
            scale in prop::sample::select(vec![1.0_f32, 0.1, 1e-30]),
        ) {
            let a: Vec<f32> = pairs.iter().map(|pair| f32::from(pair.0) * scale).collect();
            let b: Vec<f32> = pairs.iter().map(|pair| f32::from(pair.1) * scale).collect();
            prop_assert_eq!(kendall_tau(&a, &b), naive_tau(&a, &b));
            prop_assert_eq!(kendall_tau(&a, &b), kendall_tau(&b, &a));
        }

        #[test]
        fn a_scoring_agrees_with_itself(a in prop::collection::vec(any::<f32>(), 0..40)) {
            prop_assert_eq!(
                agreement(&a, &a),
                Agreement { score_difference_max: 0.0, top10_overlap: 1.0, kendall_tau: 1.0 }
            );
        }

        #[test]
        fn nothing_is_nan(pairs in prop::collection::vec((any::<f32>(), any::<f32>()), 0..40)) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let agreement = agreement(&a, &b);
            prop_assert!(agreement.score_difference_max >= 0.0);
            prop_assert!((0.0..=1.0).contains(&agreement.top10_overlap));
            prop_assert!((-1.0..=1.0).contains(&agreement.kendall_tau));
        }
    }
}
