//! The log-probability of one row's target, summed up while its logits come panel by panel. The logits
//! themselves are never kept.

use crate::lanes::{Lanes, join};

/// Sum over a row's logits so far, and the logit of its target.
#[derive(Clone, Copy, Debug)]
pub struct LogSum {
    /// A logit; none so far is above it by more than [`LogSum::ABOVE`].
    pub(crate) reference: f32,
    /// Sums of `exp(logit - reference)` of columns that are not yet folded, each in lane `column % LANES`.
    pub(crate) lanes: Lanes,
    /// Sum of `exp(logit - reference)` of the columns that are folded.
    sum: f64,
    pub(crate) target: u32,
    /// The target's logit, once it was seen.
    pub(crate) logit: f32,
}

impl LogSum {
    /// No sum of exponentials overflows as long as no logit is further above the reference.
    pub(crate) const ABOVE: f32 = 40.0;

    /// A row without logits, whose `target` is a column.
    #[inline]
    #[must_use]
    pub fn new(target: u32) -> Self {
        let (lanes, reference) = (Lanes::ZERO, f32::NEG_INFINITY);
        Self { lanes, reference, sum: 0.0, target, logit: f32::NAN }
    }

    /// Makes a larger logit the reference.
    #[cold]
    pub(crate) fn rescale_to(&mut self, logit: f32) {
        let factor = libm::exp(f64::from(self.reference) - f64::from(logit));
        self.sum *= factor;
        self.lanes.0.iter_mut().for_each(|lane| *lane = (f64::from(*lane) * factor) as f32);
        self.reference = logit;
    }

    /// Adds up in f64 what was added in f32, so that its error does not grow with the vocabulary.
    #[inline]
    pub fn fold_into_f64(&mut self) {
        self.sum += f64::from(join(self.lanes.0));
        self.lanes = Lanes::ZERO;
    }

    /// `ln p(target)`, when all logits are folded.
    #[inline]
    #[must_use]
    pub fn log_probability(&self) -> f64 {
        f64::from(self.logit) - f64::from(self.reference) - libm::log(self.sum)
    }
}
