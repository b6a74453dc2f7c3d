//! Matrix products and row operations, one set for each instruction set.
//!
//! Every sum has one order, fixed by the length of the data alone: a product adds in order of `k`
//! with fused multiply-adds, a row sum has [`LANES`] partial sums that are joined as a tree. So
//! all kernels give the same bits, which the tests check, and a row's result depends on nothing
//! but the row. The exceptions are AVX-512's instruction for pairs of bf16, and AMX: each has bits, and
//! a kernel id, of its own. Sums of int8 are exact, in any order.

mod activated;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod int8;
mod lay;
mod log_sum;
#[cfg(target_arch = "x86_64")]
mod norm;
mod operand;
mod packed;
mod pages;
mod panels;
mod portable;
mod quads;
mod row;
mod sink;
mod softmax;
#[cfg(target_arch = "x86_64")]
mod weigh;

pub(crate) use log_sum::{LogSum, LogSums};
pub(crate) use operand::{Form, Operand};
pub(crate) use packed::{Lanes, PANEL, PackedMatrix, Pairs, depth_of, panels_of};
pub(crate) use panels::{Panels, depth};
use quads::{Quads, Sums, scales_of};
pub(crate) use sink::{Rows, Sink, Then, Tile};
pub(crate) use softmax::{Scores, Softmax};
#[cfg(target_arch = "x86_64")]
use weigh::{RowWeights, Weigh};

use std::ops::Range;

use hyperrag_kv::Element;

use crate::Compute;

/// Partial sums of a row sum, and floats of a [`Lanes`].
pub(crate) const LANES: usize = 16;

/// Rows of the largest tile of registers that are vectors.
const TILE_ROWS: usize = 12;
/// Panels that a tile takes at once, but for a last one.
const PANELS: usize = 2;

/// What a tile computes: for each panel, the sums of each row with its columns.
type TileSums<L = Lanes> = [[L; TILE_ROWS]; PANELS];

/// What the bits of products in f32 depend on. It changes when a summation order does, not with the
/// instruction set.
pub const KERNEL_ID: &str = "cpu-f32-v1";
/// The same of products of bf16, added by fused multiply-adds.
pub const KERNEL_ID_BF16: &str = "cpu-bf16-v1";
/// The same where an instruction for bf16 adds them.
pub const KERNEL_ID_BF16_PAIRS: &str = "cpu-bf16-pairs-v2";
/// The same where AMX adds them.
pub const KERNEL_ID_BF16_AMX: &str = "cpu-bf16-amx-v2";

/// The same of products of int8, whose sums are exact. Attention, and the head of bf16, are as in
/// [`KERNEL_ID_BF16`].
pub const KERNEL_ID_INT8: &str = "cpu-int8-v1";
/// The same where they are as in [`KERNEL_ID_BF16_PAIRS`].
pub const KERNEL_ID_INT8_PAIRS: &str = "cpu-int8-pairs-v2";
/// The same where they are as in [`KERNEL_ID_BF16_AMX`].
pub const KERNEL_ID_INT8_AMX: &str = "cpu-int8-amx-v2";

