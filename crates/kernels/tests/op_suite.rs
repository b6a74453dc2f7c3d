//! Products and rounding on every instruction set against the portable one, and that against plain sums.

use hyperrag_kernels::cpu::gemm::epilogue::OutputRows;
use hyperrag_kernels::cpu::gemm::pack_lhs::PackedLhs;
use hyperrag_kernels::cpu::gemm::pack_rhs::PackedWeights;
use hyperrag_kernels::dtype::ComputeDtype;
use hyperrag_kernels::isa::{KERNEL_ID_BF16_AMX, Kernel};
use proptest::prelude::*;

fn floats(seed: u64, count: usize) -> Vec<f32> {
    let mut stream = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut bytes = vec![0; 4 * count];
    stream.fill(&mut bytes);
    bytes
        .chunks_exact(4)
        .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32 / 2f32.powi(29))
        .collect()
}

fn product(
    kernel: Kernel,
    dtype: ComputeDtype,
    a: &[f32],
    rows: usize,
    b: &PackedWeights,
) -> Vec<f32> {
    let outputs = b.outputs();
    let mut c = vec![f32::NAN; rows * outputs];
    let mut x = PackedLhs::default();
    x.start(kernel, kernel.lhs_format(dtype), rows, a.len() / rows).set_all(a);
    b.product(kernel, &x, b.panels(), &mut Vec::new(), OutputRows::put(kernel, &mut c, outputs));
    c
}

fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect()
}

#[test]
fn every_half_and_what_lies_beside_it_is_rounded_as_half_does() {
    let lows = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let values = (0..=u32::from(u16::MAX)).flat_map(|high| lows.map(|low| high << 16 | low));
    let values: Vec<f32> = values.map(f32::from_bits).collect();
    let bits = |value: &f32| half::bf16::from_f32(*value).to_bits();
    for kernel in Kernel::available() {
        let mut pairs = vec![0; values.len() / 2];
        kernel.round_to_pairs(&values, &mut pairs);
        for (pair, values) in pairs.iter().zip(values.chunks(2)) {
            let expected = u32::from(bits(&values[0])) | u32::from(bits(&values[1])) << 16;
            assert_eq!(*pair, expected, "{}: {values:?}", kernel.name());
        }
    }
}

/// The order of AMX's sums, in plain Rust.
fn sum_as_amx(row: &[f32], column: &[f32]) -> f32 {
    let steps = row.chunks(32).zip(column.chunks(32));
    steps.fold(0.0, |sum, (row, column)| {
        let mut halves = [0.0_f32; 2];
        for (i, (x, w)) in row.iter().zip(column).enumerate() {
            halves[i % 2] = x.mul_add(*w, halves[i % 2]);
        }
        sum + (halves[0] + halves[1])
    })
}

proptest! {
    #[test]
    fn products_are_bit_equal_and_right(
        rows in 1usize..30, k in 1usize..70, n in 1usize..80, seed: u64
    ) {
        let (a, w) = (floats(seed, rows * k), floats(!seed, n * k));
        for dtype in [ComputeDtype::F32, ComputeDtype::Bf16] {
            let mut packed = PackedWeights::zeroed(n, k, dtype).unwrap();
            packed.fill(0, &w[..n / 2 * k]);
            packed.fill(n / 2, &w[n / 2 * k..]);
            let (a, w) = match dtype {
                ComputeDtype::Bf16 => (rounded(&a), rounded(&w)),
                _ => (a.clone(), w.clone()),
            };
            let expected = product(Kernel::Portable, dtype, &a, rows, &packed);
            let close = |value: f32, i: usize| {
                let (row, column) = (&a[i / n * k..][..k], &w[i % n * k..][..k]);
                let exact: f64 = row.iter().zip(column).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                (f64::from(value) - exact).abs() < 1e-3
            };
            for kernel in Kernel::available() {
                let product = |a: &[f32]| product(kernel, dtype, a, a.len() / k, &packed);
                let all = product(&a);
                prop_assert!(all.iter().enumerate().all(|(i, value)| close(*value, i)), "{kernel:?}");
                if kernel.id(dtype) == Kernel::Portable.id(dtype) {
                    prop_assert_eq!(&all, &expected, "{:?}", kernel);
                }
                if kernel.id(dtype) == KERNEL_ID_BF16_AMX {
                    for (i, value) in all.iter().enumerate() {
                        let (row, column) = (&a[i / n * k..][..k], &w[i % n * k..][..k]);
                        prop_assert_eq!(*value, sum_as_amx(row, column), "at {}", i);
                    }
                }
                // A row alone gives what it gives among others.
                prop_assert_eq!(&product(&a[(rows - 1) * k..])[..], &all[(rows - 1) * n..]);
            }
            let mut row = vec![0.0; k];
            packed.copy_row(n - 1, &mut row);
            prop_assert_eq!(&row[..], &w[(n - 1) * k..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// A product of many rows takes long sums in parts, one of a few rows does not.
    #[test]
    fn long_sums_in_parts_are_those_of_a_row_alone(
        rows in 33usize..70, sixteens in 36usize..180, n in 1usize..40, seed: u64
    ) {
        let k = 16 * sixteens;
        let (a, w) = (floats(seed, rows * k), floats(!seed, n * k));
        for dtype in [ComputeDtype::F32, ComputeDtype::Bf16, ComputeDtype::Int8] {
            let mut packed = PackedWeights::zeroed(n, k, dtype).unwrap();
            packed.fill(0, &w);
            for kernel in Kernel::available() {
                let all = product(kernel, dtype, &a, rows, &packed);
                for row in [0, rows / 2, rows - 1] {
                    let alone = product(kernel, dtype, &a[row * k..][..k], 1, &packed);
                    prop_assert_eq!(&alone[..], &all[row * n..][..n], "{:?} {:?}", kernel, dtype);
                }
            }
        }
    }
}
