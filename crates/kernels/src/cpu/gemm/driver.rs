//! The loop over the tiles of a product: packed rows and panels come in, an epilogue gets the sums. It does
//! not know what packed them.

use crate::cpu::gemm::blocking::{PANELS, TILE_ROWS, TileSums};
use crate::cpu::gemm::epilogue::{Epilogue, Tile};
use crate::cpu::microkernel::portable;
#[cfg(target_arch = "x86_64")]
use crate::cpu::microkernel::{amx, avx2, avx512};
use crate::isa::Kernel;
use crate::lanes::{Lanes, Pairs};

impl Kernel {
    /// Computes the sums of `rows` rows of `A`, `a_stride` floats apart, with the columns of as many panels;
    /// `panel(p)` gives columns `16 p ..` of `B` as `[k][16]`.
    pub(crate) fn product<'b>(
        self,
        a: &[f32],
        a_stride: usize,
        rows: usize,
        panels: usize,
        panel: impl Fn(usize) -> &'b [Lanes],
        epilogue: impl Epilogue,
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
        self.each_tile(rows, panels, panel, tile, epilogue);
    }

    /// Computes a product as [`Kernel::product`] does, of pairs of bf16, `[k / 2][16]`. `A` is packed as
    /// [`PackedLhs`](super::pack_lhs::PackedLhs) has it, with [`Kernel::rows_of_pairs`] rows.
    ///
    /// # Panics
    /// If the kernel does not multiply bf16.
    pub(crate) fn product_of_pairs<'b>(
        self,
        a: &[Pairs],
        rows: usize,
        panels: usize,
        panel: impl Fn(usize) -> &'b [Pairs],
        epilogue: impl Epilogue,
    ) {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            return amx::product(a, rows, panels, panel, epilogue);
        }
        let a: &[u32] = bytemuck::cast_slice(a);
        let tile = |row, b: &[&[Pairs]], out: &mut TileSums| {
            let (rows, k_steps) = (rows - row, b[0].len());
            let a = &a[row * k_steps..];
            match (self, b) {
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512Bf16, &[first, second]) => {
                    avx512::tile_of_pairs(rows, a, k_steps, [first, second], out)
                }
                #[cfg(target_arch = "x86_64")]
                (Self::Avx512Bf16, b) => avx512::tile_of_pairs(rows, a, k_steps, [b[0]], out),
                _ => panic!("{} does not multiply bf16", self.name()),
            }
        };
        self.each_tile(rows, panels, panel, tile, epilogue);
    }

    /// Covers a product with tiles. `tile` computes rows from the given one on, as many as it holds, by
    /// one panel or two, and says how many.
    pub(crate) fn each_tile<'b, B: 'b>(
        self,
        rows: usize,
        panels: usize,
        panel: impl Fn(usize) -> &'b [B],
        tile: impl Fn(usize, &[&[B]], &mut TileSums) -> usize,
        mut epilogue: impl Epilogue,
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
                epilogue.take(Tile { row, panel: first, sums: [&mut low[..done], high] });
                row += done;
            }
        }
    }
}

/// Computes a tile of two panels as two of one.
pub(crate) fn panel_by_panel<B, L>(
    b: &[&[B]],
    out: &mut TileSums<L>,
    tile: impl Fn(&[B], &mut [L; TILE_ROWS]) -> usize,
) -> usize {
    b.iter().zip(out).map(|(b, out)| tile(b, out)).last().unwrap_or_default()
}
