//! Hadamard matrices side by side: they spread what stands out in a row over its neighbours.

/// The largest power of two that divides `dim`: the order of the matrices that take a row of it.
pub(super) fn order(dim: usize) -> usize {
    1 << dim.trailing_zeros()
}

/// Multiplies each part of the row by the Hadamard matrix of its order, without its norm: twice gives
/// the row times the order.
#[inline(always)]
pub(super) fn hadamard(row: &mut [f32]) {
    let order = order(row.len());
    let mut half = 1;
    while half < order {
        for pair in row.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}
