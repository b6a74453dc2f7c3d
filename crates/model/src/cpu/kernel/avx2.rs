use std::arch::x86_64::{
    _mm256_fmadd_ps, _mm256_load_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_store_ps,
};

use super::{Lanes, TILE_ROWS};

/// Up to 3 rows by 32 columns: 12 of the 16 registers hold sums.
#[expect(unsafe_code, reason = "functions compiled for an instruction set")]
pub(super) fn tile(
    rows: usize,
    a: &[f32],
    a_stride: usize,
    b: &[Lanes],
    out: &mut [[Lanes; 2]; TILE_ROWS],
) -> usize {
    // SAFETY: `Kernel::available` offers AVX2 with FMA only where the machine has it.
    unsafe {
        match rows {
            3.. => tile_of::<3>(a, a_stride, b, out),
            2 => tile_of::<2>(a, a_stride, b, out),
            _ => tile_of::<1>(a, a_stride, b, out),
        }
    }
}

#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "loads and stores by pointer")]
fn tile_of<const M: usize>(
    a: &[f32],
    a_stride: usize,
    b: &[Lanes],
    out: &mut [[Lanes; 2]; TILE_ROWS],
) -> usize {
    let k = b.len() / 2;
    assert!(a.len() >= (M - 1) * a_stride + k, "A has fewer rows than the tile");
    let mut sums = [[_mm256_setzero_ps(); 4]; M];
    for i in 0..k {
        // SAFETY: lanes 2 i and 2 i + 1 are 32 floats within `b`, aligned to 64 bytes. The offset
        // into `a` is at most (M - 1) * a_stride + k - 1, checked above.
        unsafe {
            let lanes: *const f32 = b.as_ptr().add(2 * i).cast();
            let columns = [0, 8, 16, 24].map(|column| _mm256_load_ps(lanes.add(column)));
            for (m, sum) in sums.iter_mut().enumerate() {
                let value = _mm256_set1_ps(*a.as_ptr().add(m * a_stride + i));
                for (sum, column) in sum.iter_mut().zip(columns) {
                    *sum = _mm256_fmadd_ps(value, column, *sum);
                }
            }
        }
    }
    for (sum, out) in sums.iter().zip(out) {
        for (i, sum) in sum.iter().enumerate() {
            // SAFETY: half `i % 2` of lanes `i / 2`, 32 bytes within them, aligned to 32.
            unsafe { _mm256_store_ps(out[i / 2].0.as_mut_ptr().add(i % 2 * 8), *sum) };
        }
    }
    M
}
