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
#[inline(always)]
pub(crate) fn hadamard(row: &mut [f32]) {
    let order = order(row.len());
    if order < NEIGHBOURS {
        return butterflies(row, 1, order);
    }
    row.as_chunks_mut().0.iter_mut().for_each(neighbours);
    butterflies(row, NEIGHBOURS, order);
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
    row.as_chunks_mut().0.iter_mut().for_each(neighbours);
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

/// Takes the steps of [`butterflies`] within 16 neighbours, in a form that compiles to whole registers.
#[inline(always)]
fn neighbours(row: &mut [f32; NEIGHBOURS]) {
    for half in [1, 2, 4, 8] {
        let from = *row;
        *row = std::array::from_fn(|i| match i & half {
            0 => from[i] + from[i ^ half],
            _ => from[i ^ half] - from[i],
        });
    }
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
