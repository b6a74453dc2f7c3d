//! Fuses the scores of the model with those of the retriever. It knows neither chunks nor documents.

use std::cmp::Ordering;

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
    /// each candidate, in the same order.
    ///
    /// # Panics
    /// If the lengths differ.
    #[must_use]
    pub fn scores(self, model: &[f32], retriever: &[f32]) -> Vec<f32> {
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
fn z_scores(scores: &[f32]) -> Vec<f64> {
    let count = scores.len().max(1) as f64;
    let mean = scores.iter().map(|score| f64::from(*score)).sum::<f64>() / count;
    let variance = scores.iter().map(|s| (f64::from(*s) - mean).powi(2)).sum::<f64>() / count;
    let deviation = variance.sqrt();
    // Rounding may leave a small deviation of equal scores, which is no difference.
    let least = 1e-9 * mean.abs().max(f64::from(f32::MIN_POSITIVE));
    let scale = if deviation > least { 1.0 / deviation } else { 0.0 };
    scores.iter().map(|score| (f64::from(*score) - mean) * scale).collect()
}

/// Returns twice the reciprocal ranks, which the mean of two halves. Equal scores share the best rank.
fn reciprocal_ranks(scores: &[f32]) -> Vec<f64> {
    let better = |score: f32| {
        scores.iter().filter(|other| other.total_cmp(&score) == Ordering::Greater).count()
    };
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
            assert!(fusion.scores(&[], &[]).is_empty());
            assert!(fusion.scores(&[1.0], &[2.0])[0].is_finite());
        }
    }
}
