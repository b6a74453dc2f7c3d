//! Sizes of tiles, steps and panels, for packing and for the micro-kernels. No value is read here.

use crate::isa::Kernel;
use crate::lanes::{LANES, Lanes, Quads};

/// Rows of the largest tile of registers that are vectors.
pub(crate) const TILE_ROWS: usize = 12;
/// Panels that a tile takes at once, but for a last one.
pub(crate) const PANELS: usize = 2;

/// Sums of a tile: for each panel, those of each row with its columns.
pub(crate) type TileSums<L = Lanes> = [[L; TILE_ROWS]; PANELS];

/// Rows of a tile of AMX: an operand has their steps side by side, so that a tile is 1 KiB in one piece.
#[cfg(target_arch = "x86_64")]
pub(crate) const AMX_TILE_ROWS: usize = 16;
/// Rows of a product's `A` are filled up to a multiple of this for AMX: two tiles.
#[cfg(target_arch = "x86_64")]
pub(crate) const AMX_ROWS: usize = 2 * AMX_TILE_ROWS;

/// Steps of a panel of bf16 or int8 are a multiple of this, for instructions that take as many at once.
/// `A` and `B` are filled up with zeros.
pub(crate) const K_STEPS_MULTIPLE: usize = 16;

/// Values of a step of pairs.
pub(crate) const VALUES: usize = 2 * LANES;
/// Values of a step of fours.
pub(crate) const VALUES_OF_QUADS: usize = 4 * LANES;

/// The smallest Hadamard matrix by which inputs of int8 are multiplied.
pub(crate) const ORDER_MIN: usize = LANES;
/// The most products of int8 that add up to an i32.
pub(crate) const INPUTS_MAX: usize = 1 << 17;
const _: () = assert!(INPUTS_MAX * 127 * 127 <= i32::MAX as usize);

/// Steps of a panel of bf16.
#[inline]
pub(crate) fn k_steps_of_pairs(inputs: usize) -> usize {
    inputs.div_ceil(2).next_multiple_of(K_STEPS_MULTIPLE)
}

/// Steps of a panel of int8, without the one of its scales.
#[inline]
pub(crate) fn k_steps_of_quads(inputs: usize) -> usize {
    inputs.div_ceil(4).next_multiple_of(K_STEPS_MULTIPLE)
}

/// Scales of a panel's outputs, the first step of its integers.
#[inline]
pub(crate) fn scales_of(panel: &[Quads]) -> &Lanes {
    bytemuck::cast_ref(&panel[0])
}

impl Kernel {
    /// Rows of the largest tile: a product of a multiple wastes nothing.
    #[inline]
    #[must_use]
    pub fn tile_rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => AMX_ROWS,
            _ => TILE_ROWS,
        }
    }

    /// Steps from one step of a row of pairs to its next.
    #[inline]
    pub(crate) fn stride_of_pairs(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => AMX_TILE_ROWS,
            _ => 1,
        }
    }

    /// Rows of pairs that a product of `rows` rows reads.
    #[inline]
    pub(crate) fn rows_of_pairs(self, rows: usize) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => rows.next_multiple_of(AMX_ROWS),
            _ => rows,
        }
    }
}
