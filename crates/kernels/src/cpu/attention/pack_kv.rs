//! Rows of bf16 as right sides of products: stored rows come in, steps of panels go out. It does not know
//! which of them are K and which V.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m512i, _mm256_loadu_si256, _mm512_cvtepu16_epi32, _mm512_loadu_si512, _mm512_or_si512,
    _mm512_shuffle_i32x4, _mm512_slli_epi32, _mm512_store_si512, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use crate::isa::Kernel;
use crate::lanes::{LANES, Pairs};

/// Bytes of a step of a row: as many pairs as a panel has columns.
const STEP_BYTES: usize = 4 * LANES;
/// Bytes of a row's part of a step of two rows.
#[cfg(target_arch = "x86_64")]
const HALF_STEP_BYTES: usize = 2 * LANES;

impl Kernel {
    /// Packs 16 rows, one after the other, as the columns of a panel: step `i` has pair `i` of each.
    ///
    /// # Panics
    /// If a row is longer than the panel, or has half a pair.
    pub fn pack_columns(self, rows: &[u8], panel: &mut [Pairs]) {
        let row_bytes = rows.len() / LANES;
        assert!(
            rows.len().is_multiple_of(4 * LANES) && row_bytes / 4 <= panel.len(),
            "16 rows of whole pairs, no more than there are steps"
        );
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 | Self::Amx if row_bytes.is_multiple_of(STEP_BYTES) => {
                pack_columns(rows, row_bytes, panel);
            }
            _ => {
                for (column, row) in rows.chunks_exact(row_bytes).enumerate() {
                    for (step, pair) in panel.iter_mut().zip(row.as_chunks().0) {
                        step.0[column] = u32::from_le_bytes(*pair);
                    }
                }
            }
        }
    }

    /// Packs rows, one after the other, as steps of panels of 16 columns: two rows a step, the first in the
    /// low halves. The first steps of panels are `k_steps` apart.
    ///
    /// # Panics
    /// If there are fewer steps.
    pub fn pack_steps(self, rows: &[u8], row_bytes: usize, steps: &mut [Pairs], k_steps: usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 | Self::Amx if row_bytes.is_multiple_of(HALF_STEP_BYTES) => {
                pack_steps(rows, row_bytes, steps, k_steps);
            }
            _ => {
                for (i, two) in rows.chunks_exact(2 * row_bytes).enumerate() {
                    for (column, half) in two.as_chunks().0.iter().enumerate() {
                        let (row, column) = (2 * column / row_bytes, column % (row_bytes / 2));
                        let pair = &mut steps[column / LANES * k_steps + i].0[column % LANES];
                        let half = u32::from(u16::from_le_bytes(*half));
                        *pair = if row == 0 { half } else { *pair | half << 16 };
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "a function compiled for an instruction set")]
fn pack_steps(rows: &[u8], row_bytes: usize, steps: &mut [Pairs], k_steps: usize) {
    // SAFETY: `Kernel::available` offers AVX-512 only where the machine has it.
    unsafe { pack_steps_by_sixteen(rows, row_bytes, steps, k_steps) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "loads and stores by pointer")]
fn pack_steps_by_sixteen(rows: &[u8], row_bytes: usize, steps: &mut [Pairs], k_steps: usize) {
    for (i, two) in rows.chunks_exact(2 * row_bytes).enumerate() {
        let (first, second) = two.split_at(row_bytes);
        let halves = first.as_chunks().0.iter().zip(second.as_chunks().0);
        for ((first, second), step) in halves.zip(steps[i..].iter_mut().step_by(k_steps)) {
            let words = |half: &[u8; HALF_STEP_BYTES]| {
                // SAFETY: 32 bytes are read from 32.
                _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(half.as_ptr().cast()) })
            };
            let pairs = _mm512_or_si512(words(first), _mm512_slli_epi32::<16>(words(second)));
            // SAFETY: `Pairs` is 64 bytes, aligned to 64.
            unsafe { _mm512_store_si512(step.0.as_mut_ptr().cast(), pairs) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "a function compiled for an instruction set")]
fn pack_columns(rows: &[u8], row_bytes: usize, panel: &mut [Pairs]) {
    // SAFETY: `Kernel::available` offers AVX-512 only where the machine has it.
    unsafe { pack_columns_by_sixteen(rows, row_bytes, panel) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "loads and stores by pointer")]
fn pack_columns_by_sixteen(rows: &[u8], row_bytes: usize, panel: &mut [Pairs]) {
    for (step, columns) in (0..row_bytes).step_by(STEP_BYTES).zip(panel.chunks_exact_mut(LANES)) {
        let rows: [__m512i; LANES] = std::array::from_fn(|row| {
            let pairs = &rows[row * row_bytes + step..][..STEP_BYTES];
            // SAFETY: 64 bytes are read from 64.
            unsafe { _mm512_loadu_si512(pairs.as_ptr().cast()) }
        });
        for (column, pairs) in columns.iter_mut().zip(transposed(rows)) {
            // SAFETY: `Pairs` is 64 bytes, aligned to 64.
            unsafe { _mm512_store_si512(column.0.as_mut_ptr().cast(), pairs) };
        }
    }
}

/// Sixteen rows of sixteen words as columns: by twos, by fours, then whole quarters.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let mut twos = rows;
    for i in (0..LANES).step_by(2) {
        twos[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        twos[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // `fours[4 i + j]` has word `j` of each quarter, of rows `4 i` to `4 i + 3`.
    let mut fours = twos;
    for i in (0..LANES).step_by(4) {
        fours[i] = _mm512_unpacklo_epi64(twos[i], twos[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(twos[i], twos[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(twos[i + 1], twos[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(twos[i + 1], twos[i + 3]);
    }
    let mut columns = fours;
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let (low, high) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
        let (low2, high2) =
            (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
        columns[j] = _mm512_shuffle_i32x4::<0x88>(low, low2);
        columns[4 + j] = _mm512_shuffle_i32x4::<0xdd>(low, low2);
        columns[8 + j] = _mm512_shuffle_i32x4::<0x88>(high, high2);
        columns[12 + j] = _mm512_shuffle_i32x4::<0xdd>(high, high2);
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyperrag_core::KvDtype;
    use proptest::prelude::*;

    use crate::testing::TestRows;

    proptest! {
        #[test]
        fn elements_have_the_same_bytes_and_values(
            rows in prop::collection::vec(prop::collection::vec(-9.0_f32..9.0, 67), 1..4),
            dim in 1_usize..67,
        ) {
            for kv_dtype in KvDtype::ALL {
                let row_bytes = kv_dtype.row_bytes(dim);
                let all = |kernel: Kernel| {
                    let mut bytes = vec![0; rows.len() * row_bytes];
                    let mut values = vec![0.0; rows.len() * dim];
                    let each = rows.iter().zip(bytes.chunks_exact_mut(row_bytes));
                    for ((row, bytes), values) in each.zip(values.chunks_exact_mut(dim)) {
                        kernel.encode(TestRows(kv_dtype), &row[..dim], bytes);
                        kernel.decode(TestRows(kv_dtype), bytes, values);
                    }
                    let mut pairs = vec![0; rows.len() * dim.div_ceil(2)];
                    kernel.decode_to_pairs(TestRows(kv_dtype), &bytes, &mut vec![0.0; dim], &mut pairs);
                    let mut alone = vec![0; pairs.len()];
                    for (values, pairs) in values.chunks_exact(dim).zip(alone.chunks_exact_mut(dim.div_ceil(2))) {
                        kernel.round_to_pairs(values, pairs);
                    }
                    assert_eq!(pairs, alone, "{}", kernel.name());
                    (bytes, values.iter().map(|value| value.to_bits()).collect::<Vec<_>>())
                };
                let expected = all(Kernel::Portable);
                for kernel in Kernel::available() {
                    prop_assert_eq!(&all(kernel), &expected, "{} {}", kv_dtype, kernel.name());
                }
            }
        }

        #[test]
        fn steps_are_two_rows_each(dim in 1_usize..70, rows in 0_usize..6, more in 1_usize..3, seed in any::<u8>()) {
            let byte = |i: usize| (i as u8).wrapping_mul(59).wrapping_add((i >> 8) as u8) ^ seed;
            let bytes: Vec<u8> = (0..2 * rows * 2 * dim).map(byte).collect();
            let k_steps = rows + more;
            for kernel in Kernel::available() {
                let mut panels = vec![Pairs::ZERO; dim.div_ceil(LANES) * k_steps];
                kernel.pack_steps(&bytes, 2 * dim, &mut panels, k_steps);
                for (at, half) in bytes.as_chunks().0.iter().enumerate() {
                    let (row, column) = (at / dim, at % dim);
                    let pair = panels[column / LANES * k_steps + row / 2].0[column % LANES];
                    let found = (pair >> (16 * (row % 2))) as u16;
                    prop_assert_eq!(found, u16::from_le_bytes(*half), "{}", kernel.name());
                }
            }
        }

        #[test]
        fn columns_are_the_rows(steps in 1_usize..40, more in 0_usize..3, seed in any::<u8>()) {
            let byte = |i: usize| (i as u8).wrapping_mul(167).wrapping_add((i >> 8) as u8) ^ seed;
            let rows: Vec<u8> = (0..LANES * 4 * steps).map(byte).collect();
            for kernel in Kernel::available() {
                let mut panel = vec![Pairs::ZERO; steps + more];
                kernel.pack_columns(&rows, &mut panel);
                for (step, columns) in panel.iter().enumerate() {
                    for (column, pair) in columns.0.iter().enumerate() {
                        let at = (column * steps + step) * 4;
                        let expected = if step < steps {
                            u32::from_le_bytes(rows[at..at + 4].try_into().unwrap())
                        } else {
                            0
                        };
                        prop_assert_eq!(*pair, expected, "{} {} {}", kernel.name(), step, column);
                    }
                }
            }
        }
    }
}
