//! Every kernel against the portable one, and that against plain sums.

use super::*;
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

fn product(kernel: Kernel, compute: Compute, a: &[f32], rows: usize, b: &PackedMatrix) -> Vec<f32> {
    let outputs = b.outputs();
    let mut c = vec![f32::NAN; rows * outputs];
    let mut x = Operand::default();
    x.start(kernel, kernel.form(compute), rows, a.len() / rows).set_all(a);
    b.product(kernel, &x, b.panels(), &mut Vec::new(), Rows::put(kernel, &mut c, outputs));
    c
}

/// Bits of the values of an operand, which are those of its product with the identity.
pub(super) fn values_of(operand: &Operand, kernel: Kernel, compute: Compute) -> Vec<u32> {
    let inputs = operand.inputs();
    let mut weights = PackedMatrix::zeroed(inputs, inputs, compute).unwrap();
    for i in 0..inputs {
        let mut row = vec![0.0; inputs];
        row[i] = 1.0;
        weights.fill(i, &row);
    }
    let mut values = vec![0.0; operand.rows() * inputs];
    let out = Rows::put(kernel, &mut values, inputs);
    weights.product(kernel, operand, weights.panels(), &mut Vec::new(), out);
    values.into_iter().map(f32::to_bits).collect()
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
        for compute in [Compute::F32, Compute::Bf16] {
            let mut packed = PackedMatrix::zeroed(n, k, compute).unwrap();
            packed.fill(0, &w[..n / 2 * k]);
            packed.fill(n / 2, &w[n / 2 * k..]);
            let (a, w) = match compute {
                Compute::Bf16 => (rounded(&a), rounded(&w)),
                _ => (a.clone(), w.clone()),
            };
            let expected = product(Kernel::Portable, compute, &a, rows, &packed);
            let close = |value: f32, i: usize| {
                let (row, column) = (&a[i / n * k..][..k], &w[i % n * k..][..k]);
                let exact: f64 = row.iter().zip(column).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                (f64::from(value) - exact).abs() < 1e-3
            };
            for kernel in Kernel::available() {
                let product = |a: &[f32]| product(kernel, compute, a, a.len() / k, &packed);
                let all = product(&a);
                prop_assert!(all.iter().enumerate().all(|(i, value)| close(*value, i)), "{kernel:?}");
                if kernel.id(compute) == Kernel::Portable.id(compute) {
                    prop_assert_eq!(&all, &expected, "{:?}", kernel);
                }
                if kernel.id(compute) == KERNEL_ID_BF16_AMX {
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
            kernel.exp_and_sum(&mut soft, n, Seen { first, group: 1, window: n }, &mut totals);
            let (mut low, mut pairs) = (vec![0.0; n], vec![0; half]);
            kernel.round_to_bf16(&x, &mut low);
            kernel.round_to_pairs(&x, &mut pairs);
            let halves = pairs.iter().flat_map(|pair| packed::halves(*pair)).collect();
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// A product of many rows takes long sums in parts, one of a few rows does not.
    #[test]
    fn long_sums_in_parts_are_those_of_a_row_alone(
        rows in 33usize..70, sixteens in 36usize..180, n in 1usize..40, seed: u64
    ) {
        let k = 16 * sixteens;
        let (a, w) = (floats(seed, rows * k), floats(!seed, n * k));
        for compute in [Compute::F32, Compute::Bf16, Compute::Int8] {
            let mut packed = PackedMatrix::zeroed(n, k, compute).unwrap();
            packed.fill(0, &w);
            for kernel in Kernel::available() {
                let all = product(kernel, compute, &a, rows, &packed);
                for row in [0, rows / 2, rows - 1] {
                    let alone = product(kernel, compute, &a[row * k..][..k], 1, &packed);
                    prop_assert_eq!(&alone[..], &all[row * n..][..n], "{:?} {:?}", kernel, compute);
                }
            }
        }
    }
}
