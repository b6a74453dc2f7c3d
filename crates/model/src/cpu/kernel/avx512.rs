use std::arch::x86_64::{
    _mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps,
};

use super::{Lanes, TILE_ROWS};

/// Up to 12 rows by 32 columns: 24 of the 32 registers hold sums.
#[expect(unsafe_code, reason = "functions compiled for an instruction set")]
pub(super) fn tile(
    rows: usize,
    a: &[f32],
    a_stride: usize,
    b: &[Lanes],
    out: &mut [[Lanes; 2]; TILE_ROWS],
) -> usize {
    // SAFETY: `Kernel::available` offers AVX-512 only where the machine has it.
    unsafe {
        match rows {
            12.. => tile_of::<12>(a, a_stride, b, out),
            8.. => tile_of::<8>(a, a_stride, b, out),
            4.. => tile_of::<4>(a, a_stride, b, out),
            2.. => tile_of::<2>(a, a_stride, b, out),
            _ => tile_of::<1>(a, a_stride, b, out),
        }
    }
}

#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "loads and stores by pointer")]
fn tile_of<const M: usize>(
    a: &[f32],
    a_stride: usize,
    b: &[Lanes],
    out: &mut [[Lanes; 2]; TILE_ROWS],
) -> usize {
    let k = b.len() / 2;
    assert!(a.len() >= (M - 1) * a_stride + k, "A has fewer rows than the tile");
    let mut sums = [[_mm512_setzero_ps(); 2]; M];
    for i in 0..k {
        // SAFETY: 2 i + 1 < b.len(), and `Lanes` is aligned to 64 bytes. The offset into `a` is
        // at most (M - 1) * a_stride + k - 1, checked above.
        unsafe {
            let b0 = _mm512_load_ps(b.as_ptr().add(2 * i).cast());
            let b1 = _mm512_load_ps(b.as_ptr().add(2 * i + 1).cast());
            for (m, sum) in sums.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*a.as_ptr().add(m * a_stride + i));
                sum[0] = _mm512_fmadd_ps(value, b0, sum[0]);
                sum[1] = _mm512_fmadd_ps(value, b1, sum[1]);
            }
        }
    }
    for (sum, out) in sums.iter().zip(out) {
        // SAFETY: `Lanes` is 64 bytes, aligned to 64.
        unsafe {
            _mm512_store_ps(out[0].0.as_mut_ptr(), sum[0]);
            _mm512_store_ps(out[1].0.as_mut_ptr(), sum[1]);
        }
    }
    M
}
