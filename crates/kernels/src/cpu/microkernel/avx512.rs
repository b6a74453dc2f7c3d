//! Tiles by AVX-512: up to 12 rows by two panels, of f32, pairs of bf16 or int8, and what rounds rows for
//! them. It does not know where sums go.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, _mm_storeu_si128, _mm256_storeu_si256,
    _mm512_add_epi32, _mm512_add_ps, _mm512_and_epi32, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps, _mm512_cvtneps_pbh, _mm512_div_ps, _mm512_dpbf16_ps,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_load_ps, _mm512_load_si512,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_blend_ps, _mm512_max_epu32, _mm512_max_ps,
    _mm512_min_ps, _mm512_mul_ps, _mm512_permute_ps, _mm512_reduce_add_epi32,
    _mm512_reduce_max_epu32, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_f32x4, _mm512_slli_epi32,
    _mm512_store_ps, _mm512_store_si512, _mm512_storeu_ps, _mm512_sub_ps, _mm512_xor_si512,
};
use std::mem::transmute;

use crate::cpu::gemm::blocking::{TILE_ROWS, TileSums};
use crate::cpu::rows::{generic, hadamard};
use crate::lanes::{LANES, Lanes, Pairs, Quads, Sums};

/// Sums of up to 12 rows with two panels: 24 of the 32 registers hold sums.
#[expect(unsafe_code, reason = "functions compiled for an instruction set")]
pub(crate) fn tile<const N: usize>(
    rows: usize,
    a: &[f32],
    a_stride: usize,
    b: [&[Lanes]; N],
    out: &mut TileSums,
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
    out: &mut TileSums,
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

/// Sums of up to 12 rows with two panels of pairs of bf16, by the instruction that multiplies and adds both
/// of a pair. It rounds in its own way: denormals count as zero, and the bits are not those of fused
/// multiply-adds.
#[expect(unsafe_code, reason = "functions compiled for an instruction set")]
pub(crate) fn tile_of_pairs<const N: usize>(
    rows: usize,
    a: &[u32],
    a_stride: usize,
    b: [&[Pairs]; N],
    out: &mut TileSums,
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
    out: &mut TileSums,
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

/// Sums of up to 12 rows with two panels of int8. The instruction takes its left factor without a sign, so
/// 128 is added to each weight, and the sums begin at minus 128 times the row's sum.
#[expect(unsafe_code, reason = "functions compiled for an instruction set")]
pub(crate) fn tile_of_quads<const N: usize>(
    rows: usize,
    a: &[[i8; 4]],
    a_stride: usize,
    b: [&[Quads]; N],
    out: &mut TileSums<Sums>,
) -> usize {
    // SAFETY: the caller has asked for AVX-512 VNNI, and `Kernel::available` for the others.
    unsafe {
        match rows {
            12.. => tile_of_quads_of::<12, N>(a, a_stride, b, out),
            8.. => tile_of_quads_of::<8, N>(a, a_stride, b, out),
            4.. => tile_of_quads_of::<4, N>(a, a_stride, b, out),
            2.. => tile_of_quads_of::<2, N>(a, a_stride, b, out),
            _ => tile_of_quads_of::<1, N>(a, a_stride, b, out),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[expect(unsafe_code, reason = "loads and stores by pointer")]
fn tile_of_quads_of<const M: usize, const N: usize>(
    a: &[[i8; 4]],
    a_stride: usize,
    b: [&[Quads]; N],
    out: &mut TileSums<Sums>,
) -> usize {
    const { assert!(M <= TILE_ROWS) };
    let k = b[0].len();
    assert!(b.iter().all(|panel| panel.len() == k), "panels of one product are of one length");
    assert!(a.len() >= (M - 1) * a_stride + k, "A has fewer rows than the tile");
    let sign = _mm512_set1_epi8(i8::MIN);
    let mut sums = [[_mm512_setzero_si512(); N]; M];
    for (m, sums) in sums.iter_mut().enumerate() {
        let mut all = _mm512_setzero_si512();
        for quads in a[m * a_stride..][..k].as_chunks::<LANES>().0 {
            // SAFETY: 64 bytes are read from 64.
            let quads = unsafe { _mm512_loadu_si512(quads.as_ptr().cast()) };
            all = _mm512_dpbusd_epi32(all, sign, quads);
        }
        *sums = [_mm512_set1_epi32(_mm512_reduce_add_epi32(all).wrapping_neg()); N];
    }
    for i in 0..k {
        // SAFETY: as in `tile_of`; the four bytes of `a` need no alignment.
        unsafe {
            let quads = b.map(|panel| _mm512_load_si512(panel.as_ptr().add(i).cast()));
            let quads = quads.map(|quads| _mm512_xor_si512(quads, sign));
            for (m, sums) in sums.iter_mut().enumerate() {
                let quad = a.as_ptr().add(m * a_stride + i).cast::<i32>().read_unaligned();
                for (sum, quads) in sums.iter_mut().zip(quads) {
                    *sum = _mm512_dpbusd_epi32(*sum, quads, _mm512_set1_epi32(quad));
                }
            }
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        for (sum, out) in sums.iter().zip(&mut *out) {
            // SAFETY: `Sums` is 64 bytes, aligned to 64.
            unsafe { _mm512_store_si512(out[m].0.as_mut_ptr().cast(), *sum) };
        }
    }
    M
}

/// Scales the rows of a panel in the place of their sums, which are integers, as [`generic::scaled`] does.
#[expect(unsafe_code, reason = "a function compiled for an instruction set")]
#[inline]
pub(crate) fn scale(sums: &mut [Lanes], rows: &[f32], columns: &Lanes) {
    // SAFETY: `Kernel::available` offers AVX-512 only where the machine has it.
    unsafe { scale_by_sixteen(sums, rows, columns) }
}

#[target_feature(enable = "avx512f")]
#[inline]
#[expect(unsafe_code, reason = "loads and stores by pointer")]
fn scale_by_sixteen(sums: &mut [Lanes], rows: &[f32], columns: &Lanes) {
    // SAFETY: `Lanes` is 64 bytes, aligned to 64.
    let columns = unsafe { _mm512_load_ps(columns.0.as_ptr()) };
    for (sums, row) in sums.iter_mut().zip(rows) {
        let (scale, place) = (_mm512_mul_ps(_mm512_set1_ps(*row), columns), sums.0.as_mut_ptr());
        // SAFETY: as above.
        unsafe {
            let sums = _mm512_cvtepi32_ps(_mm512_load_si512(place.cast()));
            _mm512_store_ps(place, _mm512_mul_ps(sums, scale));
        }
    }
}

/// Computes [`generic::hadamard_and_quantise`] in the same order of sums: left to the compiler it takes
/// ten times as long.
#[expect(unsafe_code, reason = "a function compiled for an instruction set")]
pub(crate) fn hadamard_and_quantise(x: &mut [f32], out: &mut [Quads], stride: usize) -> f32 {
    // SAFETY: `Kernel::available` offers AVX-512 only where the machine has it.
    unsafe { hadamard_and_quantise_by_sixteen(x, out, stride) }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw")]
#[expect(unsafe_code, reason = "loads and stores by pointer")]
fn hadamard_and_quantise_by_sixteen(x: &mut [f32], out: &mut [Quads], stride: usize) -> f32 {
    const { assert!(hadamard::NEIGHBOURS == LANES) };
    let (parts, registers) = (hadamard::parts(x.len()), hadamard::order(x.len()) / LANES);
    match registers {
        1 => hadamard_in_registers::<1>(x, parts),
        2 => hadamard_in_registers::<2>(x, parts),
        4 => hadamard_in_registers::<4>(x, parts),
        _ => hadamard_in_registers::<8>(x, parts),
    }
    let mut half = registers.min(8) * parts * LANES;
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.as_chunks_mut::<LANES>().0.iter_mut().zip(high.as_chunks_mut().0) {
                let b: &mut [f32; LANES] = b;
                // SAFETY: 16 floats each.
                unsafe {
                    let (x, y) = (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr()));
                    _mm512_storeu_ps(a.as_mut_ptr(), _mm512_add_ps(x, y));
                    _mm512_storeu_ps(b.as_mut_ptr(), _mm512_sub_ps(x, y));
                }
            }
        }
        half *= 2;
    }
    let (x, _) = x.as_chunks::<LANES>();
    let (mut largest, magnitude) = (_mm512_setzero_si512(), _mm512_set1_epi32(i32::MAX));
    for x in x {
        // SAFETY: 16 floats.
        let bits = _mm512_castps_si512(unsafe { _mm512_loadu_ps(x.as_ptr()) });
        largest = _mm512_max_epu32(largest, _mm512_and_epi32(bits, magnitude));
    }
    let largest = f32::from_bits(_mm512_reduce_max_epu32(largest));
    let (scale, inverse) = generic::scale_and_inverse(largest);
    let (inverse, whole) = (_mm512_set1_ps(inverse), _mm512_set1_ps(generic::WHOLE));
    for (x, quads) in x.chunks(4).zip(out.iter_mut().step_by(stride)) {
        for (x, quads) in x.iter().zip(quads.0.as_chunks_mut::<LANES>().0) {
            // SAFETY: 16 floats are read, 16 bytes are written.
            unsafe {
                let values = _mm512_mul_ps(_mm512_loadu_ps(x.as_ptr()), inverse);
                let whole = _mm512_castps_si512(_mm512_add_ps(values, whole));
                _mm_storeu_si128(quads.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(whole));
            }
        }
    }
    scale
}

/// Takes the first steps of [`hadamard::hadamard_strided`], within `R` registers of a part.
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "loads and stores by pointer")]
fn hadamard_in_registers<const R: usize>(x: &mut [f32], parts: usize) {
    let (plus, minus) = (_mm512_set1_ps(1.0), _mm512_set1_ps(-1.0));
    // -1 for the second of each pair of lanes, of pairs, of fours, of eights.
    let signs =
        [0xaaaa, 0xcccc, 0xf0f0, 0xff00].map(|mask| _mm512_mask_blend_ps(mask, plus, minus));
    for group in x.as_chunks_mut::<LANES>().0.chunks_exact_mut(R * parts) {
        for part in 0..parts {
            let mut lanes = [plus; R];
            for (i, lanes) in lanes.iter_mut().enumerate() {
                // SAFETY: 16 floats.
                let x = unsafe { _mm512_loadu_ps(group[part + i * parts].as_ptr()) };
                // A product with 1 or -1 is exact: these are sums and differences.
                let x = _mm512_fmadd_ps(x, signs[0], _mm512_permute_ps::<0b10_11_00_01>(x));
                let x = _mm512_fmadd_ps(x, signs[1], _mm512_permute_ps::<0b01_00_11_10>(x));
                let x = _mm512_fmadd_ps(x, signs[2], _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x));
                *lanes = _mm512_fmadd_ps(x, signs[3], _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x));
            }
            for half in [1, 2, 4] {
                for i in (0..R).filter(|i| i & half == 0 && half < R) {
                    let (a, b) = (lanes[i], lanes[i + half]);
                    (lanes[i], lanes[i + half]) = (_mm512_add_ps(a, b), _mm512_sub_ps(a, b));
                }
            }
            for (i, lanes) in lanes.iter().enumerate() {
                // SAFETY: 16 floats.
                unsafe { _mm512_storeu_ps(group[part + i * parts].as_mut_ptr(), *lanes) };
            }
        }
    }
}