/// An instruction set with its kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Plain Rust. Slow where the target has no fused multiply-add.
    Portable,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, DQ and BW.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// The same with BF16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// The same with AMX for bf16.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Kernel {
    /// The kernels that this machine can run, the fastest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 =
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq");
            let avx512 = avx512 && is_x86_feature_detected!("avx512bw");
            let pairs = avx2 && avx512 && is_x86_feature_detected!("avx512bf16");
            if pairs && amx::is_available() {
                kernels.push(Self::Amx);
            }
            if pairs {
                kernels.push(Self::Avx512Bf16);
            }
            if avx2 && avx512 {
                kernels.push(Self::Avx512);
            }
            if avx2 {
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
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => "avx512-bf16",
            #[cfg(target_arch = "x86_64")]
            Self::Amx => "amx",
        }
    }

    /// What the bits of products depend on.
    #[must_use]
    pub fn id(self, compute: Compute) -> &'static str {
        match (self, compute) {
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512Bf16, Compute::Bf16) => KERNEL_ID_BF16_PAIRS,
            #[cfg(target_arch = "x86_64")]
            (Self::Amx, Compute::Bf16) => KERNEL_ID_BF16_AMX,
            (_, Compute::Bf16) => KERNEL_ID_BF16,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512Bf16, Compute::Int8) => KERNEL_ID_INT8_PAIRS,
            #[cfg(target_arch = "x86_64")]
            (Self::Amx, Compute::Int8) => KERNEL_ID_INT8_AMX,
            (_, Compute::Int8) => KERNEL_ID_INT8,
            _ => KERNEL_ID,
        }
    }

    /// The type that [`ComputeChoice::Auto`](crate::ComputeChoice::Auto) takes: bf16 where instructions
    /// multiply it, else f32.
    #[must_use]
    pub fn compute(self) -> Compute {
        if self.multiplies_bf16() { Compute::Bf16 } else { Compute::F32 }
    }

    /// Whether it has instructions that multiply bf16; without them they are widened to f32.
    fn multiplies_bf16(self) -> bool {
        self.id(Compute::Bf16) != KERNEL_ID_BF16
    }

    /// The sums of `rows` rows of `A`, `a_stride` floats apart, with the columns of as many panels;
    /// `panel(p)` gives columns `16 p ..` of `B` as `[k][16]`.
    pub(crate) fn product<'b>(
        self,
        a: &[f32],
        a_stride: usize,
        rows: usize,
        panels: usize,
        panel: impl Fn(usize) -> &'b [Lanes],
        sink: impl Sink,
    ) {
        let tile = |row, b: &[&[Lanes]], out: &mut TileSums| {
            let (rows, a) = (rows - row, &a[row * a_stride..]);
            match (self, b) {
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512 | Self::Avx512Bf16 | Self::Amx, &[first, second]) => {
                    avx512::tile(rows, a, a_stride, [first, second], out)
                }
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512 | Self::Avx512Bf16 | Self::Amx, b) => {
                    avx512::tile(rows, a, a_stride, [b[0]], out)
                }
                #[cfg(target_arch = "x86_64")]
                (Self::Avx2, b) => {
                    panel_by_panel(b, out, |b, out| avx2::tile(rows, a, a_stride, b, out))
                }
                (Self::Portable, b) => panel_by_panel(b, out, |b, out| portable::tile(a, b, out)),
            }
        };
        self.each_tile(rows, panels, panel, tile, sink);
    }

    /// As [`Kernel::product`] of pairs of bf16, `[k / 2][16]`; `A` is laid out as an operand lays it,
    /// with [`Kernel::rows_of_pairs`] rows.
    ///
    /// # Panics
    /// If the kernel does not multiply bf16.
    pub(crate) fn product_of_pairs<'b>(
        self,
        a: &[Pairs],
        rows: usize,
        panels: usize,
        panel: impl Fn(usize) -> &'b [Pairs],
        sink: impl Sink,
    ) {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            return amx::product(a, rows, panels, panel, sink);
        }
        let a: &[u32] = bytemuck::cast_slice(a);
        let tile = |row, b: &[&[Pairs]], out: &mut TileSums| {
            let (rows, depth) = (rows - row, b[0].len());
            let a = &a[row * depth..];
            match (self, b) {
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512Bf16, &[first, second]) => {
                    avx512::tile_of_pairs(rows, a, depth, [first, second], out)
                }
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512Bf16, b) => avx512::tile_of_pairs(rows, a, depth, [b[0]], out),
                _ => panic!("{} does not multiply bf16", self.name()),
            }
        };
        self.each_tile(rows, panels, panel, tile, sink);
    }

    /// Rounds to the nearest bf16, ties to even, as pairs, each 32 values `stride` steps after those
    /// before. What a last step has beyond the values stays as it is.
    fn round_to_steps(self, x: &[f32], out: &mut [Pairs], stride: usize) {
        #[cfg(target_arch = "x86_64")]
        if self.multiplies_bf16() {
            return avx512::round_to_steps(x, out, stride);
        }
        row::round_to_steps(x, out, stride);
    }

    /// Steps from one step of a row of pairs to its next.
    fn stride_of_pairs(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => amx::TILE_ROWS,
            _ => 1,
        }
    }

    /// Rows of the largest tile: a product of a multiple wastes nothing.
    pub(crate) fn tile_rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => amx::ROWS,
            _ => TILE_ROWS,
        }
    }

    /// Rows of pairs that a product of `rows` rows reads.
    fn rows_of_pairs(self, rows: usize) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => rows.next_multiple_of(amx::ROWS),
            _ => rows,
        }
    }

    /// Covers a product with tiles. `tile` computes rows from the given one on, as many as it holds, by
    /// one panel or two, and says how many.
    fn each_tile<'b, B: 'b>(
        self,
        rows: usize,
        panels: usize,
        panel: impl Fn(usize) -> &'b [B],
        tile: impl Fn(usize, &[&[B]], &mut TileSums) -> usize,
        mut sink: impl Sink,
    ) {
        let mut sums: TileSums = [[Lanes::ZERO; TILE_ROWS]; PANELS];
        for first in (0..panels).step_by(PANELS) {
            let count = PANELS.min(panels - first);
            let b = [panel(first), panel(first + count - 1)];
            let mut row = 0;
            while row < rows {
                let done = tile(row, &b[..count], &mut sums);
                let [low, high] = &mut sums;
                let high = if count == PANELS { &mut high[..done] } else { &mut [] };
                sink.take(Tile { row, panel: first, sums: [&mut low[..done], high] });
                row += done;
            }
        }
    }
}

