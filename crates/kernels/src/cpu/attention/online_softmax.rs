//! Weights of attention's positions in pairs of bf16, which take the scores from the product that gives them.
//!
//! A weight is `2^(score * log2(e) - reference)`. It is rounded to as many bits whatever the reference is, so
//! this need not be the largest score, which is known only after all of them: that of the first positions
//! that a row sees will do. So scores are never all in memory, and need not be read again.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, __mmask16, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_fmadd_ps,
    _mm512_fmsub_ps, _mm512_load_ps, _mm512_mask_mov_ps, _mm512_maskz_scalef_ps, _mm512_max_ps,
    _mm512_reduce_max_ps, _mm512_reduce_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_store_ps,
    _mm512_store_si512,
};
use std::f32::consts::LOG2_E;
use std::mem::transmute;

use crate::cpu::attention::mask::CausalMask;
use crate::cpu::gemm::blocking::{PANELS, VALUES};
use crate::cpu::gemm::epilogue::{Epilogue, Tile};
use crate::cpu::gemm::pack_lhs::PackedLhs;
use crate::isa::Kernel;
use crate::lanes::{LANES, Lanes, Pairs, join};

const _: () =
    assert!(VALUES == PANELS * LANES, "a step has the columns that a product has at once");

/// Polynomial for `2^x` of 0 <= x < 1, the highest power first: of all of its degree it has the least largest
/// relative error, 2^-18.5, where a weight is rounded to 2^-8.
const EXP2_POLYNOMIAL: [f32; 5] =
    [0.013_534_168, 0.052_011_46, 0.241_442_75, 0.693_003_8, 1.000_002_6];

/// A pair of bf16, both 1.
const ONES: i32 = 0x3f80_3f80;

/// Reference and sum of a row's weights so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct RowWeights {
    /// The largest score of the first positions that it sees, times `log2(e)`.
    reference: f32,
    /// Sums of weights, two of a step side by side in each lane, as they are rounded: so the largest, whose
    /// rounding would count most, has none when it is divided by the sum.
    lanes: Lanes,
}

impl RowWeights {
    /// No sum of weights and values overflows as long as that of the weights is not larger. One weight is 1,
    /// so none is too small.
    const MOST: f32 = (1_u64 << 60) as f32;

    /// The sum, or none if a score is so far above the reference that the weights are worth nothing.
    pub(crate) fn sum(&self) -> Option<f32> {
        let sum = join(self.lanes.0);
        (sum <= Self::MOST).then_some(sum)
    }
}

/// Makes weights of the scores of rows.
pub(crate) struct OnlineSoftmax<'a> {
    pub(crate) kernel: Kernel,
    /// The bound to which scores are squeezed.
    pub(crate) cap: Option<f32>,
    pub(crate) mask: CausalMask,
    pub(crate) weights: &'a mut PackedLhs,
    pub(crate) rows: &'a mut [RowWeights],
}

impl Epilogue for OnlineSoftmax<'_> {
    const TAKES_FEW: bool = true;

    #[inline(always)]
    #[expect(unsafe_code, reason = "a function compiled for an instruction set")]
    fn take(&mut self, mut tile: Tile<'_>) {
        if let Some(cap) = self.cap {
            for scores in &mut tile.sums {
                self.kernel.soft_cap(bytemuck::cast_slice_mut(scores), cap);
            }
        }
        let [low, high] = tile.sums;
        let all = tile.row..tile.row + low.len();
        let (first, mask, sums) = (tile.panel * LANES, self.mask, &mut self.rows[all.clone()]);
        self.weights.steps_of_rows(all, tile.panel / PANELS, |rows, steps| {
            let high = high.get(rows.clone()).unwrap_or_default();
            let step = Step { first, row: tile.row + rows.start, mask };
            // SAFETY: an operand of pairs is made only where the machine has AVX-512 with BF16.
            unsafe { softmax_rows(&low[rows.clone()], high, step, &mut sums[rows], steps) };
        });
    }
}

/// Place of scores.
struct Step {
    /// Their first column.
    first: usize,
    /// Their first row.
    row: usize,
    mask: CausalMask,
}

impl Step {
    /// Returns whether none of so many rows begins here and each sees all columns.
    fn is_whole(&self, rows: usize) -> bool {
        let [first, last] = [0, rows - 1].map(|i| self.mask.span(self.row + i));
        last.start < self.first && self.first + VALUES <= first.end
    }

    /// Returns the columns that row `i` sees, a bit for each, and whether it sees none before.
    fn of(&self, i: usize) -> (u32, bool) {
        let span = self.mask.span(self.row + i);
        let [start, end] =
            [span.start, span.end].map(|at| at.saturating_sub(self.first).min(VALUES));
        (((1_u64 << end) - (1_u64 << start)) as u32, span.start / VALUES == self.first / VALUES)
    }
}

