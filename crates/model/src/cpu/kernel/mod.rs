//! Matrix products and row operations, one set for each instruction set.
//!
//! Every sum has one order, fixed by the length of the data alone: a product adds in order of `k`
//! with fused multiply-adds, a row sum has [`LANES`] partial sums that are joined as a tree. So
//! all kernels give the same bits, which the tests check, and a row's result depends on nothing
//! but the row.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod packed;
mod portable;
mod row;

pub(crate) use packed::{Lanes, PANEL, PackedMatrix, panels_of};

/// Partial sums of a row sum, and floats of a [`Lanes`].
pub(crate) const LANES: usize = 16;

/// Rows of the largest tile.
pub(crate) const TILE_ROWS: usize = 12;

/// What a tile computes: for each row, its sums with the columns of one panel or two.
type Tile = [[Lanes; 2]; TILE_ROWS];

/// What the bits depend on. It changes when a summation order does, not with the instruction set.
pub const KERNEL_ID: &str = "cpu-f32-v1";

/// An instruction set with its kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Plain Rust. Slow where the target has no fused multiply-add.
    Portable,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F and DQ.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    /// The kernels that this machine can run, the fastest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                kernels.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                kernels.push(Self::Avx2);
            }
        }
        kernels.push(Self::Portable);
        kernels
    }

    /// The fastest kernel that this machine can run.
    #[must_use]
    pub fn best() -> Self {
        Self::available()[0]
    }

    /// Name of the instruction set.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }

    /// `C = A B`: `rows` rows of `A`, `a_stride` floats apart, times the columns of the panels.
    ///
    /// `panel(p)` gives columns `16 p ..` of `B` as `[k][16]`. Row `r` of `C` starts at
    /// `r * c_stride` and gets `columns` values.
    #[expect(clippy::too_many_arguments, reason = "a strided product has two matrices and a shape")]
    pub(crate) fn product<'b>(
        self,
        a: &[f32],
        a_stride: usize,
        rows: usize,
        panel: impl Fn(usize) -> &'b [Lanes],
        c: &mut [f32],
        c_stride: usize,
        columns: usize,
    ) {
        let mut tile: Tile = [[Lanes::ZERO; 2]; TILE_ROWS];
        let mut column = 0;
        while column < columns {
            // Panels that a tile takes at once.
            let count = self.panels_at_once().min(panels_of(columns - column));
            let first = column / PANEL;
            let panels = [panel(first), panel(first + count - 1)];
            let width = (count * PANEL).min(columns - column);
            let mut row = 0;
            while row < rows {
                let a = &a[row * a_stride..];
                let done = self.tile(rows - row, a, a_stride, &panels[..count], &mut tile);
                for (i, values) in tile[..done].iter().enumerate() {
                    let start = (row + i) * c_stride + column;
                    for (out, lanes) in c[start..start + width].chunks_mut(LANES).zip(values) {
                        match <&mut [f32; LANES]>::try_from(&mut *out) {
                            Ok(out) => *out = lanes.0,
                            Err(_) => out.copy_from_slice(&lanes.0[..out.len()]),
                        }
                    }
                }
                row += done;
            }
            column += width;
        }
    }

    fn panels_at_once(self) -> usize {
        match self {
            Self::Portable => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 2,
        }
    }

    /// Computes as many rows as one tile holds, at most `rows`, and says how many.
    fn tile(
        self,
        rows: usize,
        a: &[f32],
        a_stride: usize,
        b: &[&[Lanes]],
        out: &mut Tile,
    ) -> usize {
        match (self, b) {
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512, &[first, second]) => {
                avx512::tile(rows, a, a_stride, [first, second], out)
            }
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512, b) => avx512::tile(rows, a, a_stride, [b[0]], out),
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, b) => avx2::tile(rows, a, a_stride, b[0], out),
            (Self::Portable, b) => portable::tile(a, b[0], out),
        }
    }
}

