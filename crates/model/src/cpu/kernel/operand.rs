use super::packed::{Pairs, depth_of};
use super::{Kernel, LANES};
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

/// The left side of a product, `[row][input]`, rounded once and read by any number of products.
pub(crate) struct Operand {
    kernel: Kernel,
    form: Form,
    rows: usize,
    inputs: usize,
    floats: Vec<f32>,
    /// Rows of 64 bytes, aligned: a row that crosses cache lines is read at half the speed.
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
                let depth = depth_of(inputs);
                let pairs = take(&mut self.pairs, kernel.rows_of_pairs(rows) * depth / LANES);
                let pairs: &mut [u32] = bytemuck::cast_slice_mut(pairs);
                for row in pairs.chunks_exact_mut(depth) {
                    row[inputs / 2..].fill(0);
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
                let start = row * depth_of(self.inputs) + first / 2;
                let pairs: &mut [u32] = bytemuck::cast_slice_mut(&mut self.pairs);
                let pairs = &mut pairs[start..][..values.len().div_ceil(2)];
                kernel.round_to_pairs(values, pairs);
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

    pub(crate) fn pairs(&self) -> &[u32] {
        bytemuck::cast_slice(&self.pairs)
    }
}
