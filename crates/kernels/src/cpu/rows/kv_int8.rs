//! Rows of int8, as a block has them: a scale in bf16, then a level for each value. By AVX-512 they take a
//! tenth of the time that they take left to the compiler.

use crate::cpu::rows::format::RowFormat;
use crate::isa::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::lanes::LANES;

impl Kernel {
    /// Writes a row in a format, see [`RowFormat::encode`].
    pub fn encode<F: RowFormat>(self, format: F, row: &[f32], bytes: &mut [u8]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Bf16 | Self::Amx
                if format.is_scaled_int8() && row.len().is_multiple_of(LANES) =>
            {
                vectors::encode(row, bytes);
            }
            _ => self.encode_row(format, row, bytes),
        }
    }

    /// Reads rows of a format, one after the other, and rounds them to pairs of bf16; `row` is a
    /// buffer for one.
    pub fn decode_to_pairs<F: RowFormat>(
        self,
        format: F,
        bytes: &[u8],
        row: &mut [f32],
        out: &mut [u32],
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 | Self::Amx
                if format.is_scaled_int8() && row.len().is_multiple_of(2 * LANES) =>
            {
                vectors::decode_to_pairs(bytes, row.len(), out);
            }
            _ => self.decode_rows_to_pairs(format, bytes, row, out),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod vectors {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm_loadu_si128, _mm_storeu_si128, _mm512_and_si512,
        _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepi8_epi32, _mm512_cvtepi32_epi8,
        _mm512_cvtepi32_ps, _mm512_cvtne2ps_pbh, _mm512_cvtps_epi32, _mm512_div_ps,
        _mm512_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_reduce_max_ps,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_si512,
    };
    use std::mem::transmute;

    use crate::cpu::rows::generic::bf16_bits;
    use crate::lanes::LANES;

    /// Bytes of the scale that a row starts with.
    const SCALE_BYTES: usize = 2;
    /// The largest level; the smallest is its opposite.
    const LEVEL_MAX: f32 = 127.0;

    /// Worth of a level in a row with this largest magnitude, as a bf16. Rows whose scale would be
    /// subnormal count as zero, for such scales have too few bits.
    #[inline]
    fn scale_of(largest: f32) -> f32 {
        let scale = f32::from_bits(bf16_bits(largest / LEVEL_MAX) << 16);
        if scale < f32::MIN_POSITIVE { 0.0 } else { scale }
    }

    /// Writes a row of whole registers.
    ///
    /// # Panics
    /// If `bytes` is not exactly as long as the encoded row.
    #[expect(unsafe_code, reason = "a function compiled for an instruction set")]
    #[inline]
    pub(super) fn encode(row: &[f32], bytes: &mut [u8]) {
        assert_eq!(bytes.len(), SCALE_BYTES + row.len(), "length of the encoded row");
        // SAFETY: `Kernel::available` offers AVX-512 only where the machine has it.
        unsafe { encode_by_sixteen(row, bytes) }
    }

    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "loads and stores by pointer")]
    fn encode_by_sixteen(row: &[f32], bytes: &mut [u8]) {
        let (values, _) = row.as_chunks::<LANES>();
        // SAFETY: 16 floats are read from 16.
        let load = |values: &[f32; LANES]| unsafe { _mm512_loadu_ps(values.as_ptr()) };
        let (magnitude, mut largest) = (_mm512_set1_epi32(i32::MAX), _mm512_setzero_ps());
        for values in values {
            let bits = _mm512_and_si512(_mm512_castps_si512(load(values)), magnitude);
            // Of a pair with one that is no number, the instruction gives the second.
            largest = _mm512_max_ps(_mm512_castsi512_ps(bits), largest);
        }
        let scale = scale_of(_mm512_reduce_max_ps(largest));
        let (first, levels) = bytes.split_at_mut(SCALE_BYTES);
        first.copy_from_slice(&((scale.to_bits() >> 16) as u16).to_le_bytes());
        if scale == 0.0 {
            return levels.fill(0);
        }
        let (scale, limit) = (_mm512_set1_ps(scale), _mm512_set1_ps(LEVEL_MAX));
        let least = _mm512_set1_ps(-LEVEL_MAX);
        for (values, levels) in values.iter().zip(levels.as_chunks_mut::<LANES>().0) {
            let level = _mm512_div_ps(load(values), scale);
            let level = _mm512_max_ps(least, _mm512_min_ps(limit, level));
            // To the nearest, ties to even; what is no number becomes 0 in its low byte.
            let level = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(level));
            // SAFETY: 16 bytes are written to 16.
            unsafe { _mm_storeu_si128(levels.as_mut_ptr().cast(), level) };
        }
    }

    /// Reads rows of `dim` values, whole steps of pairs.
    #[expect(unsafe_code, reason = "a function compiled for an instruction set")]
    #[inline]
    pub(super) fn decode_to_pairs(bytes: &[u8], dim: usize, out: &mut [u32]) {
        // SAFETY: the caller has asked for AVX-512 with BF16.
        unsafe { decode_to_pairs_by_sixteen(bytes, dim, out) }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[expect(unsafe_code, reason = "loads and stores by pointer, registers of another type")]
    fn decode_to_pairs_by_sixteen(bytes: &[u8], dim: usize, out: &mut [u32]) {
        let rows = bytes.chunks_exact(SCALE_BYTES + dim);
        for (bytes, out) in rows.zip(out.chunks_exact_mut(dim / 2)) {
            let (first, levels) = bytes.split_at(SCALE_BYTES);
            let scale = u32::from(u16::from_le_bytes([first[0], first[1]])) << 16;
            let scale = _mm512_set1_ps(f32::from_bits(scale));
            let value = |levels: &[u8]| -> __m512 {
                let levels: &[u8; LANES] = levels.try_into().expect("half a step");
                // SAFETY: 16 bytes are read from 16.
                let levels = unsafe { _mm_loadu_si128(levels.as_ptr().cast()) };
                _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(levels)), scale)
            };
            let (levels, _) = levels.as_chunks::<{ 2 * LANES }>();
            for (levels, out) in levels.iter().zip(out.as_chunks_mut::<LANES>().0) {
                let (low, high) = levels.split_at(LANES);
                let rounded = _mm512_cvtne2ps_pbh(value(high), value(low));
                // SAFETY: every pattern of bits is a value of either type of register; 64 bytes are
                // written to 64.
                unsafe {
                    let rounded = transmute::<__m512bh, __m512i>(rounded);
                    _mm512_storeu_si512(out.as_mut_ptr().cast(), rounded);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use hyperrag_core::KvDtype;

    use super::*;
    use crate::lanes::halves;
    use crate::testing::TestRows;

    proptest! {
        #[test]
        fn rows_are_those_of_the_element(
            values in prop::collection::vec(
                prop_oneof![
                    20 => -9.0_f32..9.0, 1 => -1e-38_f32..1e-38, 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)
                ], 3 * 96
            ),
            scale in prop_oneof![Just(1.0_f32), Just(0.0), Just(1e-37), Just(1e30)],
            dim in prop_oneof![Just(64_usize), Just(96), Just(16), 1_usize..97],
        ) {
            let rows: Vec<f32> = values[..3 * dim].iter().map(|value| value * scale).collect();
            let row_bytes = KvDtype::Int8.row_bytes(dim);
            let expected: Vec<u8> = rows.chunks_exact(dim).flat_map(|row| {
                let mut bytes = vec![0; row_bytes];
                KvDtype::Int8.encode(row, &mut bytes);
                bytes
            }).collect();
            let mut pairs = [vec![0; 3 * dim.div_ceil(2)], vec![0; 3 * dim.div_ceil(2)]];
            for kernel in Kernel::available() {
                let mut bytes = vec![1; expected.len()];
                for (row, bytes) in rows.chunks_exact(dim).zip(bytes.chunks_exact_mut(row_bytes)) {
                    kernel.encode(TestRows(KvDtype::Int8), row, bytes);
                }
                prop_assert_eq!(&bytes, &expected, "{}", kernel.name());
                let mut row = vec![0.0; dim];
                kernel.decode_to_pairs(TestRows(KvDtype::Int8), &expected, &mut row, &mut pairs[0]);
                Kernel::Portable.decode_to_pairs(TestRows(KvDtype::Int8), &expected, &mut row, &mut pairs[1]);
                // An infinite scale makes what is no number, which has any of many bits.
                let values = |pairs: &[u32]| -> Vec<Option<u32>> {
                    let values = pairs.iter().flat_map(|pair| halves(*pair));
                    values.map(|value| (!value.is_nan()).then_some(value.to_bits())).collect()
                };
                prop_assert_eq!(values(&pairs[0]), values(&pairs[1]), "{}", kernel.name());
            }
        }
    }
}
