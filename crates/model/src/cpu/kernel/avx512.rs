use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, _mm256_storeu_si256, _mm512_cvtneps_pbh,
    _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_load_si512, _mm512_loadu_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps,
};
use std::mem::transmute;

use super::{LANES, Lanes, Pairs, TILE_ROWS, Tile, row};

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
#[expect(unsafe_code, reason = "loads by pointer")]
fn tile_of<const M: usize, const N: usize>(
    a: &[f32],
    a_stride: usize,
    b: [&[Lanes]; N],
    out: &mut Tile,
) -> usize {
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
    store(&sums, out)
}

/// The same of pairs of bf16, by the instruction that multiplies and adds both of a pair. It rounds
/// in its own way: denormals count as zero, and the bits are not those of fused multiply-adds.
#[expect(unsafe_code, reason = "functions compiled for an instruction set")]
pub(super) fn tile_of_pairs<const N: usize>(
    rows: usize,
    a: &[u32],
    a_stride: usize,
    b: [&[Pairs]; N],
    out: &mut Tile,
) -> usize {
    // SAFETY: `Kernel::available` offers AVX-512 with BF16 only where the machine has it.
    unsafe {
        match rows {
            12.. => tile_of_pairs_of::<12, N>(a, a_stride, b, out),
            8.. => tile_of_pairs_of::<8, N>(a, a_stride, b, out),
            4.. => tile_of_pairs_of::<4, N>(a, a_stride, b, out),
            2.. => tile_of_pairs_of::<2, N>(a, a_stride, b, out),
            _ => tile_of_pairs_of::<1, N>(a, a_stride, b, out),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "loads by pointer, registers of another type")]
fn tile_of_pairs_of<const M: usize, const N: usize>(
    a: &[u32],
    a_stride: usize,
    b: [&[Pairs]; N],
    out: &mut Tile,
) -> usize {
    let k = b[0].len();
    assert!(b.iter().all(|panel| panel.len() == k), "panels of one product are of one length");
    assert!(a.len() >= (M - 1) * a_stride + k, "A has fewer rows than the tile");
    // SAFETY: both are 64 bytes, and every pattern of bits is a value of either.
    let bf16 = |pairs: __m512i| unsafe { transmute::<__m512i, __m512bh>(pairs) };
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    for i in 0..k {
        // SAFETY: as in `tile_of`.
        unsafe {
            let pairs = b.map(|panel| bf16(_mm512_load_si512(panel.as_ptr().add(i).cast())));
            for (m, sum) in sums.iter_mut().enumerate() {
                let pair = *a.as_ptr().add(m * a_stride + i);
                let pair = bf16(_mm512_set1_epi32(pair.cast_signed()));
                for (sum, pairs) in sum.iter_mut().zip(pairs) {
                    *sum = _mm512_dpbf16_ps(*sum, pair, pairs);
                }
            }
        }
    }
    store(&sums, out)
}

/// [`row::round_to_steps`] by the instruction for it, which takes denormals for zero, as those do that
/// multiply.
#[expect(unsafe_code, reason = "a function compiled for an instruction set")]
pub(super) fn round_to_steps(x: &[f32], out: &mut [Pairs], stride: usize) {
    // SAFETY: `Kernel::available` offers AVX-512 with BF16 only where the machine has it.
    unsafe { round_to_steps_by_sixteen(x, out, stride) }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512bf16")]
#[expect(unsafe_code, reason = "loads and stores by pointer, registers of another type")]
fn round_to_steps_by_sixteen(x: &[f32], out: &mut [Pairs], stride: usize) {
    let (steps, rest) = x.as_chunks::<{ 2 * LANES }>();
    for (values, pairs) in steps.iter().zip(out.iter_mut().step_by(stride)) {
        for half in 0..2 {
            // SAFETY: 16 of 32 floats are read and 32 of 64 bytes written; every pattern of bits is
            // a value of either type of register.
            unsafe {
                let values = _mm512_loadu_ps(values.as_ptr().add(half * LANES));
                let rounded = transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values));
                _mm256_storeu_si256(pairs.0.as_mut_ptr().add(half * LANES / 2).cast(), rounded);
            }
        }
    }
    if !rest.is_empty() {
        row::round_to_steps(rest, &mut out[steps.len() * stride..], stride);
    }
}

/// Puts the sums into the tile, and gives their rows.
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "stores by pointer")]
fn store<const M: usize, const N: usize>(sums: &[[__m512; N]; M], out: &mut Tile) -> usize {
    const { assert!(M <= TILE_ROWS) };
    for (sums, out) in sums.iter().zip(out) {
        for (sum, lanes) in sums.iter().zip(out) {
            // SAFETY: `Lanes` is 64 bytes, aligned to 64.
            unsafe { _mm512_store_ps(lanes.0.as_mut_ptr(), *sum) };
        }
    }
    M
}
