//! Rows as the left side of products: floats come in, and go out in the format that the micro-kernels read,
//! rounded once for any number of products. It does not know what they are multiplied by.

use std::ops::Range;

use crate::cpu::gemm::blocking::{VALUES, VALUES_OF_QUADS, k_steps_of_pairs, k_steps_of_quads};
#[cfg(target_arch = "x86_64")]
use crate::cpu::microkernel::avx512;
use crate::cpu::rows::generic;
use crate::cpu::rows::hadamard::order;
#[cfg(target_arch = "x86_64")]
use crate::cpu::rows::rms_norm;
use crate::dtype::ComputeDtype;
use crate::isa::Kernel;
use crate::lanes::{LANES, Lanes, Pairs, Quads};
use crate::memory::aligned::{Floats, take};

/// Format in which the left side of a product is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LhsFormat {
    /// Floats as they are.
    F32,
    /// Values rounded to bf16, in f32: for kernels that do not multiply bf16.
    F32RoundedToBf16,
    /// Pairs of bf16.
    Bf16Pairs,
    /// Groups of four int8. A Hadamard rotation spreads outliers, then the largest value of a row is
    /// rounded to 127.
    Int8Quads,
}

/// The left side of a product, `[row][input]`, rounded once and read by any number of products.
pub struct PackedLhs {
    kernel: Kernel,
    format: LhsFormat,
    rows: usize,
    inputs: usize,
    /// Steps of a row, of pairs or of fours.
    steps: usize,
    floats: Floats,
    /// Steps of rows, where [`PackedLhs::index`] says. They are aligned: what crosses cache lines is
    /// read at half the speed.
    pairs: Vec<Pairs>,
    /// Steps of fours, where [`PackedLhs::index`] says.
    quads: Vec<Quads>,
    /// Value that an integer of a row stands for.
    scales: Vec<f32>,
}

impl Kernel {
    /// Format in which its products read the left side.
    #[inline]
    #[must_use]
    pub fn lhs_format(self, dtype: ComputeDtype) -> LhsFormat {
        match dtype {
            ComputeDtype::Bf16 if self.multiplies_bf16() => LhsFormat::Bf16Pairs,
            ComputeDtype::Bf16 => LhsFormat::F32RoundedToBf16,
            ComputeDtype::Int8 => LhsFormat::Int8Quads,
            _ => LhsFormat::F32,
        }
    }

    /// Format in which attention's products read the left side: without instructions for it, bf16 would gain
    /// nothing.
    #[inline]
    #[must_use]
    pub fn attention_lhs_format(self, dtype: ComputeDtype) -> LhsFormat {
        match self.lhs_format(dtype.head_dtype()) {
            LhsFormat::F32RoundedToBf16 => LhsFormat::F32,
            format => format,
        }
    }

    /// Rounds to the nearest bf16, ties to even, as pairs, each 32 values `stride` steps after those
    /// before. What a last step has beyond the values stays as it is.
    #[inline]
    fn round_to_steps(self, x: &[f32], out: &mut [Pairs], stride: usize) {
        #[cfg(target_arch = "x86_64")]
        if self.multiplies_bf16() {
            return avx512::round_to_steps(x, out, stride);
        }
        generic::round_to_steps(x, out, stride);
    }
}

impl Default for PackedLhs {
    fn default() -> Self {
        Self {
            kernel: Kernel::Portable,
            format: LhsFormat::F32,
            rows: 0,
            inputs: 0,
            steps: 0,
            floats: Floats::default(),
            pairs: Vec::new(),
            quads: Vec::new(),
            scales: Vec::new(),
        }
    }
}

