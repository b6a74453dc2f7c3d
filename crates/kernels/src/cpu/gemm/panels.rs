//! Right sides of products that the caller lays out anew, K and V: borrowed panels and packed rows come in,
//! an epilogue gets the sums.

use super::blocking::depth_of;
use super::epilogue::Epilogue;
use super::pack_lhs::{LhsFormat, PackedLhs};
use crate::isa::Kernel;
use crate::lanes::{Lanes, Pairs};

/// Steps of a panel for a sum over `inputs` values.
#[inline]
#[must_use]
pub fn depth(format: LhsFormat, inputs: usize) -> usize {
    match format {
        LhsFormat::Bf16Pairs => depth_of(inputs),
        _ => inputs,
    }
}

/// Panels of 16 columns, of which products take the first `depth` steps.
pub struct Panels<'a> {
    /// Format in which the left side must be.
    pub format: LhsFormat,
    /// Steps of a panel that products take.
    pub depth: usize,
    /// Steps from a panel's first to the next one's.
    pub stride: usize,
    /// Steps of all panels.
    pub steps: &'a [Lanes],
}

impl Panels<'_> {
    /// Number of panels.
    #[inline]
    #[must_use]
    pub fn panels(&self) -> usize {
        self.steps.len().div_ceil(self.stride)
    }

    /// Multiplies `x` by all panels.
    pub fn product(&self, kernel: Kernel, x: &PackedLhs, epilogue: impl Epilogue) {
        let (panels, depth) = (self.panels(), self.depth);
        match self.format {
            LhsFormat::Bf16Pairs => {
                let pairs: &[Pairs] = bytemuck::cast_slice(self.steps);
                let panel = |p| &pairs[p * self.stride..][..depth];
                kernel.product_of_pairs(x.pairs(), x.rows(), panels, panel, epilogue);
            }
            _ => {
                let panel = |p| &self.steps[p * self.stride..][..depth];
                kernel.product(x.floats(), depth, x.rows(), panels, panel, epilogue);
            }
        }
    }
}