/// Computes a tile of two panels as two of one.
fn panel_by_panel<B, L>(
    b: &[&[B]],
    out: &mut TileSums<L>,
    tile: impl Fn(&[B], &mut [L; TILE_ROWS]) -> usize,
) -> usize {
    b.iter().zip(out).map(|(b, out)| tile(b, out)).last().unwrap_or_default()
}

/// Which columns of a matrix of scores a row sees: those up to its own, or a window of them.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    /// Column of the first rows themselves.
    pub(crate) first: usize,
    /// Rows that have the same columns: query heads that share K and V.
    pub(crate) group: usize,
    /// Columns that a row sees at most.
    pub(crate) window: usize,
}

impl Seen {
    pub(crate) fn span(self, row: usize) -> Range<usize> {
        let end = self.first + row / self.group + 1;
        end.saturating_sub(self.window)..end
    }
}

/// Compiles each row operation once for every instruction set, from the same source.
macro_rules! row_operations {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)?;)*) => {
        #[cfg(target_arch = "x86_64")]
        mod row_avx2 {
            use super::{Element, Lanes, LogSum, Pairs, Quads, Seen, row};
            $(#[target_feature(enable = "avx2,fma")]
            pub(super) fn $name($($arg: $ty),*) $(-> $out)? { row::$name($($arg),*) })*
        }
        #[cfg(target_arch = "x86_64")]
        mod row_avx512 {
            use super::{Element, Lanes, LogSum, Pairs, Quads, Seen, row};
            $(#[target_feature(enable = "avx512f,avx512dq,avx512bw")]
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
                    Self::Avx512 | Self::Avx512Bf16 | Self::Amx => unsafe { row_avx512::$name($($arg),*) },
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
    /// Each row times the reciprocal of its divisor; there are as many rows as divisors.
    fn divide_rows(values: &mut [f32], divisors: &[f32]);
    /// Turns the pairs of each head by their angles, a cosine and a sine (RoPE, arXiv 2104.09864, neighbours
    /// paired), then multiplies them.
    fn rotate(heads: &mut [f32], angles: &[(f32, f32)], by: f32);
    /// `gates = silu(gates) * ups`.
    fn silu_mul(gates: &mut [Lanes], ups: &[Lanes]);
    /// As `silu_mul`, by GELU.
    fn gelu_mul(gates: &mut [Lanes], ups: &[Lanes]);
    /// Puts `width` sums into each row of `out`, whose rows are `stride` values apart.
    fn put(out: &mut [f32], stride: usize, sums: &[Lanes], width: usize);
    /// As `put`, adding.
    fn add_sums(out: &mut [f32], stride: usize, sums: &[Lanes], width: usize);
    /// `cap * tanh(value / cap)`.
    fn soft_cap(values: &mut [f32], cap: f32);
    /// Turns the scores of each row that are `seen` into `exp(score - max)`, the others into 0, and gives
    /// the sums. A row has `columns` scores.
    fn exp_and_sum(scores: &mut [f32], columns: usize, seen: Seen, sums: &mut [f32]);
    /// Rounds to the nearest bf16, ties to even.
    fn round_to_bf16(x: &[f32], out: &mut [f32]);
    /// The same, two to a word, the first in the low half, and zeros beyond.
    fn round_to_pairs(x: &[f32], out: &mut [u32]);
    /// See [`Kernel::encode`].
    fn encode_row(element: Element, row: &[f32], bytes: &mut [u8]);
    /// Reads it back, see [`Element::decode`].
    fn decode(element: Element, bytes: &[u8], row: &mut [f32]);
    /// See [`Kernel::decode_to_pairs`].
    fn decode_rows_to_pairs(element: Element, bytes: &[u8], row: &mut [f32], out: &mut [u32]);
    /// Turns a row by Hadamard matrices and rounds it, see [`Kernel::quantise`].
    fn turn_and_quantise(x: &mut [f32], out: &mut [Quads], stride: usize) -> f32;
    /// Pairs of bf16 as f32, the first of each pair before the second.
    fn widen(pairs: &[Pairs], out: &mut [Lanes]);
    /// Adds the exponentials of a panel's logits to what their rows have.
    fn add_exp(logits: &[Lanes], rows: &mut [LogSum]);
}

#[cfg(test)]
mod tests;