impl PackedLhs {
    /// Makes place for `rows` rows of `inputs` values, whose values are leftovers until they are set.
    pub fn start(
        &mut self,
        kernel: Kernel,
        format: LhsFormat,
        rows: usize,
        inputs: usize,
    ) -> &mut Self {
        (self.kernel, self.format, self.rows, self.inputs) = (kernel, format, rows, inputs);
        let k_steps = if format == LhsFormat::Int8Quads {
            k_steps_of_quads(inputs)
        } else {
            k_steps_of_pairs(inputs)
        };
        self.steps = k_steps / LANES;
        let steps = self.steps;
        match format {
            LhsFormat::Bf16Pairs => {
                take(&mut self.pairs, kernel.rows_of_pairs(rows) * steps);
                let (whole, rest) = (inputs / VALUES, inputs % VALUES / 2);
                for row in 0..rows {
                    for step in whole..steps {
                        let from = if step == whole { rest } else { 0 };
                        let index = self.index(row, step);
                        self.pairs[index].0[from..].fill(0);
                    }
                }
            }
            LhsFormat::Int8Quads => {
                self.floats.take(rows * inputs);
                take(&mut self.scales, rows);
                take(&mut self.quads, kernel.rows_of_pairs(rows) * steps);
                let (whole, rest) = (inputs / VALUES_OF_QUADS, inputs % VALUES_OF_QUADS);
                for row in 0..rows {
                    for step in whole..steps {
                        let from = if step == whole { rest } else { 0 };
                        let index = self.index(row, step);
                        self.quads[index].0[from..].fill(0);
                    }
                }
            }
            LhsFormat::F32 | LhsFormat::F32RoundedToBf16 => {
                self.floats.take(rows * inputs);
            }
        }
        self
    }

    /// Sets values of a row, from an even place on. The last ones come last: a row is rounded to int8 as
    /// a whole.
    pub fn set(&mut self, row: usize, first: usize, values: &[f32]) {
        debug_assert!(first.is_multiple_of(2), "pairs are whole");
        let kernel = self.kernel;
        match self.format {
            LhsFormat::Bf16Pairs => {
                let index = self.index(row, first / VALUES);
                let within = first % VALUES;
                if within == 0 {
                    let stride = kernel.stride_of_pairs();
                    kernel.round_to_steps(values, &mut self.pairs[index..], stride);
                } else {
                    let (values, rest) = values.split_at(values.len().min(VALUES - within));
                    let pairs = &mut self.pairs[index].0[within / 2..];
                    generic::round_to_pairs(values, &mut pairs[..values.len().div_ceil(2)]);
                    if !rest.is_empty() {
                        self.set(row, first + values.len(), rest);
                    }
                }
            }
            LhsFormat::F32RoundedToBf16 => {
                let start = row * self.inputs + first;
                let out = &mut self.floats.take(self.rows * self.inputs)[start..][..values.len()];
                kernel.round_to_bf16(values, out);
            }
            LhsFormat::F32 | LhsFormat::Int8Quads => {
                let start = row * self.inputs + first;
                let out = &mut self.floats.take(self.rows * self.inputs)[start..];
                out[..values.len()].copy_from_slice(values);
                if self.format == LhsFormat::Int8Quads && first + values.len() == self.inputs {
                    self.quantise(row);
                }
            }
        }
    }

    /// Sets values from `first` on, the start of a panel, of rows from `row` on, as [`PackedLhs::set`] does:
    /// `width` of each.
    pub(crate) fn set_sums(&mut self, row: usize, first: usize, sums: &[Lanes], width: usize) {
        #[cfg(target_arch = "x86_64")]
        if self.format == LhsFormat::Bf16Pairs && width == LANES {
            let half = first % VALUES / LANES;
            return self.steps_of_rows(row..row + sums.len(), first / VALUES, |rows, steps| {
                avx512::round_to_halves(&sums[rows], steps, half);
            });
        }
        if matches!(self.format, LhsFormat::F32 | LhsFormat::Int8Quads) {
            let values =
                &mut self.floats.take(self.rows * self.inputs)[row * self.inputs + first..];
            self.kernel.put(values, self.inputs, sums, width);
            if self.format == LhsFormat::Int8Quads && first + width == self.inputs {
                (row..row + sums.len()).for_each(|row| self.quantise(row));
            }
            return;
        }
        for (row, lanes) in (row..).zip(sums) {
            self.set(row, first, &lanes.0[..width]);
        }
    }

