//! Row operations by instruction set: each call goes to the code of `generic.rs` that is compiled for it. No
//! arithmetic is written here.

use crate::cpu::attention::mask::CausalMask;
use crate::cpu::rows::format::RowFormat;
use crate::cpu::rows::generic;
use crate::cpu::rows::log_sum::LogSum;
use crate::isa::Kernel;
use crate::lanes::{Lanes, Pairs, Quads};

/// Compiles each row operation once for every instruction set, from the same source. All of it is inlined
/// where it is called, so that a product's epilogue may become part of the code that multiplies.
macro_rules! row_operations {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident $(<$format:ident>)? ($($arg:ident: $ty:ty),*) $(-> $out:ty)?;)*) => {
        #[cfg(target_arch = "x86_64")]
        mod row_avx2 {
            use crate::cpu::attention::mask::CausalMask;
            use crate::cpu::rows::generic;
            use crate::cpu::rows::format::RowFormat;
            use crate::cpu::rows::log_sum::LogSum;
            use crate::lanes::{Lanes, Pairs, Quads};
            $(#[target_feature(enable = "avx2,fma")]
            #[inline]
            pub(super) fn $name $(<$format: RowFormat>)? ($($arg: $ty),*) $(-> $out)? {
                generic::$name($($arg),*)
            })*
        }
        #[cfg(target_arch = "x86_64")]
        mod row_avx512 {
            use crate::cpu::attention::mask::CausalMask;
            use crate::cpu::rows::generic;
            use crate::cpu::rows::format::RowFormat;
            use crate::cpu::rows::log_sum::LogSum;
            use crate::lanes::{Lanes, Pairs, Quads};
            $(#[target_feature(enable = "avx512f,avx512dq,avx512bw")]
            #[inline]
            pub(super) fn $name $(<$format: RowFormat>)? ($($arg: $ty),*) $(-> $out)? {
                generic::$name($($arg),*)
            })*
        }
        impl Kernel {
            $($(#[$doc])*
            #[inline]
            #[expect(unsafe_code, reason = "a function compiled for an instruction set")]
            $vis fn $name $(<$format: RowFormat>)? (self, $($arg: $ty),*) $(-> $out)? {
                match self {
                    Self::Portable => generic::$name($($arg),*),
                    // SAFETY: `Kernel::available` offers a variant only where the machine has it.
                    #[cfg(target_arch = "x86_64")]
                    Self::Avx2 => unsafe { row_avx2::$name($($arg),*) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Self::Avx512 | Self::Avx512Bf16 | Self::Amx => unsafe { row_avx512::$name($($arg),*) },
                }
            })*
        }
    };
}

row_operations! {
    /// `out = x / rms(x) * weight`, the mean square raised by `eps` (RMSNorm, arXiv 1910.07467).
    pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
    /// `x += y`.
    pub fn add(x: &mut [f32], y: &[f32]);
    /// Each row times the reciprocal of its divisor; there are as many rows as divisors.
    pub fn divide_rows(values: &mut [f32], divisors: &[f32]);
    /// Rotates the pairs of each head by their angles, a cosine and a sine (RoPE, arXiv 2104.09864, neighbours
    /// paired), then multiplies them.
    pub fn rotate(heads: &mut [f32], angles: &[(f32, f32)], by: f32);
    /// `gates = silu(gates) * ups`.
    pub(crate) fn silu_mul(gates: &mut [Lanes], ups: &[Lanes]);
    /// `gates = gelu(gates) * ups`.
    pub fn gelu_mul(gates: &mut [Lanes], ups: &[Lanes]);
    /// Puts `width` sums into each row of `out`, whose rows are `stride` values apart.
    pub(crate) fn put(out: &mut [f32], stride: usize, sums: &[Lanes], width: usize);
    /// Adds `width` sums to each row of `out`, as [`Kernel::put`] puts them.
    pub(crate) fn add_sums(out: &mut [f32], stride: usize, sums: &[Lanes], width: usize);
    /// `cap * tanh(value / cap)`.
    pub fn soft_cap(values: &mut [f32], cap: f32);
    /// Turns the scores that `mask` lets a row see into `exp(score - max)`, the others into 0, and gives
    /// the sums. A row has `columns` scores.
    pub(crate) fn exp_and_sum(scores: &mut [f32], columns: usize, mask: CausalMask, sums: &mut [f32]);
    /// Rounds to the nearest bf16, ties to even.
    pub(crate) fn round_to_bf16(x: &[f32], out: &mut [f32]);
    /// Rounds to the nearest bf16, ties to even, two to a word, the first in the low half, and zeros beyond.
    pub fn round_to_pairs(x: &[f32], out: &mut [u32]);
    /// Takes means from a row, multiplies it by signs and then by Hadamard matrices.
    pub fn mix(row: &mut [f32], means: &[f32], signs: &[f32]);
    /// Undoes [`Kernel::mix`], up to rounding, if signs have the norm of the matrices in them.
    pub fn unmix(row: &mut [f32], means: &[f32], signs: &[f32]);
    /// Writes a row, see [`Kernel::encode`].
    pub(crate) fn encode_row<F>(format: F, row: &[f32], bytes: &mut [u8]);
    /// Reads a row, see [`RowFormat::decode`].
    pub fn decode<F>(format: F, bytes: &[u8], row: &mut [f32]);
    /// Reads rows and rounds them, see [`Kernel::decode_to_pairs`].
    pub(crate) fn decode_rows_to_pairs<F>(format: F, bytes: &[u8], row: &mut [f32], out: &mut [u32]);
    /// Multiplies a row by Hadamard matrices and rounds it, see [`Kernel::quantise`].
    pub(crate) fn hadamard_and_quantise(x: &mut [f32], out: &mut [Quads], stride: usize) -> f32;
    /// Pairs of bf16 as f32, the first of each pair before the second.
    pub(crate) fn upcast(pairs: &[Pairs], out: &mut [Lanes]);
    /// Adds the exponentials of a panel's logits to what their rows have.
    pub(crate) fn add_exp(logits: &[Lanes], rows: &mut [LogSum]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lanes::{LANES, halves};
    use crate::testing::SplitMix;

    /// Values between -4 and 4 that a seed gives.
    fn floats(seed: u64, count: usize) -> Vec<f32> {
        let mut random = SplitMix(seed);
        (0..count).map(|_| (random.next() >> 32) as i32 as f32 / 2f32.powi(29)).collect()
    }

    fn rounded(values: &[f32]) -> Vec<f32> {
        values.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect()
    }

    proptest! {
        #[test]
        fn mixing_is_bit_equal_as_it_is_defined_and_undone(
            parts in 1usize..4, steps in 0u32..8, seed: u64
        ) {
            let order = 1 << steps;
            let n = (2 * parts - 1) * order;
            let (x, means) = (floats(seed, n), floats(!seed, n));
            let norm = 1.0 / (order as f32).sqrt();
            let signs: Vec<f32> = floats(seed ^ 1, n).iter().map(|v| norm.copysign(*v)).collect();
            let mixed = |kernel: Kernel| {
                let mut row = x.clone();
                kernel.mix(&mut row, &means, &signs);
                let mixed = row.clone();
                kernel.unmix(&mut row, &means, &signs);
                [mixed, row]
            };
            let [expected, back] = mixed(Kernel::Portable);
            for kernel in Kernel::available() {
                prop_assert_eq!(&mixed(kernel), &[expected.clone(), back.clone()], "{:?}", kernel);
            }
            for i in 0..n {
                let first = i / order * order;
                let term = |j: usize| {
                    let odd = ((i - first) & j).count_ones() % 2 == 1;
                    let value = f64::from((x[first + j] - means[first + j]) * signs[first + j]);
                    if odd { -value } else { value }
                };
                let exact: f64 = (0..order).map(term).sum();
                prop_assert!((f64::from(expected[i]) - exact).abs() < 1e-4, "{i}");
                prop_assert!((back[i] - x[i]).abs() < 1e-4, "{i}");
            }
        }
    }

    proptest! {
        #[test]
        fn row_operations_are_bit_equal_and_right(half in 1usize..40, valid in 1usize..90, seed: u64) {
            let n = 2 * half;
            let valid = valid.min(n);
            let (x, w) = (floats(seed, n), floats(!seed, n));
            let all = |kernel: Kernel| {
                let (mut norm, mut sum, mut soft) = (vec![0.0; n], x.clone(), x.clone());
                kernel.rms_norm(&x, &w, 1e-5, &mut norm);
                kernel.add(&mut sum, &w);
                let lanes = |values: &[f32]| {
                    let mut lanes = vec![Lanes::ZERO; values.len().div_ceil(LANES)];
                    bytemuck::cast_slice_mut(&mut lanes)[..values.len()].copy_from_slice(values);
                    lanes
                };
                let (gates, ups) = (lanes(&x[..half]), lanes(&x[half..]));
                let gate = |gate: fn(Kernel, &mut [Lanes], &[Lanes])| {
                    let mut gates = gates.clone();
                    gate(kernel, &mut gates, &ups);
                    bytemuck::cast_slice::<_, f32>(&gates)[..half].to_vec()
                };
                let (gated, gelu) = (gate(Kernel::silu_mul), gate(Kernel::gelu_mul));
                let mut capped = x.clone();
                kernel.soft_cap(&mut capped, 1.5);
                let (first, mut totals) = (valid - 1, [0.0]);
                kernel.exp_and_sum(&mut soft, n, CausalMask { first, group: 1, window: n }, &mut totals);
                let (mut low, mut pairs) = (vec![0.0; n], vec![0; half]);
                kernel.round_to_bf16(&x, &mut low);
                kernel.round_to_pairs(&x, &mut pairs);
                let halves = pairs.iter().flat_map(|pair| halves(*pair)).collect();
                [norm, sum, gated, soft, totals.to_vec(), low, halves, gelu, capped]
            };
            let expected = all(Kernel::Portable);
            for kernel in Kernel::available() {
                prop_assert_eq!(&all(kernel), &expected);
            }
            let close = |a: f32, b: f64| (f64::from(a) - b).abs() <= 1e-5 * (1.0 + b.abs());
            let [norm, _, gated, soft, totals, low, halves, gelu, capped] = &expected;
            prop_assert!(low == &rounded(&x) && halves == low);
            let mean_square = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n as f64;
            for i in 0..n {
                prop_assert!(close(norm[i], f64::from(x[i]) / (mean_square + 1e-5).sqrt() * f64::from(w[i])));
            }
            for i in 0..n {
                let exact = 1.5 * (f64::from(x[i]) / 1.5).tanh();
                prop_assert!((f64::from(capped[i]) - exact).abs() <= 4e-7 * exact.abs());
            }
            for i in 0..half {
                let g = f64::from(x[i]);
                let tanh = (std::f64::consts::FRAC_2_PI.sqrt() * (g + 0.044_715 * g.powi(3))).tanh();
                prop_assert!(close(gelu[i], 0.5 * g * (1.0 + tanh) * f64::from(x[half + i])));
                prop_assert!(close(gated[i], g / (1.0 + (-g).exp()) * f64::from(x[half + i])));
            }
            let max = x[..valid].iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
            for i in 0..n {
                let e = if i < valid { f64::from(x[i] - max).exp() } else { 0.0 };
                prop_assert!(close(soft[i], e));
            }
            prop_assert!(close(totals[0], x[..valid].iter().map(|v| f64::from(v - max).exp()).sum()));
        }
    }
}
