//! Tiles by AVX2 with FMA: up to 6 rows by one panel, of f32 or int8.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_fmadd_ps, _mm256_load_ps, _mm256_load_si256,
    _mm256_madd_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_slli_epi16, _mm256_srai_epi16, _mm256_store_ps, _mm256_store_si256,
};

use crate::cpu::gemm::blocking::TILE_ROWS;
use crate::lanes::{Lanes, Quads, Sums};

/// Sums of up to 6 rows with one panel: 12 of the 16 registers hold sums.
#[expect(unsafe_code, reason = "functions compiled for an instruction set")]
#[inline]
pub(crate) fn tile(
    rows: usize,
    a: &[f32],
    a_stride: usize,
    b: &[Lanes],
    out: &mut [Lanes; TILE_ROWS],
) -> usize {
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
fn tile_of<const M: usize>(
    a: &[f32],
    a_stride: usize,
    b: &[Lanes],
    out: &mut [Lanes; TILE_ROWS],
) -> usize {
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
        let lanes = out.0.as_mut_ptr();
        // SAFETY: `Lanes` is 64 bytes, aligned to 64.
        unsafe {
            _mm256_store_ps(lanes, sum[0]);
            _mm256_store_ps(lanes.add(8), sum[1]);
        }
    }
    M
}

/// Sums of up to 4 rows with one panel, of int8.
#[expect(unsafe_code, reason = "functions compiled for an instruction set")]
#[inline]
pub(crate) fn tile_of_quads(
    rows: usize,
    a: &[[i8; 4]],
    a_stride: usize,
    b: &[Quads],
    out: &mut [Sums; TILE_ROWS],
) -> usize {
    // SAFETY: as above.
    unsafe {
        match rows {
            4.. => tile_of_quads_of::<4>(a, a_stride, b, out),
            2.. => tile_of_quads_of::<2>(a, a_stride, b, out),
            _ => tile_of_quads_of::<1>(a, a_stride, b, out),
        }
    }
}

/// Splits every four into the even ones and the odd ones, as 16 bits.
#[target_feature(enable = "avx2")]
#[inline]
fn even_and_odd(quads: __m256i) -> [__m256i; 2] {
    [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(quads)), _mm256_srai_epi16::<8>(quads)]
}

#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "loads and stores by pointer")]
fn tile_of_quads_of<const M: usize>(
    a: &[[i8; 4]],
    a_stride: usize,
    b: &[Quads],
    out: &mut [Sums; TILE_ROWS],
) -> usize {
    const { assert!(M <= TILE_ROWS) };
    assert!(a.len() >= (M - 1) * a_stride + b.len(), "A has fewer rows than the tile");
    let mut sums = [[_mm256_setzero_si256(); 2]; M];
    for (i, quads) in b.iter().enumerate() {
        let quads: *const __m256i = quads.0.as_ptr().cast();
        // SAFETY: `Quads` is two registers, aligned to 64 bytes.
        let halves = unsafe { [_mm256_load_si256(quads), _mm256_load_si256(quads.add(1))] };
        let halves = halves.map(|half| even_and_odd(half));
        for (m, sums) in sums.iter_mut().enumerate() {
            let quad = i32::from_le_bytes(a[m * a_stride + i].map(i8::cast_unsigned));
            let [a_even, a_odd] = even_and_odd(_mm256_set1_epi32(quad));
            for (sum, [even, odd]) in sums.iter_mut().zip(halves) {
                let even = _mm256_madd_epi16(a_even, even);
                let both = _mm256_add_epi32(even, _mm256_madd_epi16(a_odd, odd));
                *sum = _mm256_add_epi32(*sum, both);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out) {
        let lanes: *mut __m256i = out.0.as_mut_ptr().cast();
        // SAFETY: `Sums` is two registers, aligned to 64 bytes.
        unsafe {
            _mm256_store_si256(lanes, sums[0]);
            _mm256_store_si256(lanes.add(1), sums[1]);
        }
    }
    M
}