/// Rounds as [`generic::round_to_steps`] by the instruction for it, which takes denormals for zero, as the
/// instructions that multiply do.
#[expect(unsafe_code, reason = "a function compiled for an instruction set")]
pub(crate) fn round_to_steps(x: &[f32], out: &mut [Pairs], stride: usize) {
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
        generic::round_to_steps(rest, &mut out[steps.len() * stride..], stride);
    }
}

/// Rounds each row to half a step of pairs, the first half or the second.
#[expect(unsafe_code, reason = "a function compiled for an instruction set")]
pub(crate) fn round_to_halves(rows: &[Lanes], out: &mut [Pairs], half: usize) {
    // SAFETY: the caller has asked for AVX-512 with BF16.
    unsafe { round_to_halves_by_sixteen(rows, out, half) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "loads and stores by pointer, registers of another type")]
fn round_to_halves_by_sixteen(rows: &[Lanes], out: &mut [Pairs], half: usize) {
    for (values, pairs) in rows.iter().zip(out) {
        let pairs = &mut pairs.0[half * LANES / 2..][..LANES / 2];
        // SAFETY: 16 floats are read, aligned to 64 bytes, and 32 bytes written; every pattern of bits is
        // a value of either type of register.
        unsafe {
            let values = _mm512_load_ps(values.0.as_ptr());
            let rounded = transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values));
            _mm256_storeu_si256(pairs.as_mut_ptr().cast(), rounded);
        }
    }
}

