//! Softmax of attention's scores, whose weights become the left side of the product with V.

use super::{Kernel, Operand, Seen};

impl Kernel {
    /// Sets each row of `weights` to `exp(score - max)` of the scores that it sees and to 0 elsewhere, and
    /// gives the sums. A row has `columns` scores; they are overwritten.
    pub(crate) fn softmax(
        self,
        scores: &mut [f32],
        columns: usize,
        seen: Seen,
        weights: &mut Operand,
        sums: &mut [f32],
    ) {
        #[cfg(target_arch = "x86_64")]
        if weights.form() == super::Form::Pairs && seen.span(sums.len()).start == 0 {
            for (i, (row, sum)) in scores.chunks_exact(columns).zip(sums).enumerate() {
                *sum = pairs::exp_and_sum(&row[seen.span(i)], weights.steps_of(i));
            }
            return;
        }
        self.exp_and_sum(scores, columns, seen, sums);
        for (i, row) in scores.chunks_exact(columns).enumerate() {
            weights.set(i, 0, &row[..weights.inputs()]);
        }
    }
}

/// A row at a time, from its scores to pairs of bf16: the same bits as [`Kernel::exp_and_sum`] and
/// [`Operand::set`] give, without a way through memory.
#[cfg(target_arch = "x86_64")]
mod pairs {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, __mmask16, _mm512_add_ps, _mm512_cvtne2ps_pbh,
        _mm512_mask_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_set1_ps,
        _mm512_setzero_ps, _mm512_store_si512, _mm512_storeu_ps, _mm512_sub_ps,
    };
    use std::mem::transmute;

    use super::super::avx512::exp;
    use super::super::{LANES, Pairs, row};

    /// Scores that make a step of pairs.
    const STEP: usize = 2 * LANES;

    /// Writes `exp(score - max)` to the steps and zeros beyond, and gives the sum, score `i` going to lane
    /// `i % LANES`.
    #[expect(unsafe_code, reason = "a function compiled for an instruction set")]
    pub(super) fn exp_and_sum<'p>(
        scores: &[f32],
        steps: impl Iterator<Item = &'p mut Pairs>,
    ) -> f32 {
        // SAFETY: an operand of pairs is made only where the machine has AVX-512 with BF16.
        unsafe { exp_and_sum_by_sixteen(scores, steps) }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[expect(unsafe_code, reason = "stores by pointer, registers of another type")]
    fn exp_and_sum_by_sixteen<'p>(
        scores: &[f32],
        mut steps: impl Iterator<Item = &'p mut Pairs>,
    ) -> f32 {
        let max = max(scores);
        let mut sum = _mm512_setzero_ps();
        let (whole, rest) = scores.as_chunks::<STEP>();
        let mut set = |weights: [__m512; 2], step: &mut Pairs| {
            sum = _mm512_add_ps(_mm512_add_ps(sum, weights[0]), weights[1]);
            // SAFETY: every pattern of bits is a value of either type of register, and `Pairs` is 64
            // bytes, aligned to 64.
            unsafe {
                let rounded = _mm512_cvtne2ps_pbh(weights[1], weights[0]);
                let rounded = transmute::<__m512bh, __m512i>(rounded);
                _mm512_store_si512(step.0.as_mut_ptr().cast(), rounded);
            }
        };
        for (scores, step) in whole.iter().zip(&mut steps) {
            set(halves(scores).map(|half| exp(_mm512_sub_ps(half, max))), step);
        }
        if let Some(step) = steps.next() {
            let [low, high] = halves(rest).map(|half| exp(_mm512_sub_ps(half, max)));
            let seen = masks(rest);
            set([_mm512_maskz_mov_ps(seen[0], low), _mm512_maskz_mov_ps(seen[1], high)], step);
        }
        steps.for_each(|step| *step = Pairs::ZERO);
        row::join(lanes(sum))
    }

    /// The largest score, which what is no number is not, in all lanes.
    #[target_feature(enable = "avx512f")]
    fn max(scores: &[f32]) -> __m512 {
        let (whole, rest) = scores.as_chunks::<STEP>();
        let [mut low, mut high] = [_mm512_set1_ps(f32::NEG_INFINITY); 2];
        let mut count = |halves: [__m512; 2]| {
            // Of a pair with one that is no number, the instruction gives the second.
            (low, high) = (_mm512_max_ps(halves[0], low), _mm512_max_ps(halves[1], high));
        };
        whole.iter().for_each(|scores| count(halves(scores)));
        count(halves(rest));
        _mm512_set1_ps(row::largest(&lanes(_mm512_max_ps(low, high))))
    }

    /// Up to 32 values; those that are not there are so small that no maximum is one of them.
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "loads by pointer")]
    fn halves(values: &[f32]) -> [__m512; 2] {
        let (least, first) = (_mm512_set1_ps(f32::NEG_INFINITY), values.as_ptr());
        let masks = masks(values);
        // SAFETY: only values of the masks are read, which are there.
        unsafe {
            [
                _mm512_mask_loadu_ps(least, masks[0], first),
                _mm512_mask_loadu_ps(least, masks[1], first.wrapping_add(LANES)),
            ]
        }
    }

    /// Which of 32 values are there.
    fn masks(values: &[f32]) -> [__mmask16; 2] {
        let seen = !(u64::MAX << values.len().min(STEP));
        [seen as __mmask16, (seen >> LANES) as __mmask16]
    }

    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "a store by pointer")]
    fn lanes(register: __m512) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: 16 floats are written to 16.
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), register) };
        lanes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Compute;
    use crate::cpu::kernel::packed::halves;
    use crate::cpu::kernel::{Form, row};

    /// What is no number has any of many bits.
    fn bits(values: &[f32]) -> Vec<Option<u32>> {
        values.iter().map(|value| (!value.is_nan()).then_some(value.to_bits())).collect()
    }

    /// A row of pairs.
    fn values(operand: &mut Operand, row: usize) -> Vec<Option<u32>> {
        let pairs = operand.steps_of(row).flat_map(|step| step.0);
        bits(&pairs.flat_map(halves).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn weights_are_those_of_the_scores_rounded(
            scores in prop::collection::vec(
                prop_oneof![20 => -9.0_f32..9.0, 1 => -200.0_f32..200.0, 1 => Just(f32::NAN)], 4 * 130
            ),
            columns in 1_usize..130, first in 0_usize..130, group in 1_usize..3,
            window in prop_oneof![Just(usize::MAX), 1_usize..130],
        ) {
            let first = first.min(columns.saturating_sub(4 / group));
            prop_assume!(columns >= 4);
            let scores = &scores[..4 * columns];
            let seen = Seen { first, group, window };
            for kernel in Kernel::available() {
                let form = kernel.attention_form(Compute::Bf16);
                let (mut left, mut one_by_one) = (Operand::default(), Operand::default());
                let (mut sums, mut expected) = ([0.0; 4], [0.0; 4]);
                left.start(kernel, form, 4, columns);
                kernel.softmax(&mut scores.to_vec(), columns, seen, &mut left, &mut sums);
                let mut weights = scores.to_vec();
                row::exp_and_sum(&mut weights, columns, seen, &mut expected);
                one_by_one.start(kernel, form, 4, columns).set_all(&weights);
                prop_assert_eq!(bits(&sums), bits(&expected));
                for row in 0..4 {
                    match form {
                        Form::Pairs => prop_assert_eq!(values(&mut left, row), values(&mut one_by_one, row)),
                        _ => prop_assert_eq!(bits(left.floats()), bits(one_by_one.floats())),
                    }
                }
            }
        }
    }
}
