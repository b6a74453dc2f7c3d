//! Softmax of attention's scores: queries and keys come in, weights go out as the left side of the product
//! with V. It knows no head and no layer.

use crate::cpu::attention::mask::CausalMask;
#[cfg(target_arch = "x86_64")]
use crate::cpu::attention::online_softmax::{OnlineSoftmax, RowWeights};
use crate::cpu::gemm::epilogue::OutputRows;
#[cfg(target_arch = "x86_64")]
use crate::cpu::gemm::pack_lhs::LhsFormat;
use crate::cpu::gemm::pack_lhs::PackedLhs;
use crate::cpu::gemm::panels::RhsPanels;
use crate::isa::Kernel;
use crate::lanes::PANEL;
use crate::memory::aligned::{Floats, take};

/// Factors of scores, and what is done to them.
pub struct Scores<'a> {
    /// Left side of the product.
    pub queries: &'a PackedLhs,
    /// Columns of the scores, which end with the last one that is seen.
    pub keys: RhsPanels<'a>,
    /// Columns that each row sees.
    pub mask: CausalMask,
    /// The bound to which scores are squeezed.
    pub cap: Option<f32>,
}

/// Weights of the columns that a row sees, `exp(score - m)` with an `m` of the row's own, and their sum.
#[derive(Default)]
pub struct Softmax {
    weights: PackedLhs,
    /// No number where a row has no weights yet.
    sums: Vec<f32>,
    scores: Floats,
    /// The sums that all rows have by their largest scores.
    all_sums: Floats,
    #[cfg(target_arch = "x86_64")]
    rows: Vec<RowWeights>,
}

impl Softmax {
    /// The weights, 0 where a row sees nothing.
    #[inline]
    #[must_use]
    pub fn weights(&self) -> &PackedLhs {
        &self.weights
    }

    /// The sum of each row's weights.
    #[inline]
    #[must_use]
    pub fn sums(&self) -> &[f32] {
        &self.sums[..self.weights.rows()]
    }

    /// Makes weights of all rows.
    pub fn take(&mut self, kernel: Kernel, scores: &Scores<'_>) {
        let rows = scores.queries.rows();
        let columns = scores.mask.span(rows - 1).end;
        self.weights.start(kernel, scores.keys.format, rows, columns);
        take(&mut self.sums, rows).fill(f32::NAN);
        #[cfg(target_arch = "x86_64")]
        if scores.keys.format == LhsFormat::Bf16Pairs {
            self.take_on_the_way(kernel, scores);
        }
        if self.sums().iter().any(|sum| sum.is_nan()) {
            self.take_all(kernel, scores);
        }
    }

    /// Makes weights of scores as they come, where that does.
    #[cfg(target_arch = "x86_64")]
    fn take_on_the_way(&mut self, kernel: Kernel, scores: &Scores<'_>) {
        let Scores { queries, ref keys, mask, cap } = *scores;
        let rows = take(&mut self.rows, queries.rows());
        let weights = &mut self.weights;
        keys.product(kernel, queries, OnlineSoftmax { kernel, cap, mask, weights, rows });
        for (sum, row) in self.sums.iter_mut().zip(rows) {
            *sum = row.sum().unwrap_or(f32::NAN);
        }
    }