/// Computes [`generic::exp`] of what is not above [`generic::EXP_MAX`].
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn exp(x: __m512) -> __m512 {
    let number = _mm512_set1_ps;
    let x = _mm512_max_ps(number(generic::EXP_MIN), x);
    let shifted = _mm512_fmadd_ps(x, number(std::f32::consts::LOG2_E), number(generic::WHOLE));
    let n = _mm512_sub_ps(shifted, number(generic::WHOLE));
    let r = _mm512_fnmadd_ps(n, number(generic::LN2_HIGH), x);
    let r = _mm512_fnmadd_ps(n, number(generic::LN2_LOW), r);
    let mut p = number(generic::EXP_POLYNOMIAL[0]);
    for c in &generic::EXP_POLYNOMIAL[1..] {
        p = _mm512_fmadd_ps(p, r, number(*c));
    }
    let y = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), number(1.0));
    let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
    let one = _mm512_set1_epi32(1.0_f32.to_bits().cast_signed());
    _mm512_mul_ps(y, _mm512_castsi512_ps(_mm512_add_epi32(exponent, one)))
}

/// Rounds as [`round_to_halves`] does the gates with their activation, times the ups, with the bits of
/// [`generic::silu_mul`] or [`generic::gelu_mul`].
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
#[expect(unsafe_code, reason = "loads and stores by pointer, registers of another type")]
pub(crate) fn activate_to_halves<const GELU: bool>(
    gates: &[Lanes],
    ups: &[Lanes],
    out: &mut [Pairs],
    half: usize,
) {
    let number = _mm512_set1_ps;
    for ((gates, ups), pairs) in gates.iter().zip(ups).zip(out) {
        let pairs = &mut pairs.0[half * LANES / 2..][..LANES / 2];
        // SAFETY: 16 floats are read of each, aligned to 64 bytes, and 32 bytes written; every pattern of
        // bits is a value of either type of register.
        unsafe {
            let gate = _mm512_load_ps(gates.0.as_ptr());
            let x = if GELU {
                let square = _mm512_mul_ps(gate, gate);
                let cubic = _mm512_fmadd_ps(square, number(generic::GELU_CUBIC), number(1.0));
                _mm512_mul_ps(_mm512_mul_ps(number(generic::GELU_SCALE), gate), cubic)
            } else {
                _mm512_sub_ps(number(-0.0), gate)
            };
            let exp = exp(_mm512_min_ps(number(generic::EXP_MAX), x));
            let activated = _mm512_div_ps(gate, _mm512_add_ps(number(1.0), exp));
            let product = _mm512_mul_ps(activated, _mm512_load_ps(ups.0.as_ptr()));
            let rounded = transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(product));
            _mm256_storeu_si256(pairs.as_mut_ptr().cast(), rounded);
        }
    }
}

/// Puts the sums into the tile, and gives their rows.
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "stores by pointer")]
fn store<const M: usize, const N: usize>(sums: &[[__m512; N]; M], out: &mut TileSums) -> usize {
    const { assert!(M <= TILE_ROWS) };
    for (m, sums) in sums.iter().enumerate() {
        for (sum, out) in sums.iter().zip(&mut *out) {
            // SAFETY: `Lanes` is 64 bytes, aligned to 64.
            unsafe { _mm512_store_ps(out[m].0.as_mut_ptr(), *sum) };
        }
    }
    M
}
