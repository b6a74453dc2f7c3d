use super::{LANES, Lanes, TILE_ROWS};

/// One row a tile; the reference for the others.
pub(super) fn tile(
    _rows: usize,
    a: &[f32],
    _a_stride: usize,
    b: &[Lanes],
    out: &mut [[Lanes; 2]; TILE_ROWS],
) -> usize {
    let mut sums = [Lanes::ZERO; 2];
    for (value, pair) in a.iter().zip(b.chunks_exact(2)) {
        for (sum, lanes) in sums.iter_mut().zip(pair) {
            for lane in 0..LANES {
                sum.0[lane] = value.mul_add(lanes.0[lane], sum.0[lane]);
            }
        }
    }
    out[0] = sums;
    1
}
