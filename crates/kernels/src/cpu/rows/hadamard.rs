//! Hadamard matrices, which spread what stands out in a row: a row comes in, its product goes out in its
//! place.

/// Neighbours that [`hadamard_strided`] always takes together.
pub(crate) const NEIGHBOURS: usize = 16;

/// The largest power of two that divides `dim`: the order of the matrices that take a row of it.
#[inline]
#[must_use]
pub fn order(dim: usize) -> usize {
    1 << dim.trailing_zeros()
}

/// Multiplies each part of the row by the Hadamard matrix of its order, without its norm.
#[inline]
pub fn hadamard(row: &mut [f32]) {
    butterflies(row, 1, order(row.len()));
}

/// Multiplies parts that are not side by side, but each spread over the whole row, 16 neighbours from
/// every place that it has: those of heads, or of other groups, are then alike. Twice gives the row
/// times the order.
///
/// # Panics
/// For a row whose order is below 16.
#[inline(always)]
pub(crate) fn hadamard_strided(row: &mut [f32]) {
    let parts = parts(row.len());
    row.chunks_exact_mut(NEIGHBOURS).for_each(|row| butterflies(row, 1, NEIGHBOURS));
    butterflies(row, parts * NEIGHBOURS, row.len());
}

/// Number of parts that [`hadamard_strided`] makes of a row.
#[inline(always)]
pub(crate) fn parts(dim: usize) -> usize {
    assert!(
        dim.is_multiple_of(NEIGHBOURS),
        "{dim} values have no Hadamard matrices of 16 neighbours"
    );
    dim / order(dim)
}

/// Sums and differences of what is `half` apart, then of what is twice as far apart, up to `end`.
#[inline(always)]
fn butterflies(row: &mut [f32], mut half: usize, end: usize) {
    while half < end {
        for pair in row.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}
