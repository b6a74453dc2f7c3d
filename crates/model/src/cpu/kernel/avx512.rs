use std::arch::x86_64::{
    _mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps,
};

use super::{Lanes, TILE_ROWS, Tile};

/// Up to 12 rows by two panels: 24 of the 32 registers hold sums.
#[expect(unsafe_code, reason = "functions compiled for an instruction set")]
pub(super) fn tile<const N: usize>(
    rows: usize,
    a: &[f32],
    a_stride: usize,
    b: [&[Lanes]; N],
    out: &mut Tile,
) -> usize {
    // SAFETY: `Kernel::available` offers AVX-512 only where the machine has it.
    unsafe {
        match rows {
            12.. => tile_of::<12, N>(a, a_stride, b, out),
            8.. => tile_of::<8, N>(a, a_stride, b, out),
            4.. => tile_of::<4, N>(a, a_stride, b, out),
            2.. => tile_of::<2, N>(a, a_stride, b, out),
            _ => tile_of::<1, N>(a, a_stride, b, out),
        }
    }
}

#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "loads and stores by pointer")]
fn tile_of<const M: usize, const N: usize>(
    a: &[f32],
    a_stride: usize,
    b: [&[Lanes]; N],
    out: &mut Tile,
) -> usize {
    const { assert!(M <= TILE_ROWS) };
    let k = b[0].len();
    assert!(b.iter().all(|panel| panel.len() == k), "panels of one product are of one length");
    assert!(a.len() >= (M - 1) * a_stride + k, "A has fewer rows than the tile");
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    for i in 0..k {
        // SAFETY: i < k, the length of each panel, and `Lanes` is aligned to 64 bytes. The offset
        // into `a` is at most (M - 1) * a_stride + k - 1, checked above.
        unsafe {
            let lanes = b.map(|panel| _mm512_load_ps(panel.as_ptr().add(i).cast()));
            for (m, sum) in sums.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*a.as_ptr().add(m * a_stride + i));
                for (sum, lanes) in sum.iter_mut().zip(lanes) {
                    *sum = _mm512_fmadd_ps(value, lanes, *sum);
                }
            }
        }
    }
    for (sums, out) in sums.iter().zip(out) {
        for (sum, lanes) in sums.iter().zip(out) {
            // SAFETY: `Lanes` is 64 bytes, aligned to 64.
            unsafe { _mm512_store_ps(lanes.0.as_mut_ptr(), *sum) };
        }
    }
    M
}
