//! Fuses the scores of the model with those of the retriever. It knows neither chunks nor documents.

/// The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009).
const RRF_CONSTANT: f64 = 60.0;

/// Combination of the model's score with the retriever's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fusion {
    /// The model's score alone.
    #[default]
    None,
    /// `weight z(model) + (1 - weight) z(retriever)`. z is the score minus the mean of the query's
    /// candidates, divided by their standard deviation.
    ZScore {
        /// The model's share, from 0 to 1.
        weight: f32,
    },
    /// The sum of `1 / (60 + rank)` by the model and by the retriever. It needs no weight, and the
    /// scores need not be comparable.
    ReciprocalRank,
}

impl Fusion {
    /// Returns the fused score of each candidate of one query. `model` and `retriever` have a score for
    /// each candidate, in the same order. Finite scores give finite ones, however large they are.
    ///
    /// # Panics
    /// If the lengths differ.
    #[must_use]
    pub fn scores<S: Copy + Into<f64>>(self, model: &[f32], retriever: &[S]) -> Vec<f32> {
        assert_eq!(model.len(), retriever.len(), "scores of the same candidates");
        let (model_part, retriever_part, share) = match self {
            Self::None => return model.to_vec(),
            Self::ZScore { weight } => (z_scores(model), z_scores(retriever), f64::from(weight)),
            Self::ReciprocalRank => (reciprocal_ranks(model), reciprocal_ranks(retriever), 0.5),
        };
        let both = model_part.iter().zip(&retriever_part);
        both.map(|(a, b)| (share * a + (1.0 - share) * b) as f32).collect()
    }
}

/// Returns z-scores; all are 0 if all scores are equal.
fn z_scores<S: Copy + Into<f64>>(scores: &[S]) -> Vec<f64> {
    let scores = in_range(scores);
    let count = scores.len().max(1) as f64;
    let mean = scores.iter().sum::<f64>() / count;
    let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / count;
    let deviation = variance.sqrt();
    // Rounding may leave a small deviation of equal scores, which is no difference.
    let least = 1e-9 * mean.abs().max(f64::from(f32::MIN_POSITIVE));
    let scale = if deviation > least { 1.0 / deviation } else { 0.0 };
    scores.iter().map(|score| (score - mean) * scale).collect()
}

/// Returns the scores times the power of two with which the largest is between 1 and 2, so that their squares
/// are numbers of 64 bits. It changes no z-score.
fn in_range<S: Copy + Into<f64>>(scores: &[S]) -> Vec<f64> {
    let scores = scores.iter().map(|score| (*score).into().clamp(f64::MIN, f64::MAX));
    let scores: Vec<f64> = scores.collect();
    let largest = scores.iter().fold(0.0, |largest: f64, score| largest.max(score.abs()));
    // Exponent of a number of 64 bits (IEEE 754), which is biased.
    let exponent = (largest.to_bits() >> 52) as i32 - 1023;
    let power = |exponent: i32| f64::from_bits(((1023 + exponent) as u64) << 52);
    // In two steps, neither of which is too large for a number.
    let factors = [power(-exponent / 2), power(-exponent - -exponent / 2)];
    scores.iter().map(|score| score * factors[0] * factors[1]).collect()
}

/// Returns twice the reciprocal ranks, which the mean of two halves. Equal scores share the best rank.
fn reciprocal_ranks<S: Copy + Into<f64>>(scores: &[S]) -> Vec<f64> {
    let scores: Vec<f64> = scores.iter().map(|score| (*score).into()).collect();
    let better = |score: f64| scores.iter().filter(|other| **other > score).count();
    scores.iter().map(|score| 2.0 / (RRF_CONSTANT + 1.0 + better(*score) as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fused_by_hand() {
        let (model, retriever) = ([-1.0, -2.0, -3.0], [10.0, 30.0, 20.0]);
        assert_eq!(Fusion::None.scores(&model, &retriever), model);
        let z = 1.5_f32.sqrt();
        let close = |fusion: Fusion, expected: [f32; 3]| {
            for (a, b) in fusion.scores(&model, &retriever).iter().zip(expected) {
                assert!((a - b).abs() < 1e-6, "{fusion:?}: {a} {b}");
            }
        };
        close(Fusion::ZScore { weight: 1.0 }, [z, 0.0, -z]);
        close(Fusion::ZScore { weight: 0.0 }, [-z, z, 0.0]);
        close(Fusion::ZScore { weight: 0.75 }, [0.5 * z, 0.25 * z, -0.75 * z]);
        let reciprocal = |a: f32, b: f32| 1.0 / (60.0 + a) + 1.0 / (60.0 + b);
        close(
            Fusion::ReciprocalRank,
            [reciprocal(1.0, 3.0), reciprocal(2.0, 1.0), reciprocal(3.0, 2.0)],
        );
    }

    #[test]
    fn equal_scores_do_not_decide() {
        let model = [-1.0, -2.0];
        let fused = Fusion::ZScore { weight: 0.3 }.scores(&model, &[0.1; 2]);
        assert!(fused[0] > fused[1]);
        assert_eq!(Fusion::ZScore { weight: 0.3 }.scores(&[0.7; 3], &[0.1; 3]), [0.0; 3]);
        assert_eq!(Fusion::ReciprocalRank.scores(&[5.0; 2], &[5.0; 2])[0], 2.0 / 61.0);
        for fusion in [Fusion::None, Fusion::ZScore { weight: 0.5 }, Fusion::ReciprocalRank] {
            assert!(fusion.scores::<f32>(&[], &[]).is_empty());
            assert!(fusion.scores(&[1.0], &[2.0])[0].is_finite());
        }
    }

    #[test]
    fn huge_and_tiny_scores_are_fused_as_others() {
        let fusion = Fusion::ZScore { weight: 0.4 };
        let model = [-1.0, -2.0, -4.0];
        let usual = fusion.scores(&model, &[3.0, 2.0, -1.0]);
        for power in [-1021, -600, -300, -1, 300, 301, 600, 1021] {
            let factor = f64::from_bits(((1023 + power) as u64) << 52);
            let scores = [3.0, 2.0, -1.0].map(|score: f64| score * factor);
            assert_eq!(fusion.scores(&model, &scores), usual, "2^{power}");
        }
        let fused = fusion.scores(&model, &[f64::MAX, f64::MIN, 1.0]);
        assert!(fused.iter().all(|score| score.is_finite()) && fused[0] > fused[1], "{fused:?}");
        let fused = fusion.scores(&model, &[f32::INFINITY, 1e30, 1.0]);
        assert!(fused.iter().all(|score| score.is_finite()), "{fused:?}");
        // What two doubles tell apart, single precision would not.
        let close = fusion.scores(&[0.0; 2], &[1.0, 1.0 + 1e-8]);
        assert!(close[0] < close[1], "{close:?}");
        let by_rank = Fusion::ReciprocalRank.scores(&[0.0; 2], &[1e300, 2e300]);
        assert!(by_rank[0] < by_rank[1], "{by_rank:?}");
    }
}