/// Adds weights to the sums of their rows and rounds them to the steps.
#[target_feature(enable = "avx512f,avx512dq,avx512bf16")]
#[inline]
fn softmax_rows(
    low: &[Lanes],
    high: &[Lanes],
    step: Step,
    sums: &mut [RowWeights],
    steps: &mut [Pairs],
) {
    if step.is_whole(low.len()) {
        for (((low, high), sum), step) in low.iter().zip(high).zip(sums).zip(steps) {
            softmax_row([load(low), load(high)], u32::MAX, sum, step);
        }
        return;
    }
    for (i, ((low, sum), pairs)) in low.iter().zip(sums).zip(steps).enumerate() {
        // Columns of a panel that is not there are seen by none.
        let scores = [load(low), load(high.get(i).unwrap_or(low))];
        let (bits, is_first) = step.of(i);
        if is_first {
            let least = number(f32::NEG_INFINITY);
            let low = _mm512_mask_mov_ps(least, bits as __mmask16, scores[0]);
            let high = _mm512_mask_mov_ps(least, (bits >> LANES) as __mmask16, scores[1]);
            let largest = _mm512_reduce_max_ps(_mm512_max_ps(low, high));
            *sum = RowWeights { reference: largest * LOG2_E, lanes: Lanes::ZERO };
        }
        softmax_row(scores, bits, sum, pairs);
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bf16")]
#[inline]
#[expect(unsafe_code, reason = "stores by pointer, registers of another type")]
fn softmax_row(scores: [__m512; 2], bits: u32, sum: &mut RowWeights, step: &mut Pairs) {
    let weights = [
        weights(scores[0], bits as __mmask16, sum.reference),
        weights(scores[1], (bits >> LANES) as __mmask16, sum.reference),
    ];
    // SAFETY: `Lanes` and `Pairs` are 64 bytes, aligned to 64, and every pattern of bits is a value of either
    // type of register.
    unsafe {
        let rounded = _mm512_cvtne2ps_pbh(weights[1], weights[0]);
        let ones = transmute::<__m512i, __m512bh>(_mm512_set1_epi32(ONES));
        let lanes = _mm512_dpbf16_ps(load(&sum.lanes), rounded, ones);
        _mm512_store_ps(sum.lanes.0.as_mut_ptr(), lanes);
        let rounded = transmute::<__m512bh, __m512i>(rounded);
        _mm512_store_si512(step.0.as_mut_ptr().cast(), rounded);
    }
}

/// Weights of a panel's columns, or 0.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn weights(scores: __m512, bits: __mmask16, reference: f32) -> __m512 {
    let x = _mm512_fmsub_ps(scores, number(LOG2_E), number(reference));
    // What it has beyond the largest integer below it, which is the power of two that `scalef` multiplies by.
    let rest = _mm512_reduce_ps::<0x9>(x);
    let mut p = number(EXP2_POLYNOMIAL[0]);
    for c in &EXP2_POLYNOMIAL[1..] {
        p = _mm512_fmadd_ps(p, rest, number(*c));
    }
    _mm512_maskz_scalef_ps(bits, p, x)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn number(value: f32) -> __m512 {
    _mm512_set1_ps(value)
}

#[target_feature(enable = "avx512f")]
#[inline]
#[expect(unsafe_code, reason = "a load by pointer")]
fn load(lanes: &Lanes) -> __m512 {
    // SAFETY: `Lanes` is 64 bytes, aligned to 64.
    unsafe { _mm512_load_ps(lanes.0.as_ptr()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "a function compiled for an instruction set")]
    fn weights_are_powers_of_two() {
        if !Kernel::available().contains(&Kernel::Avx512Bf16) {
            return;
        }
        for i in -4000..4000 {
            let (score, reference) = (i as f32 / 64.0, 1.5);
            let mut found = Lanes::ZERO;
            // SAFETY: the machine has the instructions; 16 floats are written to 16.
            unsafe {
                let weights = weights(number(score), __mmask16::MAX >> 1, reference);
                _mm512_store_ps(found.0.as_mut_ptr(), weights);
            }
            let exact = (f64::from(score) * std::f64::consts::LOG2_E - f64::from(reference)).exp2();
            let error = f64::from(found.0[0]) / exact - 1.0;
            // The polynomial's, and that of an exponent of up to 92 in f32.
            assert!(error.abs() < 1e-5, "2^({score} * log2(e) - {reference}) is off by {error:e}");
            assert_eq!(found.0[LANES - 1], 0.0, "what is masked has no weight");
        }
    }
}
