//! Draws a token from logits. It does not know the model or the text.

use hyperrag_core::Sampling;

use crate::random::SplitMix;

/// Draws the tokens of one generation.
pub(crate) struct Sampler {
    temperature: f64,
    top_p: f64,
    random: SplitMix,
    /// Probability of each token, divided by that of the most probable one.
    weights: Vec<(f64, u32)>,
}

impl Sampler {
    pub(crate) fn new(sampling: &Sampling) -> Self {
        Self {
            temperature: f64::from(sampling.temperature),
            top_p: f64::from(sampling.top_p),
            random: SplitMix(sampling.seed),
            weights: Vec::new(),
        }
    }

    /// Draws the next token. Among equally probable tokens the smaller id comes first.
    pub(crate) fn pick(&mut self, logits: &[f32]) -> u32 {
        let first = (f32::NEG_INFINITY, 0);
        let (largest, best) = logits.iter().zip(0..).fold(first, |best, (logit, token)| {
            if *logit > best.0 { (*logit, token) } else { best }
        });
        if self.temperature <= 0.0 {
            return best;
        }
        let weight = |logit: f32| libm::exp(f64::from(logit - largest) / self.temperature);
        self.weights.clear();
        self.weights.extend(logits.iter().zip(0..).map(|(logit, token)| (weight(*logit), token)));
        self.weights.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let sum = |weights: &[(f64, u32)]| weights.iter().map(|(weight, _)| weight).sum::<f64>();
        let kept = reaching(&self.weights, self.top_p * sum(&self.weights));
        let drawn = self.random.share() * sum(kept);
        reaching(kept, drawn).last().map_or(best, |(_, token)| *token)
    }
}

/// Returns the first weights that sum up to `sum`: at least one, and all if rounding keeps them below.
fn reaching(weights: &[(f64, u32)], sum: f64) -> &[(f64, u32)] {
    let mut reached = 0.0;
    let found = weights.iter().position(|(weight, _)| {
        reached += weight;
        reached > sum
    });
    &weights[..found.map_or(weights.len(), |last| last + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(temperature: f32, top_p: f32, logits: &[f32]) -> Vec<f64> {
        let sampling = Sampling { tokens_max: 1, temperature, top_p, seed: 7 };
        let (mut sampler, mut counts) = (Sampler::new(&sampling), vec![0.0; logits.len()]);
        for _ in 0..20_000 {
            counts[sampler.pick(logits) as usize] += 1.0;
        }
        counts.iter().map(|count| count / 20_000.0).collect()
    }

    #[test]
    fn tokens_are_drawn_as_probable_as_they_are() {
        let logits = [1.0, 3.0, 2.0, 3.0, -40.0];
        assert_eq!(shares(0.0, 1.0, &logits), [0.0, 1.0, 0.0, 0.0, 0.0], "the first of the best");
        for temperature in [0.5, 1.0, 2.0] {
            let weights = logits.map(|logit| f64::from(logit / temperature).exp());
            let sum: f64 = weights.iter().sum();
            for (share, weight) in shares(temperature, 1.0, &logits).iter().zip(weights) {
                assert!((share - weight / sum).abs() < 0.015, "{share} {weight} {sum}");
            }
        }
        // The two best have 0.78 together, three have 0.92.
        for (top_p, kept) in [(0.0, 1), (0.7, 2), (0.85, 3), (1.0, 4)] {
            let shares = shares(1.0, top_p, &logits);
            assert_eq!(shares.iter().filter(|share| **share > 0.0).count(), kept, "{top_p}");
        }
    }
}
