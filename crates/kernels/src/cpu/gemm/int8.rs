//! Products of int8: exact sums, so that every instruction set gives the same bits.
//!
//! A row and the weights of an output are both multiplied by the Hadamard matrices of their length, which
//! leaves their product as it is but for a power of two; what stands out in a row is spread, and one
//! scale serves all of it.

use crate::cpu::gemm::blocking::{PANELS, TILE_ROWS, TileSums, scales_of};
use crate::cpu::gemm::driver::panel_by_panel;
use crate::cpu::gemm::epilogue::Epilogue;
use crate::cpu::microkernel::portable;
#[cfg(target_arch = "x86_64")]
use crate::cpu::microkernel::{amx, avx2, avx512};
use crate::cpu::rows::generic;
use crate::isa::Kernel;
use crate::lanes::{Quads, Sums};

impl Kernel {
    /// Computes a product of fours of int8, as [`Kernel::product`] does of other types. The first step of a
    /// panel has its scales. `A` is packed as [`PackedLhs`](super::pack_lhs::PackedLhs) has it, with a
    /// scale for each row.
    pub(crate) fn product_of_quads<'b>(
        self,
        a: &[Quads],
        scales: &[f32],
        panels: usize,
        panel: impl Fn(usize) -> &'b [Quads],
        epilogue: impl Epilogue,
    ) {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            return amx::product_of_quads(a, scales, panels, panel, epilogue);
        }
        let a: &[[i8; 4]] = bytemuck::cast_slice(a);
        let tile = |row: usize, b: &[&[Quads]], out: &mut TileSums| {
            let (rows, k_steps) = (scales.len() - row, b[0].len() - 1);
            let a = &a[row * k_steps..];
            let mut sums = [[Sums::ZERO; TILE_ROWS]; PANELS];
            let done = match (self, b) {
                #[cfg(target_arch = "x86_64")]
                (_, &[first, second]) if self.multiplies_int8() => {
                    let b = [&first[1..], &second[1..]];
                    avx512::tile_of_quads(rows, a, k_steps, b, &mut sums)
                }
                #[cfg(target_arch = "x86_64")]
                (_, b) if self.multiplies_int8() => {
                    avx512::tile_of_quads(rows, a, k_steps, [&b[0][1..]], &mut sums)
                }
                (Self::Portable, b) => panel_by_panel(b, &mut sums, |b, sums| {
                    portable::tile_of_quads(a, &b[1..], sums)
                }),
                #[cfg(target_arch = "x86_64")]
                (_, b) => panel_by_panel(b, &mut sums, |b, sums| {
                    avx2::tile_of_quads(rows, a, k_steps, &b[1..], sums)
                }),
            };
            for ((sums, out), b) in sums.iter().zip(out).zip(b) {
                for ((sums, out), row) in sums[..done].iter().zip(out).zip(&scales[row..]) {
                    *out = generic::scaled(sums, *row, scales_of(b));
                }
            }
            done
        };
        self.each_tile(scales.len(), panels, panel, tile, epilogue);
    }

    /// Returns whether vectors multiply int8: AVX-512 VNNI, which AVX-512 may lack.
    #[inline]
    fn multiplies_int8(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Bf16 | Self::Amx => is_x86_feature_detected!("avx512vnni"),
            _ => false,
        }
    }

    /// Multiplies a row by Hadamard matrices and rounds it to int8 as fours, each 64 values `stride` steps
    /// after those before. Gives what an integer stands for. What a last step has beyond the values
    /// stays as it is.
    #[inline]
    pub(crate) fn quantise(self, x: &mut [f32], out: &mut [Quads], stride: usize) -> f32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Bf16 | Self::Amx => {
                avx512::hadamard_and_quantise(x, out, stride)
            }
            _ => self.hadamard_and_quantise(x, out, stride),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::gemm::blocking::{INPUTS_MAX, ORDER_MIN};
    use crate::cpu::gemm::epilogue::{OutputRows, StoreOp};
    use crate::cpu::gemm::pack_lhs::PackedLhs;
    use crate::cpu::gemm::pack_rhs::PackedWeights;
    use crate::dtype::ComputeDtype;
    use crate::error::PackError;
    use crate::testing::SplitMix;

    /// Values around 0, some of them far off.
    fn values(seed: u64, count: usize) -> Vec<f32> {
        let mut random = SplitMix(seed);
        let value = |_| {
            let bits = random.next();
            let near = (bits >> 40) as f32 / 2f32.powi(23) - 1.0;
            if bits.is_multiple_of(50) { 30.0 * near } else { near }
        };
        (0..count).map(value).collect()
    }

    /// The rows as an operand, each set in parts of `part` values.
    fn operand(kernel: Kernel, a: &[f32], inputs: usize, part: usize) -> PackedLhs {
        let mut x = PackedLhs::default();
        // Leftovers of a larger product.
        x.start(kernel, kernel.lhs_format(ComputeDtype::Int8), 40, 416).set_all(&[1.0; 40 * 416]);
        x.start(kernel, kernel.lhs_format(ComputeDtype::Int8), a.len() / inputs, inputs);
        for (row, a) in a.chunks_exact(inputs).enumerate() {
            for (i, a) in a.chunks(part).enumerate() {
                x.set(row, i * part, a);
            }
        }
        x
    }

    fn product(kernel: Kernel, x: &PackedLhs, b: &PackedWeights) -> Vec<f32> {
        // Rows of C are further apart than they are long.
        let (rows, outputs, stride) = (x.rows(), b.outputs(), b.outputs() + 3);
        let mut c = vec![f32::NAN; rows * stride];
        let out = OutputRows { kernel, values: &mut c, stride, columns: outputs, op: StoreOp::Put };
        b.product(kernel, x, b.panels(), &mut Vec::new(), out);
        assert!(c.chunks_exact(stride).all(|row| row[outputs..].iter().all(|v| v.is_nan())));
        c.chunks_exact(stride).flat_map(|row| &row[..outputs]).copied().collect()
    }

    fn packed(w: &[f32], inputs: usize) -> PackedWeights {
        let outputs = w.len() / inputs;
        let mut packed = PackedWeights::zeroed(outputs, inputs, ComputeDtype::Int8).unwrap();
        let (first, rest) = w.split_at(outputs / 2 * inputs);
        packed.fill(0, first);
        packed.fill(outputs / 2, rest);
        packed
    }

    /// Row, multiplied by the matrix as it is defined, as integers and what they stand for.
    fn rounded(row: &[f32]) -> (Vec<i32>, f64) {
        let order = 1_usize << row.len().trailing_zeros();
        let parts = row.len() / order;
        // Part of a place, and its place there.
        let place = |i: usize| (i / 16 % parts, i / 16 / parts * 16 + i % 16);
        let rotated: Vec<f64> = (0..row.len())
            .map(|i| {
                let (part, row_of) = place(i);
                let own = row.iter().enumerate().map(|(j, x)| (place(j), x));
                let own = own.filter(|((of, _), _)| *of == part);
                own.map(|((_, column), x)| {
                    let even = (row_of & column).count_ones().is_multiple_of(2);
                    if even { f64::from(*x) } else { -f64::from(*x) }
                })
                .sum()
            })
            .collect();
        let scale = rotated.iter().fold(0.0_f64, |m, v| m.max(v.abs())) / 127.0;
        (rotated.iter().map(|v| (v / scale).round_ties_even() as i32).collect(), scale)
    }

    proptest! {
        #[test]
        fn products_of_int8_have_the_same_bits_on_all_kernels(
            rows in 1usize..40, sixteens in 1usize..27, n in 1usize..70, part in 1usize..9, seed: u64
        ) {
            let k = 16 * sixteens;
            let (a, w) = (values(seed, rows * k), values(!seed, n * k));
            let b = packed(&w, k);
            let expected = product(Kernel::Portable, &operand(Kernel::Portable, &a, k, k), &b);
            for kernel in Kernel::available() {
                let x = operand(kernel, &a, k, 2 * part);
                prop_assert_eq!(&product(kernel, &x, &b), &expected, "{:?}", kernel);
                // A row alone gives what it gives among others.
                let x = operand(kernel, &a[(rows - 1) * k..], k, k);
                prop_assert_eq!(&product(kernel, &x, &b)[..], &expected[(rows - 1) * n..]);
            }
            let (mut row, norm) = (vec![0.0; k], |x: &[f32]| x.iter().map(|v| v * v).sum::<f32>().sqrt());
            b.copy_row(n - 1, &mut row);
            let last = &w[(n - 1) * k..];
            let difference: Vec<f32> = row.iter().zip(last).map(|(a, b)| a - b).collect();
            prop_assert!(norm(&difference) < 0.03 * norm(last));
        }

        #[test]
        fn a_product_of_int8_is_that_of_its_integers(sixteens in 1usize..27, seed: u64) {
            let k = 16 * sixteens;
            let (a, w) = (values(seed, k), values(!seed, k));
            let [(x, x_scale), (y, y_scale)] = [&a, &w].map(|row| rounded(row));
            let order = f64::from(1 << k.trailing_zeros());
            let unit = x_scale * y_scale / order;
            let expected = f64::from(x.iter().zip(&y).map(|(x, y)| x * y).sum::<i32>()) * unit;
            let found = product(Kernel::best(), &operand(Kernel::best(), &a, k, k), &packed(&w, k))[0];
            // In f32 some value may lie on the other side of a half: then the integers differ by one.
            let off = (f64::from(found) - expected).abs();
            prop_assert!(off <= unit * 254.0 + expected.abs() * 1e-5, "{} {}", found, expected);
        }
    }

    #[test]
    fn the_largest_sums_are_exact() {
        let inputs = 3 * 512;
        let mut spike = vec![0.0; inputs];
        // Rotated, one large value is as large everywhere in its part.
        spike.iter_mut().step_by(16).take(3).for_each(|value| *value = 5.0);
        for kernel in Kernel::available() {
            for sign in [1.0, -1.0] {
                let a: Vec<f32> = spike.iter().map(|value| sign * value).collect();
                let c =
                    product(kernel, &operand(kernel, &a, inputs, inputs), &packed(&spike, inputs));
                assert!((c[0] - sign * 75.0).abs() < 1e-4, "{kernel:?}: {}", c[0]);
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let w = values(1, 20 * 48);
        for kernel in Kernel::available() {
            for (value, finite) in [(f32::NAN, false), (f32::INFINITY, false), (0.0, true)] {
                let mut a = vec![0.0; 48];
                a[17] = value;
                let c = product(kernel, &operand(kernel, &a, 48, 48), &packed(&w, 48));
                assert!(c.iter().all(|c| if finite { *c == 0.0 } else { c.is_nan() }), "{c:?}");
            }
        }
    }

    #[test]
    fn inputs_that_are_turned_too_little_are_refused() {
        for (inputs, allowed) in
            [(16, true), (40, false), (8, false), (1 << 17, true), (1 << 18, false)]
        {
            let made = PackedWeights::zeroed(1, inputs, ComputeDtype::Int8);
            match made.err() {
                None => assert!(allowed, "{inputs}"),
                Some(PackError::Int8Inputs { inputs: named, multiple, max }) => {
                    assert!(!allowed, "{inputs}");
                    assert_eq!((named, multiple, max), (inputs, ORDER_MIN, INPUTS_MAX));
                }
                Some(other) => panic!("{other}"),
            }
        }
    }
}
