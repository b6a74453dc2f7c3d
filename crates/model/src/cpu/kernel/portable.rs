use super::{LANES, Lanes, Tile};

/// One row by one panel a tile; the reference for the others.
pub(super) fn tile(a: &[f32], b: &[Lanes], out: &mut Tile) -> usize {
    let mut sums = Lanes::ZERO;
    for (value, lanes) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums.0[lane] = value.mul_add(lanes.0[lane], sums.0[lane]);
        }
    }
    out[0][0] = sums;
    1
}
