//! Right sides of products that are laid out anew: K and V.

use super::{Form, Kernel, Lanes, Operand, Pairs, Sink, depth_of};

/// Steps of a panel for a sum over `inputs` values.
pub(crate) fn depth(form: Form, inputs: usize) -> usize {
    match form {
        Form::Pairs => depth_of(inputs),
        _ => inputs,
    }
}

/// Panels of 16 columns, of which products take the first `depth` steps.
pub(crate) struct Panels<'a> {
    pub(crate) form: Form,
    pub(crate) depth: usize,
    /// Steps from a panel's first to the next one's.
    pub(crate) stride: usize,
    pub(crate) steps: &'a [Lanes],
}

impl Panels<'_> {
    pub(crate) fn panels(&self) -> usize {
        self.steps.len().div_ceil(self.stride)
    }

    /// `x` times all panels.
    pub(crate) fn product(&self, kernel: Kernel, x: &Operand, sink: impl Sink) {
        let (panels, depth) = (self.panels(), self.depth);
        match self.form {
            Form::Pairs => {
                let pairs: &[Pairs] = bytemuck::cast_slice(self.steps);
                let panel = |p| &pairs[p * self.stride..][..depth];
                kernel.product_of_pairs(x.pairs(), x.rows(), panels, panel, sink);
            }
            _ => {
                let panel = |p| &self.steps[p * self.stride..][..depth];
                kernel.product(x.floats(), depth, x.rows(), panels, panel, sink);
            }
        }
    }
}
