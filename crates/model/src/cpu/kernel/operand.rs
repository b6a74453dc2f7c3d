use super::packed::{Pairs, depth_of};
use super::{Kernel, LANES, row};
use crate::Compute;
use crate::cpu::workspace::take;

/// In what form the left side of a product is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    F32,
    /// Rounded to bf16, in f32: for kernels that do not multiply bf16.
    Rounded,
    /// Pairs of bf16.
    Pairs,
}

/// Values of a step.
const VALUES: usize = 2 * LANES;

/// The left side of a product, `[row][input]`, rounded once and read by any number of products.
pub(crate) struct Operand {
    kernel: Kernel,
    form: Form,
    rows: usize,
    inputs: usize,
    floats: Vec<f32>,
    /// Steps of rows, where [`Operand::place`] says. They are aligned: what crosses cache lines is
    /// read at half the speed.
    pairs: Vec<Pairs>,
}

impl Kernel {
    /// In what form its products read the left side.
    pub(crate) fn form(self, compute: Compute) -> Form {
        match compute {
            Compute::Bf16 if self.multiplies_bf16() => Form::Pairs,
            Compute::Bf16 => Form::Rounded,
            _ => Form::F32,
        }
    }

    /// The same of attention's products: without instructions for it, bf16 would gain nothing.
    pub(crate) fn attention_form(self, compute: Compute) -> Form {
        match self.form(compute) {
            Form::Rounded => Form::F32,
            form => form,
        }
    }
}

impl Default for Operand {
    fn default() -> Self {
        let (floats, pairs) = (Vec::new(), Vec::new());
        Self { kernel: Kernel::Portable, form: Form::F32, rows: 0, inputs: 0, floats, pairs }
    }
}

impl Operand {
    /// Makes place for `rows` rows of `inputs` values, whose values are leftovers until they are set.
    pub(crate) fn start(
        &mut self,
        kernel: Kernel,
        form: Form,
        rows: usize,
        inputs: usize,
    ) -> &mut Self {
        (self.kernel, self.form, self.rows, self.inputs) = (kernel, form, rows, inputs);
        match form {
            Form::Pairs => {
                let steps = self.steps();
                take(&mut self.pairs, kernel.rows_of_pairs(rows) * steps);
                let (whole, rest) = (inputs / VALUES, inputs % VALUES / 2);
                for row in 0..rows {
                    for step in whole..steps {
                        let from = if step == whole { rest } else { 0 };
                        let place = self.place(row, step);
                        self.pairs[place].0[from..].fill(0);
                    }
                }
            }
            Form::F32 | Form::Rounded => {
                take(&mut self.floats, rows * inputs);
            }
        }
        self
    }

    /// Sets values of a row, from an even place on.
    pub(crate) fn set(&mut self, row: usize, first: usize, values: &[f32]) {
        debug_assert!(first.is_multiple_of(2), "pairs are whole");
        let kernel = self.kernel;
        match self.form {
            Form::Pairs => {
                let place = self.place(row, first / VALUES);
                let within = first % VALUES;
                if within == 0 {
                    let stride = kernel.stride_of_pairs();
                    kernel.round_to_steps(values, &mut self.pairs[place..], stride);
                } else {
                    let (values, rest) = values.split_at(values.len().min(VALUES - within));
                    let pairs = &mut self.pairs[place].0[within / 2..];
                    row::round_to_pairs(values, &mut pairs[..values.len().div_ceil(2)]);
                    if !rest.is_empty() {
                        self.set(row, first + values.len(), rest);
                    }
                }
            }
            Form::Rounded => {
                let start = row * self.inputs + first;
                kernel.round_to_bf16(values, &mut self.floats[start..][..values.len()]);
            }
            Form::F32 => {
                let start = row * self.inputs + first;
                self.floats[start..][..values.len()].copy_from_slice(values);
            }
        }
    }

    /// Sets every row.
    pub(crate) fn set_all(&mut self, values: &[f32]) {
        for (row, values) in values.chunks_exact(self.inputs).enumerate() {
            self.set(row, 0, values);
        }
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(crate) fn floats(&self) -> &[f32] {
        &self.floats[..self.rows * self.inputs]
    }

    /// Steps of rows, as far apart as [`Kernel::stride_of_pairs`] says.
    pub(crate) fn pairs(&self) -> &[Pairs] {
        &self.pairs
    }

    /// Steps of a row.
    fn steps(&self) -> usize {
        depth_of(self.inputs) / LANES
    }

    /// Where a step of a row is: of as many rows as the kernel loads at once, the first steps stand
    /// side by side, then the second ones.
    fn place(&self, row: usize, step: usize) -> usize {
        let at_once = self.kernel.stride_of_pairs();
        (row / at_once * self.steps() + step) * at_once + row % at_once
    }
}
