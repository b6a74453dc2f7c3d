//! Tiles in plain Rust: one row by one panel, the reference for the other instruction sets.

use crate::cpu::gemm::blocking::TILE_ROWS;
use crate::lanes::{LANES, Lanes, Quads, Sums};

/// Sums of one row with one panel, by fused multiply-adds in order of `k`.
#[inline]
pub(crate) fn tile(a: &[f32], b: &[Lanes], out: &mut [Lanes; TILE_ROWS]) -> usize {
    let mut sums = Lanes::ZERO;
    for (value, lanes) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums.0[lane] = value.mul_add(lanes.0[lane], sums.0[lane]);
        }
    }
    out[0] = sums;
    1
}

/// Sums of one row with one panel, of int8.
#[inline]
pub(crate) fn tile_of_quads(a: &[[i8; 4]], b: &[Quads], out: &mut [Sums; TILE_ROWS]) -> usize {
    let mut sums = [0; LANES];
    for (a, b) in a.iter().zip(b) {
        for (sum, b) in sums.iter_mut().zip(b.0.as_chunks::<4>().0) {
            *sum += a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum::<i32>();
        }
    }
    out[0].0 = sums;
    1
}
