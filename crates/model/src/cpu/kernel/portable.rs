use super::{LANES, Lanes, Quads, Sums, TILE_ROWS};

/// One row by one panel a tile; the reference for the others.
pub(super) fn tile(a: &[f32], b: &[Lanes], out: &mut [Lanes; TILE_ROWS]) -> usize {
    let mut sums = Lanes::ZERO;
    for (value, lanes) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums.0[lane] = value.mul_add(lanes.0[lane], sums.0[lane]);
        }
    }
    out[0] = sums;
    1
}

/// The same of int8.
pub(super) fn tile_of_quads(a: &[[i8; 4]], b: &[Quads], out: &mut [Sums; TILE_ROWS]) -> usize {
    let mut sums = [0; LANES];
    for (a, b) in a.iter().zip(b) {
        for (sum, b) in sums.iter_mut().zip(b.0.as_chunks::<4>().0) {
            *sum += a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum::<i32>();
        }
    }
    out[0].0 = sums;
    1
}
