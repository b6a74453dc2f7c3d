//! The epilogue of log-probabilities: tiles of logits come in, which are never all in memory, and sums of
//! exponentials go out. It does not know what the columns mean.

use crate::cpu::gemm::blocking::PANELS;
use crate::cpu::gemm::epilogue::{Epilogue, Tile};
use crate::cpu::rows::log_sum::LogSum;
use crate::isa::Kernel;
use crate::lanes::{LANES, PANEL};

/// Adds the logits of rows to their sums.
pub struct LogSums<'a> {
    /// Instruction set that adds.
    pub kernel: Kernel,
    /// The bound to which logits are squeezed.
    pub cap: Option<f32>,
    /// The first column of the product, a panel's.
    pub first: usize,
    /// Columns of the product.
    pub columns: usize,
    /// Sums of all rows.
    pub rows: &'a mut [LogSum],
}

impl LogSums<'_> {
    /// Makes logits of a tile's sums, `width` of whose columns there are.
    #[inline(never)]
    fn finish(&self, tile: &mut Tile<'_>, width: usize) {
        for (logits, panel) in tile.sums.iter_mut().zip(0..) {
            if let Some(cap) = self.cap {
                self.kernel.soft_cap(bytemuck::cast_slice_mut(logits), cap);
            }
            // What is beyond the vocabulary has no part in it.
            let width = width.saturating_sub(panel * PANEL).min(LANES);
            logits.iter_mut().for_each(|logits| logits.0[width..].fill(f32::NEG_INFINITY));
        }
    }
}

impl Epilogue for LogSums<'_> {
    const TAKES_FEW: bool = true;

    #[inline(always)]
    fn take(&mut self, mut tile: Tile<'_>) {
        let column = tile.panel * PANEL;
        let width = self.columns - column;
        if self.cap.is_some() || width < PANELS * PANEL {
            self.finish(&mut tile, width);
        }
        let (rows, mut first) = (&mut self.rows[tile.row..], self.first + column);
        for logits in tile.sums {
            let rows = &mut rows[..logits.len()];
            self.kernel.add_exp(logits, rows);
            for (logits, row) in logits.iter().zip(rows) {
                let column = (row.target as usize).wrapping_sub(first);
                if let Some(logit) = logits.0.get(column) {
                    row.logit = *logit;
                }
            }
            first += PANEL;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::gemm::pack_lhs::PackedLhs;
    use crate::cpu::gemm::pack_rhs::PackedWeights;
    use crate::dtype::ComputeDtype;
    use crate::lanes::Lanes;

    proptest! {
        #[test]
        fn sums_are_those_of_all_logits(
            logits in prop::collection::vec(
                prop_oneof![20 => -9.0_f32..9.0, 1 => -300.0_f32..300.0], 3 * 4 * LANES
            ),
            columns in 1..3 * 4 * LANES, target: prop::sample::Index, cap in prop::option::of(5.0_f32..50.0),
        ) {
            let logits = &logits[..columns];
            let target = target.index(columns);
            let log = |kernel: Kernel| {
                let mut rows = [LogSum::new(target as u32); 2];
                for (group, part) in logits.chunks(4 * LANES).enumerate() {
                    let first = group * 4 * LANES;
                    let mut epilogue = LogSums { kernel, cap, first, columns: part.len(), rows: &mut rows };
                    for (panel, part) in part.chunks(PANEL).enumerate() {
                        let mut lanes = Lanes::ZERO;
                        lanes.0[..part.len()].copy_from_slice(part);
                        epilogue.take(Tile { row: 1, panel, sums: [&mut [lanes], &mut []] });
                    }
                    rows.iter_mut().for_each(LogSum::fold_into_f64);
                }
                rows[1].log_probability()
            };
            let squeezed = |logit: f32| {
                let logit = f64::from(logit);
                cap.map_or(logit, |cap| f64::from(cap) * (logit / f64::from(cap)).tanh())
            };
            let max = logits.iter().map(|logit| squeezed(*logit)).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|logit| (squeezed(*logit) - max).exp()).sum();
            let expected = squeezed(logits[target]) - max - sum.ln();
            for kernel in Kernel::available() {
                prop_assert_eq!(log(kernel).to_bits(), log(Kernel::Portable).to_bits());
                prop_assert!((log(kernel) - expected).abs() < 2e-5, "{} {}", log(kernel), expected);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn sums_of_a_product_are_those_of_its_rows(
            rows in 1_usize..70, columns in 1_usize..120, target: prop::sample::Index,
            cap in prop::option::of(5.0_f32..50.0),
        ) {
            let value = |i: usize| (i * 7919 % 10_007) as f32 / 500.0 - 10.0;
            let inputs = 40;
            let mut weights = PackedWeights::zeroed(columns, inputs, ComputeDtype::Bf16).unwrap();
            weights.fill(0, &(0..columns * inputs).map(value).collect::<Vec<_>>());
            let x: Vec<f32> = (0..rows * inputs).map(|i| value(31 * i) / 50.0).collect();
            let target = target.index(columns) as u32;
            for kernel in Kernel::available() {
                let sums_of = |x: &[f32]| {
                    let mut rows = vec![LogSum::new(target); x.len() / inputs];
                    let mut operand = PackedLhs::default();
                    operand.start(kernel, kernel.lhs_format(ComputeDtype::Bf16), rows.len(), inputs).set_all(x);
                    let epilogue = LogSums { kernel, cap, first: 0, columns, rows: &mut rows };
                    weights.product(kernel, &operand, weights.panels(), &mut Vec::new(), epilogue);
                    rows.iter_mut().for_each(LogSum::fold_into_f64);
                    rows.iter().map(LogSum::log_probability).collect::<Vec<_>>()
                };
                let one_by_one: Vec<_> = x.chunks_exact(inputs).flat_map(sums_of).collect();
                prop_assert_eq!(&sums_of(&x), &one_by_one, "{:?}", kernel);
                prop_assert!(one_by_one.iter().all(|log| *log < 1e-6));
            }
        }
    }

    #[test]
    fn a_logit_that_is_no_number_gives_none() {
        for kernel in Kernel::available() {
            for at in 0..2 * LANES {
                let mut rows = [LogSum::new(3)];
                let mut logits = [Lanes([1.0; LANES]); 2];
                logits[at / LANES].0[at % LANES] = f32::NAN;
                let [low, high] = &mut logits;
                let (first, columns) = (0, 2 * LANES);
                LogSums { kernel, cap: None, first, columns, rows: &mut rows }.take(Tile {
                    row: 0,
                    panel: 0,
                    sums: [std::slice::from_mut(low), std::slice::from_mut(high)],
                });
                rows[0].fold_into_f64();
                assert!(rows[0].log_probability().is_nan(), "{} {at}", kernel.name());
            }
        }
    }
}