/// Compiles each row operation once for every instruction set, from the same source.
macro_rules! row_operations {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)?;)*) => {
        #[cfg(target_arch = "x86_64")]
        mod row_avx2 {
            use super::row;
            $(#[target_feature(enable = "avx2,fma")]
            pub(super) fn $name($($arg: $ty),*) $(-> $out)? { row::$name($($arg),*) })*
        }
        #[cfg(target_arch = "x86_64")]
        mod row_avx512 {
            use super::row;
            $(#[target_feature(enable = "avx512f,avx512dq")]
            pub(super) fn $name($($arg: $ty),*) $(-> $out)? { row::$name($($arg),*) })*
        }
        impl Kernel {
            $($(#[$doc])*
            #[expect(unsafe_code, reason = "a function compiled for an instruction set")]
            pub(crate) fn $name(self, $($arg: $ty),*) $(-> $out)? {
                match self {
                    Self::Portable => row::$name($($arg),*),
                    // SAFETY: `Kernel::available` offers a variant only where the machine has it.
                    #[cfg(target_arch = "x86_64")]
                    Self::Avx2 => unsafe { row_avx2::$name($($arg),*) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Self::Avx512 => unsafe { row_avx512::$name($($arg),*) },
                }
            })*
        }
    };
}

row_operations! {
    /// `out = x / rms(x) * weight`, the mean square raised by `eps` (RMSNorm, arXiv 1910.07467).
    fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
    /// `x += y`.
    fn add(x: &mut [f32], y: &[f32]);
    /// `out = silu(gate) * up`, where `gate_up` holds the gates and then the ups.
    fn silu_mul(gate_up: &[f32], out: &mut [f32]);
    /// Turns the first `valid` scores into `exp(score - max)`, the others into 0, and gives the sum.
    fn softmax(scores: &mut [f32], valid: usize) -> f32;
    /// The largest value, and the sum of `exp(value - largest)`.
    fn max_and_sum_exp(values: &[f32]) -> (f32, f32);
}

#[cfg(test)]
mod tests {
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

    fn product(kernel: Kernel, a: &[f32], rows: usize, b: &PackedMatrix) -> Vec<f32> {
        let mut c = vec![f32::NAN; rows * b.outputs()];
        kernel.product(a, b.inputs(), rows, |p| b.panel(p), &mut c, b.outputs(), b.outputs());
        c
    }

    proptest! {
        #[test]
        fn products_are_bit_equal_and_right(
            rows in 1usize..30, k in 1usize..70, n in 1usize..80, seed: u64
        ) {
            let (a, w) = (floats(seed, rows * k), floats(!seed, n * k));
            let packed = PackedMatrix::pack(&[&w], k);
            let expected = product(Kernel::Portable, &a, rows, &packed);
            for (i, value) in expected.iter().enumerate() {
                let (row, column) = (&a[i / n * k..][..k], &w[i % n * k..][..k]);
                let exact: f64 = row.iter().zip(column).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                prop_assert!((f64::from(*value) - exact).abs() < 1e-3);
            }
            for kernel in Kernel::available() {
                prop_assert_eq!(&product(kernel, &a, rows, &packed), &expected);
                // A row alone gives what it gives among others.
                prop_assert_eq!(&product(kernel, &a[(rows - 1) * k..], 1, &packed)[..], &expected[(rows - 1) * n..]);
            }
        }

        #[test]
        fn row_operations_are_bit_equal_and_right(half in 1usize..40, valid in 1usize..90, seed: u64) {
            let n = 2 * half;
            let valid = valid.min(n);
            let (x, w) = (floats(seed, n), floats(!seed, n));
            let all = |kernel: Kernel| {
                let (mut norm, mut sum, mut gated, mut soft) = (vec![0.0; n], x.clone(), vec![0.0; half], x.clone());
                kernel.rms_norm(&x, &w, 1e-5, &mut norm);
                kernel.add(&mut sum, &w);
                kernel.silu_mul(&x, &mut gated);
                let total = kernel.softmax(&mut soft, valid);
                let (max, sum_exp) = kernel.max_and_sum_exp(&x);
                [norm, sum, gated, soft, vec![total, max, sum_exp]]
            };
            let expected = all(Kernel::Portable);
            for kernel in Kernel::available() {
                prop_assert_eq!(&all(kernel), &expected);
            }
            let close = |a: f32, b: f64| (f64::from(a) - b).abs() <= 1e-5 * (1.0 + b.abs());
            let [norm, _, gated, soft, totals] = &expected;
            let mean_square = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n as f64;
            for i in 0..n {
                prop_assert!(close(norm[i], f64::from(x[i]) / (mean_square + 1e-5).sqrt() * f64::from(w[i])));
            }
            for i in 0..half {
                let g = f64::from(x[i]);
                prop_assert!(close(gated[i], g / (1.0 + (-g).exp()) * f64::from(x[half + i])));
            }
            let max = x[..valid].iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
            for i in 0..n {
                let e = if i < valid { f64::from(x[i] - max).exp() } else { 0.0 };
                prop_assert!(close(soft[i], e));
            }
            let max = x.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
            prop_assert_eq!(totals[1], max);
            prop_assert!(close(totals[2], x.iter().map(|v| f64::from(v - max).exp()).sum()));
        }
    }
}
