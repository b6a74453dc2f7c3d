use std::arch::x86_64::{
    _mm256_fmadd_ps, _mm256_load_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_store_ps,
};

use super::{Lanes, TILE_ROWS, Tile};

/// 6 rows by one panel: 12 of the 16 registers hold sums.
#[expect(unsafe_code, reason = "functions compiled for an instruction set")]
pub(super) fn tile(rows: usize, a: &[f32], a_stride: usize, b: &[Lanes], out: &mut Tile) -> usize {
    // SAFETY: `Kernel::available` offers AVX2 with FMA only where the machine has it.
    unsafe {
        match rows {
            6.. => tile_of::<6>(a, a_stride, b, out),
            4.. => tile_of::<4>(a, a_stride, b, out),
            2.. => tile_of::<2>(a, a_stride, b, out),
            _ => tile_of::<1>(a, a_stride, b, out),
        }
    }
}

#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "loads and stores by pointer")]
fn tile_of<const M: usize>(a: &[f32], a_stride: usize, b: &[Lanes], out: &mut Tile) -> usize {
    const { assert!(M <= TILE_ROWS) };
    assert!(a.len() >= (M - 1) * a_stride + b.len(), "A has fewer rows than the tile");
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    for (i, lanes) in b.iter().enumerate() {
        // SAFETY: `lanes` is two registers, aligned to 64 bytes. The offset into `a` is at most
        // (M - 1) * a_stride + b.len() - 1, checked above.
        unsafe {
            let low = _mm256_load_ps(lanes.0.as_ptr());
            let high = _mm256_load_ps(lanes.0.as_ptr().add(8));
            for (m, sum) in sums.iter_mut().enumerate() {
                let value = _mm256_set1_ps(*a.as_ptr().add(m * a_stride + i));
                sum[0] = _mm256_fmadd_ps(value, low, sum[0]);
                sum[1] = _mm256_fmadd_ps(value, high, sum[1]);
            }
        }
    }
    for (sum, out) in sums.iter().zip(out) {
        let lanes = out[0].0.as_mut_ptr();
        // SAFETY: `Lanes` is 64 bytes, aligned to 64.
        unsafe {
            _mm256_store_ps(lanes, sum[0]);
            _mm256_store_ps(lanes.add(8), sum[1]);
        }
    }
    M
}