    /// Gives `each` the steps with number `step` of rows that stand side by side, and the numbers of
    /// these rows, counted from the first.
    #[inline(always)]
    pub(crate) fn steps_of_rows(
        &mut self,
        rows: Range<usize>,
        step: usize,
        mut each: impl FnMut(Range<usize>, &mut [Pairs]),
    ) {
        let at_once = self.kernel.stride_of_pairs();
        let mut row = rows.start;
        while row < rows.end {
            let end = rows.end.min(row + at_once - row % at_once);
            let index = self.index(row, step);
            each(row - rows.start..end - rows.start, &mut self.pairs[index..]);
            row = end;
        }
    }

    fn quantise(&mut self, row: usize) {
        let (inputs, index) = (self.inputs, self.index(row, 0));
        let values = &mut self.floats.take(self.rows * inputs)[row * inputs..][..inputs];
        let (quads, stride) = (&mut self.quads[index..], self.kernel.stride_of_pairs());
        let scale = self.kernel.quantise(values, quads, stride);
        // Both sides of a product are multiplied by Hadamard matrices without their norm.
        self.scales[row] = scale / order(inputs) as f32;
    }

    /// Sets every row to one of `x`, normed (see [`Kernel::rms_norm`]). `row` is a buffer of one.
    pub fn set_normed(&mut self, x: &[f32], weight: &[f32], eps: f32, row: &mut [f32]) {
        let done = self.set_normed_at_once(x, weight, eps);
        for (i, x) in x.chunks_exact(weight.len()).enumerate().skip(done) {
            self.kernel.rms_norm(x, weight, eps, row);
            self.set(i, 0, row);
        }
    }

    /// Sets the first rows to those of `x`, normed, and says how many.
    #[cfg(target_arch = "x86_64")]
    fn set_normed_at_once(&mut self, x: &[f32], weight: &[f32], eps: f32) -> usize {
        if self.format != LhsFormat::Bf16Pairs || !weight.len().is_multiple_of(VALUES) {
            return 0;
        }
        let step_stride = self.kernel.stride_of_pairs();
        let row_stride = if step_stride == 1 { self.steps } else { 1 };
        let some = x.chunks_exact(rms_norm::ROWS * weight.len());
        let count = some.len();
        for (i, x) in some.enumerate() {
            let index = self.index(i * rms_norm::ROWS, 0);
            rms_norm::rows(x, weight, eps, &mut self.pairs[index..], [row_stride, step_stride]);
        }
        count * rms_norm::ROWS
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn set_normed_at_once(&mut self, _: &[f32], _: &[f32], _: f32) -> usize {
        0
    }

    /// Sets every row.
    pub fn set_all(&mut self, values: &[f32]) {
        for (row, values) in values.chunks_exact(self.inputs).enumerate() {
            self.set(row, 0, values);
        }
    }

    /// Format in which the rows are held.
    #[inline]
    #[must_use]
    pub fn format(&self) -> LhsFormat {
        self.format
    }

    /// Number of rows.
    #[inline]
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    #[inline]
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    #[inline]
    pub(crate) fn floats(&self) -> &[f32] {
        self.floats.get(self.rows * self.inputs)
    }

    /// Steps of rows, as far apart as [`Kernel::stride_of_pairs`] says.
    #[inline]
    pub(crate) fn pairs(&self) -> &[Pairs] {
        &self.pairs
    }

    /// Steps of fours, as far apart, and the scales of the rows.
    #[inline]
    pub(crate) fn quads(&self) -> (&[Quads], &[f32]) {
        (&self.quads, &self.scales[..self.rows])
    }

    /// Place of a step of a row: of as many rows as the kernel loads at once, the first steps stand
    /// side by side, then the second ones.
    fn index(&self, row: usize, step: usize) -> usize {
        let at_once = self.kernel.stride_of_pairs();
        (row / at_once * self.steps + step) * at_once + row % at_once
    }
}
