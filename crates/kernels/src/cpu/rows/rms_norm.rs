//! RMSNorm of rows that are rounded to pairs of bf16 on the way, with the bits of [`Kernel::rms_norm`] and
//! [`PackedLhs::set`]: several rows at once, for the sum of a row's squares is one chain of additions.
//!
//! [`Kernel::rms_norm`]: crate::isa::Kernel::rms_norm
//! [`PackedLhs::set`]: crate::cpu::gemm::pack_lhs::PackedLhs::set

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_si512, _mm512_storeu_ps,
};
use std::mem::transmute;

use crate::cpu::gemm::blocking::VALUES;
use crate::lanes::{LANES, Pairs, join};

/// Rows at once.
pub(crate) const ROWS: usize = 4;

/// Norms [`ROWS`] rows. `strides` are those of `out` from a row to the next and from a step to the next.
#[expect(unsafe_code, reason = "a function compiled for an instruction set")]
pub(crate) fn rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [Pairs], strides: [usize; 2]) {
    // SAFETY: an operand of pairs is made only where the machine has AVX-512 with BF16.
    unsafe { rows_by_sixteen(x, weight, eps, out, strides) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "stores by pointer, registers of another type")]
fn rows_by_sixteen(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [Pairs],
    [row_stride, step_stride]: [usize; 2],
) {
    let width = weight.len();
    let rows: [&[[f32; VALUES]]; ROWS] =
        std::array::from_fn(|i| x[i * width..][..width].as_chunks().0);
    let weight: &[[f32; VALUES]] = weight.as_chunks().0;
    let mut sums = [_mm512_setzero_ps(); ROWS];
    for step in 0..weight.len() {
        for (sum, row) in sums.iter_mut().zip(rows) {
            let [low, high] = halves(&row[step]);
            *sum = _mm512_fmadd_ps(high, high, _mm512_fmadd_ps(low, low, *sum));
        }
    }
    let mut scales = sums;
    for (scale, sum) in scales.iter_mut().zip(sums) {
        let mut lanes = [0.0; LANES];
        // SAFETY: 16 floats are written to 16.
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), sum) };
        *scale = _mm512_set1_ps(1.0 / (join(lanes) / width as f32 + eps).sqrt());
    }
    for (step, weight) in weight.iter().enumerate() {
        let [low_weight, high_weight] = halves(weight);
        for (i, (row, scale)) in rows.iter().zip(scales).enumerate() {
            let [low, high] = halves(&row[step]);
            let low = _mm512_mul_ps(_mm512_mul_ps(low, scale), low_weight);
            let high = _mm512_mul_ps(_mm512_mul_ps(high, scale), high_weight);
            let place = &mut out[i * row_stride + step * step_stride];
            // SAFETY: every pattern of bits is a value of either type of register, and `Pairs` is 64
            // bytes, aligned to 64.
            unsafe {
                let rounded = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                _mm512_store_si512(place.0.as_mut_ptr().cast(), rounded);
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
#[expect(unsafe_code, reason = "loads by pointer")]
fn halves(values: &[f32; VALUES]) -> [__m512; 2] {
    let (low, high) = values.split_at(LANES);
    // SAFETY: 16 floats are read from 16.
    unsafe { [_mm512_loadu_ps(low.as_ptr()), _mm512_loadu_ps(high.as_ptr())] }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::cpu::gemm::pack_lhs::PackedLhs;
    use crate::dtype::ComputeDtype;
    use crate::isa::Kernel;
    use crate::testing::values_of;

    proptest! {
        #[test]
        fn normed_rows_are_those_of_one_by_one(
            values in prop::collection::vec(prop_oneof![-9.0_f32..9.0, Just(0.0), -1e4_f32..1e4], 9 * 130),
            rows in 1_usize..10, width in prop_oneof![1_usize..130, Just(32), Just(64), Just(96)],
        ) {
            let weight: Vec<f32> = values.iter().rev().take(width).map(|value| value / 9.0).collect();
            let (x, mut row) = (&values[..rows * width], vec![0.0; width]);
            for kernel in Kernel::available() {
                for dtype in [ComputeDtype::F32, ComputeDtype::Bf16] {
                    let format = kernel.lhs_format(dtype);
                    let (mut found, mut expected) = (PackedLhs::default(), PackedLhs::default());
                    found.start(kernel, format, rows, width).set_normed(x, &weight, 1e-5, &mut row);
                    expected.start(kernel, format, rows, width);
                    for (i, x) in x.chunks_exact(width).enumerate() {
                        Kernel::Portable.rms_norm(x, &weight, 1e-5, &mut row);
                        expected.set(i, 0, &row);
                    }
                    let [found, expected] = [found, expected].map(|x| values_of(&x, kernel, dtype));
                    prop_assert_eq!(found, expected, "{:?} {:?}", kernel, dtype);
                }
            }
        }
    }
}
