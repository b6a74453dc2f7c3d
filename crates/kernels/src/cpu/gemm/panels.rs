//! Right sides of products that the caller packs anew, K and V: borrowed panels and packed rows come in,
//! an epilogue gets the sums.

use crate::cpu::gemm::blocking::k_steps_of_pairs;
use crate::cpu::gemm::epilogue::Epilogue;
use crate::cpu::gemm::pack_lhs::{LhsFormat, PackedLhs};
use crate::isa::Kernel;
use crate::lanes::{Lanes, Pairs};

/// Steps of a panel for a sum over `inputs` values.
#[inline]
#[must_use]
pub fn k_steps(format: LhsFormat, inputs: usize) -> usize {
    match format {
        LhsFormat::Bf16Pairs => k_steps_of_pairs(inputs),
        _ => inputs,
    }
}

/// Panels of 16 columns, of which products take the first `k_steps` steps.
pub struct RhsPanels<'a> {
    /// Format in which the left side must be.
    pub format: LhsFormat,
    /// Steps of a panel that products take.
    pub k_steps: usize,
    /// Steps from a panel's first to the next one's.
    pub stride: usize,
    /// Steps of all panels.
    pub steps: &'a [Lanes],
}

impl RhsPanels<'_> {
    /// Number of panels.
    #[inline]
    #[must_use]
    pub fn panels(&self) -> usize {
        self.steps.len().div_ceil(self.stride)
    }

    /// Multiplies `x` by all panels.
    pub fn product(&self, kernel: Kernel, x: &PackedLhs, epilogue: impl Epilogue) {
        let (panels, k_steps) = (self.panels(), self.k_steps);
        match self.format {
            LhsFormat::Bf16Pairs => {
                let pairs: &[Pairs] = bytemuck::cast_slice(self.steps);
                let panel = |p| &pairs[p * self.stride..][..k_steps];
                kernel.product_of_pairs(x.pairs(), x.rows(), panels, panel, epilogue);
            }
            _ => {
                let panel = |p| &self.steps[p * self.stride..][..k_steps];
                kernel.product(x.floats(), k_steps, x.rows(), panels, panel, epilogue);
            }
        }
    }
}
