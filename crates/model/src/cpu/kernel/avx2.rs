use std::arch::x86_64::{
    _mm256_fmadd_ps, _mm256_load_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_store_ps,
};

use super::{Lanes, TILE_ROWS};

/// Registers of 8 floats in a row of a panel.
const REGISTERS: usize = 4;

/// 6 rows by 16 columns, twice: 12 of the 16 registers hold sums, and `B` comes through the cache
/// at half the rate that 3 rows by 32 columns need, which is what fewer rows get.
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
            6.. => tile_of::<6, 2>(a, a_stride, b, out),
            4.. => tile_of::<4, 2>(a, a_stride, b, out),
            3 => tile_of::<3, 4>(a, a_stride, b, out),
            2 => tile_of::<2, 4>(a, a_stride, b, out),
            _ => tile_of::<1, 4>(a, a_stride, b, out),
        }
    }
}

/// `M` rows of the panel's columns, `R` registers of them at a time.
#[target_feature(enable = "avx2,fma")]
#[expect(unsafe_code, reason = "loads and stores by pointer")]
fn tile_of<const M: usize, const R: usize>(
    a: &[f32],
    a_stride: usize,
    b: &[Lanes],
    out: &mut [[Lanes; 2]; TILE_ROWS],
) -> usize {
    const { assert!(REGISTERS.is_multiple_of(R) && M <= TILE_ROWS) };
    let k = b.len() / 2;
    assert!(a.len() >= (M - 1) * a_stride + k, "A has fewer rows than the tile");
    for first in (0..REGISTERS).step_by(R) {
        let mut sums = [[_mm256_setzero_ps(); R]; M];
        for i in 0..k {
            // SAFETY: lanes 2 i and 2 i + 1 are 4 registers within `b`, aligned to 64 bytes, and
            // first + R <= 4. The offset into `a` is at most (M - 1) * a_stride + k - 1, checked
            // above.
            unsafe {
                let lanes: *const f32 = b.as_ptr().add(2 * i).cast();
                let columns: [_; R] =
                    std::array::from_fn(|r| _mm256_load_ps(lanes.add(8 * (first + r))));
                for (m, sum) in sums.iter_mut().enumerate() {
                    let value = _mm256_set1_ps(*a.as_ptr().add(m * a_stride + i));
                    for (sum, column) in sum.iter_mut().zip(columns) {
                        *sum = _mm256_fmadd_ps(value, column, *sum);
                    }
                }
            }
        }
        for (sums, out) in sums.iter().zip(out.iter_mut()) {
            for (r, sum) in sums.iter().enumerate() {
                let register = first + r;
                let lanes = out[register / 2].0.as_mut_ptr();
                // SAFETY: half `register % 2` of lanes `register / 2`, 32 bytes within them,
                // aligned to 32.
                unsafe { _mm256_store_ps(lanes.add(register % 2 * 8), *sum) };
            }
        }
    }
    M
}