    /// Makes weights of the rows that have none, by the largest of all their scores.
    fn take_all(&mut self, kernel: Kernel, scores: &Scores<'_>) {
        let Scores { queries, ref keys, mask, cap } = *scores;
        let (rows, columns) = (queries.rows(), keys.panels() * PANEL);
        let scores = self.scores.take(rows * columns);
        keys.product(kernel, queries, OutputRows::put(kernel, scores, columns));
        if let Some(cap) = cap {
            let rows = scores.chunks_exact_mut(columns).enumerate();
            rows.for_each(|(i, row)| kernel.soft_cap(&mut row[mask.span(i)], cap));
        }
        let all_sums = self.all_sums.take(rows);
        kernel.exp_and_sum(scores, columns, mask, all_sums);
        let sums = self.sums.iter_mut().zip(all_sums);
        for (i, (row, (sum, all))) in scores.chunks_exact(columns).zip(sums).enumerate() {
            if sum.is_nan() {
                self.weights.set(i, 0, &row[..self.weights.inputs()]);
                *sum = *all;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::gemm::pack_lhs::LhsFormat;
    use crate::cpu::gemm::panels::k_steps;
    use crate::dtype::ComputeDtype;
    use crate::lanes::{Lanes, Pairs, panels_of};

    /// Columns `1, 0, 0, ...`, `0, 1, 0, ...`: a product with them is its left side.
    fn identity(format: LhsFormat, size: usize) -> Vec<Lanes> {
        let k_steps = k_steps(format, size);
        let mut steps = vec![Lanes::ZERO; panels_of(size) * k_steps];
        for i in 0..size {
            let panel = &mut steps[i / PANEL * k_steps..][..k_steps];
            if format == LhsFormat::Bf16Pairs {
                let pairs: &mut [Pairs] = bytemuck::cast_slice_mut(panel);
                pairs[i / 2].0[i % PANEL] = 0x3f80 << (16 * (i % 2));
            } else {
                panel[i].0[i % PANEL] = 1.0;
            }
        }
        steps
    }

    fn panels(format: LhsFormat, size: usize, steps: &[Lanes]) -> RhsPanels<'_> {
        let k_steps = k_steps(format, size);
        RhsPanels { format, k_steps, stride: k_steps, steps }
    }

    /// Weights and sums of scores, `[row][column]`, as queries of which a row sees some columns.
    fn softmax_of(
        kernel: Kernel,
        dtype: ComputeDtype,
        scores: &[f32],
        columns: usize,
        mask: CausalMask,
        cap: Option<f32>,
    ) -> (Vec<f32>, Vec<f32>) {
        let format = kernel.attention_lhs_format(dtype);
        let mut queries = PackedLhs::default();
        queries.start(kernel, format, scores.len() / columns, columns).set_all(scores);
        let rows = queries.rows();
        let (steps, end) = (identity(format, columns), mask.span(rows - 1).end);
        let keys = &steps[..panels_of(end) * k_steps(format, columns)];
        let mut softmax = Softmax::default();
        // Sums of before count for nothing.
        for _ in 0..2 {
            let keys = panels(format, columns, keys);
            softmax.take(kernel, &Scores { queries: &queries, keys, mask, cap });
        }
        let (steps, mut mask) = (identity(format, end), vec![0.0; rows * end]);
        let out = OutputRows::put(kernel, &mut mask, end);
        panels(format, end, &steps).product(kernel, softmax.weights(), out);
        let mut weights = vec![0.0; scores.len()];
        for (all, mask) in weights.chunks_exact_mut(columns).zip(mask.chunks_exact(end)) {
            all[..end].copy_from_slice(mask);
        }
        (weights, softmax.sums().to_vec())
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    proptest! {
        #[test]
        fn weights_are_those_of_the_scores(
            // Multiples of 1/8 up to 32, which rounding to bf16 leaves as they are.
            scores in prop::collection::vec(
                prop_oneof![20 => -9_i32..9, 1 => -255_i32..255, 1 => Just(-2000), 1 => Just(4000)], 40 * 130
            ),
            rows in 1_usize..40, group in 1_usize..4, before in 0_usize..100,
            window in prop_oneof![Just(usize::MAX), 1_usize..130],
            cap in prop::option::of(5.0_f32..50.0),
        ) {
            let columns = before + rows.div_ceil(group);
            let scores: Vec<f32> =
                scores.into_iter().take(rows * columns).map(|score| score as f32 / 8.0).collect();
            let mask = CausalMask { first: before, group, window };
            for kernel in Kernel::available() {
                for (dtype, rounding) in [(ComputeDtype::F32, 1e-6), (ComputeDtype::Bf16, 1.0 / 128.0)] {
                    let (weights, sums) = softmax_of(kernel, dtype, &scores, columns, mask, cap);
                    let all = weights.chunks_exact(columns).zip(scores.chunks_exact(columns));
                    for (row, ((weights, scores), sum)) in all.zip(&sums).enumerate() {
                        let span = mask.span(row);
                        let score = |i: usize| {
                            let score = f64::from(scores[i]);
                            cap.map(f64::from).map_or(score, |cap| cap * (score / cap).tanh())
                        };
                        let max = span.clone().map(score).fold(f64::NEG_INFINITY, f64::max);
                        let total: f64 = span.clone().map(|i| (score(i) - max).exp()).sum();
                        for (i, weight) in weights.iter().enumerate() {
                            let expected = (score(i) - max).exp() / total;
                            let found = f64::from(*weight) / f64::from(*sum);
                            let close = 1e-30 + expected * (rounding + 1e-5);
                            let is_right = if span.contains(&i) {
                                (found - expected).abs() <= close
                            } else {
                                *weight == 0.0
                            };
                            prop_assert!(is_right, "{:?} {} {} {} {}", kernel, row, i, found, expected);
                        }

                        let own = CausalMask { first: before + row / group, ..mask };
                        let alone = softmax_of(kernel, dtype, scores, columns, own, cap);
                        prop_assert_eq!(bits(&alone.0), bits(weights), "{:?} {}", kernel, row);
                        prop_assert_eq!(bits(&alone.1), bits(&[*sum]), "{:?} {}", kernel, row);
                    }
                }
            }
        }
    }

    /// A product divided by the sum is then a mean, whatever the rounding of the weights.
    #[test]
    fn sums_are_those_of_the_rounded_weights() {
        let columns = 200;
        let scores: Vec<f32> =
            (0..40 * columns).map(|i| (i * 7919 % 401) as f32 / 16.0 - 12.0).collect();
        let mask = CausalMask { first: columns - 40, group: 1, window: usize::MAX };
        for kernel in Kernel::available() {
            let (weights, sums) =
                softmax_of(kernel, ComputeDtype::Bf16, &scores, columns, mask, None);
            for (weights, sum) in weights.chunks_exact(columns).zip(sums) {
                let total: f64 = weights.iter().copied().map(f64::from).sum();
                assert!((total / f64::from(sum) - 1.0).abs() < 1e-6, "{kernel:?} {total} {sum}");
            }
        }
    }

    #[test]
    fn a_score_that_is_no_number_gives_none() {
        for kernel in Kernel::available() {
            for dtype in [ComputeDtype::F32, ComputeDtype::Bf16] {
                for at in 0..40 {
                    let mut scores = [1.0; 40];
                    scores[at] = f32::NAN;
                    let mask = CausalMask { first: 39, group: 1, window: usize::MAX };
                    let (_, sums) = softmax_of(kernel, dtype, &scores, 40, mask, None);
                    assert!(sums[0].is_nan(), "{kernel:?} {at}");
                }
            }
        }
    }
}
