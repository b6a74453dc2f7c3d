//! Order of ranked documents: scores and ids come in, which one is before the other goes out. It does
//! not know where scores come from.

use std::cmp::Ordering;

/// Orders two documents of a ranking, each a score and an id: [`Ordering::Less`] means that the first
/// is ranked higher.
///
/// The order is that of `trec_eval`, so that a ranking is evaluated as it is printed. The higher
/// score comes first, and scores are compared in single precision: `1.00000000001` and `1` are equal,
/// and so are `0` and `-0`, and all numbers beyond `f32::MAX`. Of equal scores the greater id comes
/// first, byte by byte: `9` before `10`, `b` before `a`, `ab` before `a`. A score that is no number
/// comes after all others.
#[must_use]
pub fn rank_order(first: (f64, &str), second: (f64, &str)) -> Ordering {
    let (a, b) = (first.0 as f32, second.0 as f32);
    let by_score = b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
    by_score.then_with(|| second.1.as_bytes().cmp(first.1.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranked_as_trec_eval_ranks() {
        let check = |mut documents: Vec<(f64, &str)>, expected: &[&str]| {
            documents.sort_by(|a, b| rank_order(*a, *b));
            let ids: Vec<&str> = documents.iter().map(|document| document.1).collect();
            assert_eq!(ids, expected);
        };
        check(vec![(1.0, "z"), (2.0, "a"), (-3.0, "y")], &["a", "z", "y"]);
        check(vec![(1.0, "a"), (1.0, "B"), (1.0, "ab"), (1.0, "b")], &["b", "ab", "a", "B"]);
        check(vec![(1.0, "10"), (1.0, "9"), (1.0, "z"), (1.0, "é")], &["é", "z", "9", "10"]);
        // UTF-16 would have these two the other way round.
        check(vec![(1.0, "\u{ffff}"), (1.0, "\u{10000}")], &["\u{10000}", "\u{ffff}"]);
        check(vec![(1.000_000_000_01, "a"), (1.0, "b")], &["b", "a"]);
        check(vec![(1.000_000_2, "a"), (1.0, "b")], &["a", "b"]);
        check(vec![(0.0, "a"), (-0.0, "b")], &["b", "a"]);
        check(vec![(1e300, "a"), (1e299, "b"), (1e38, "c")], &["b", "a", "c"]);
        check(vec![(f64::NAN, "z"), (-f64::INFINITY, "a"), (f64::NAN, "y")], &["a", "z", "y"]);
    }
}
