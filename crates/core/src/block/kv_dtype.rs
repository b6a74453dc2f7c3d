//! Element types of stored K and V: rows of f32 come in, encoded bytes go out, and back. Knows neither the
//! layout of a block nor the means that rows are taken from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use scaled::SCALE_BYTES;

/// The type of the stored K and V elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvDtype {
    /// bfloat16: the upper half of an f32, rounded to nearest, ties to even.
    Bf16,
    /// IEEE 754 binary32, as computed.
    F32,
    /// A row of `dim` signed bytes after its bf16 scale: half of bf16's bytes.
    Int8,
    /// A row of 5-bit levels, -15 to 15, after its bf16 scale. Needs a [`Calibration`](crate::Calibration).
    Int5,
    /// A row of 4-bit levels after the smallest value and the step, both bf16. Needs a
    /// [`Calibration`](crate::Calibration).
    Int4,
}

/// Name that is no element type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown element type {0:?}: use bf16, f32, int8, int5 or int4")]
pub struct UnknownKvDtype(pub String);

impl KvDtype {
    /// All element types.
    pub const ALL: [Self; 5] = [Self::Bf16, Self::F32, Self::Int8, Self::Int5, Self::Int4];

    /// Whether rows are stored as rotated differences from static means, in which no dimension stands out.
    /// Only for such rows are few bits enough.
    #[must_use]
    pub const fn is_calibrated(self) -> bool {
        matches!(self, Self::Int5 | Self::Int4)
    }

    /// Bytes of an encoded row of `dim` values, which is K (or V) of one position and one KV head.
    #[must_use]
    pub const fn row_bytes(self, dim: usize) -> usize {
        match self {
            Self::Bf16 => 2 * dim,
            Self::F32 => 4 * dim,
            Self::Int8 => SCALE_BYTES + dim,
            Self::Int5 => SCALE_BYTES + (5 * dim).div_ceil(8),
            Self::Int4 => 2 * SCALE_BYTES + dim.div_ceil(2),
        }
    }

    /// Encodes a row into `bytes`, little-endian. Inlined, so that callers can compile it for an instruction
    /// set.
    ///
    /// # Panics
    /// If `bytes` is not exactly as long as the encoded row.
    #[inline(always)]
    pub fn encode(self, row: &[f32], bytes: &mut [u8]) {
        assert_eq!(bytes.len(), self.row_bytes(row.len()), "length of the encoded row");
        match self {
            Self::Bf16 => {
                for (out, value) in bytes.chunks_exact_mut(2).zip(row) {
                    out.copy_from_slice(&half::bf16::from_f32(*value).to_le_bytes());
                }
            }
            Self::F32 => {
                for (out, value) in bytes.chunks_exact_mut(4).zip(row) {
                    out.copy_from_slice(&value.to_le_bytes());
                }
            }
            Self::Int8 => {
                let scale = scaled::scale(largest_magnitude(row), scaled::INT8_MAX);
                for (out, value) in scaled::put_scale(scale, bytes).iter_mut().zip(row) {
                    *out = (level(*value, scale, scaled::INT8_MAX) as i8).to_le_bytes()[0];
                }
            }
            Self::Int5 => {
                let scale = scaled::scale(largest_magnitude(row), INT5_MAX);
                let level = |value: &f32| (level(*value, scale, INT5_MAX) + INT5_MAX) as u8;
                pack::<5>(row.iter().map(level), scaled::put_scale(scale, bytes));
            }
            Self::Int4 => {
                let (smallest, step) = range(row);
                let (first, levels) = bytes.split_at_mut(2 * SCALE_BYTES);
                first[..2].copy_from_slice(&half::bf16::from_f32(smallest).to_le_bytes());
                first[2..].copy_from_slice(&half::bf16::from_f32(step).to_le_bytes());
                let level = |value: &f32| match step {
                    0.0 => 0,
                    step => ((value - smallest) / step).round_ties_even().clamp(0.0, 15.0) as u8,
                };
                pack::<4>(row.iter().map(level), levels);
            }
        }
    }

    /// Decodes `bytes` into a row.
    ///
    /// # Panics
    /// If `bytes` is not exactly as long as the encoded row.
    #[inline(always)]
    pub fn decode(self, bytes: &[u8], row: &mut [f32]) {
        assert_eq!(bytes.len(), self.row_bytes(row.len()), "length of the encoded row");
        match self {
            Self::Bf16 => {
                for (value, b) in row.iter_mut().zip(bytes.chunks_exact(2)) {
                    *value = bf16(b);
                }
            }
            Self::F32 => {
                for (value, b) in row.iter_mut().zip(bytes.chunks_exact(4)) {
                    *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
            Self::Int8 => {
                let (scale, levels) = scaled::scale_of(bytes);
                for (value, level) in row.iter_mut().zip(levels) {
                    *value = f32::from(i8::from_le_bytes([*level])) * scale;
                }
            }
            Self::Int5 => {
                let (scale, levels) = scaled::scale_of(bytes);
                unpack::<5>(levels, row, |level| (f32::from(level) - INT5_MAX) * scale);
            }
            Self::Int4 => {
                let (first, levels) = bytes.split_at(2 * SCALE_BYTES);
                let (smallest, step) = (bf16(first), bf16(&first[SCALE_BYTES..]));
                unpack::<4>(levels, row, |level| smallest + f32::from(level) * step);
            }
        }
    }
}

/// Packs levels of `BITS` bits, the lowest bits first.
#[inline(always)]
fn pack<const BITS: u32>(levels: impl Iterator<Item = u8>, bytes: &mut [u8]) {
    let (mut held, mut count, mut out) = (0_u32, 0, bytes.iter_mut());
    for level in levels {
        held |= u32::from(level) << count;
        count += BITS;
        while count >= 8 {
            *out.next().expect("as many bytes as the levels take") = held as u8;
            held >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        *out.next().expect("as many bytes as the levels take") = held as u8;
    }
}

/// Unpacks levels of `BITS` bits, eight at a time from `BITS` bytes.
#[inline(always)]
fn unpack<const BITS: usize>(bytes: &[u8], row: &mut [f32], value_of: impl Fn(u8) -> f32) {
    let word =
        |bytes: &[u8]| (0..).zip(bytes).fold(0, |word, (i, b)| word | u64::from(*b) << (8 * i));
    let level = |word: u64, i: usize| (word >> (BITS * i)) as u8 & ((1 << BITS) - 1);
    let (groups, rest) = row.as_chunks_mut::<8>();
    let (full, last) = bytes.as_chunks::<BITS>();
    for (values, bytes) in groups.iter_mut().zip(full) {
        let word = word(bytes);
        *values = std::array::from_fn(|i| value_of(level(word, i)));
    }
    let word = word(full.get(groups.len()).map_or(last, |bytes| bytes));
    (0..).zip(rest).for_each(|(i, value)| *value = value_of(level(word, i)));
}

/// Scaled rows of int8 and int5, for callers that encode and decode many rows at once.
mod scaled {
    /// Size of the scale at the start of a row, in bytes.
    pub(super) const SCALE_BYTES: usize = 2;
    /// Largest level of int8. The smallest is its negative.
    pub(super) const INT8_MAX: f32 = 127.0;

    /// Returns the scale of a row: `largest / level_max` as bf16. Rounding changes it by at most a 512th, so
    /// the largest value still gets the largest level, and the row read back has the same scale.
    #[inline(always)]
    pub(super) fn scale(largest: f32, level_max: f32) -> f32 {
        let scale = half::bf16::from_f32(largest / level_max).to_f32();
        // Subnormal scales are not that precise; such rows become zero.
        if scale < f32::MIN_POSITIVE { 0.0 } else { scale }
    }

    /// Writes the scale of a row and returns the bytes for its levels.
    ///
    /// # Panics
    /// If `bytes` is shorter than a scale.
    #[inline(always)]
    pub(super) fn put_scale(scale: f32, bytes: &mut [u8]) -> &mut [u8] {
        let (first, levels) = bytes.split_at_mut(SCALE_BYTES);
        first.copy_from_slice(&half::bf16::from_f32(scale).to_le_bytes());
        levels
    }

    /// Splits an encoded row into its scale and its levels.
    ///
    /// # Panics
    /// If `bytes` is shorter than a scale.
    #[inline(always)]
    pub(super) fn scale_of(bytes: &[u8]) -> (f32, &[u8]) {
        let (first, levels) = bytes.split_at(SCALE_BYTES);
        (super::bf16(first), levels)
    }
}

/// The largest level of int5.
const INT5_MAX: f32 = 15.0;

#[inline(always)]
fn bf16(bytes: &[u8]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16)
}

/// Returns the largest magnitude of a row, without regard to NaN.
#[inline(always)]
fn largest_magnitude(row: &[f32]) -> f32 {
    row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()))
}

#[inline(always)]
fn level(value: f32, scale: f32, level_max: f32) -> f32 {
    if scale == 0.0 {
        return 0.0;
    }
    (value / scale).round_ties_even().clamp(-level_max, level_max)
}

/// Returns the smallest value of a row, and the step between its 16 levels.
#[inline(always)]
fn range(row: &[f32]) -> (f32, f32) {
    let smallest = row.iter().fold(f32::INFINITY, |smallest, value| smallest.min(*value));
    let largest = row.iter().fold(f32::NEG_INFINITY, |largest, value| largest.max(*value));
    let smallest = half::bf16::from_f32(smallest).to_f32();
    let step = half::bf16::from_f32((largest - smallest) / 15.0).to_f32();
    (smallest, if step >= f32::MIN_POSITIVE { step } else { 0.0 })
}

impl fmt::Display for KvDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::Int8 => "int8",
            Self::Int5 => "int5",
            Self::Int4 => "int4",
        })
    }
}

impl FromStr for KvDtype {
    type Err = UnknownKvDtype;

    fn from_str(name: &str) -> Result<Self, UnknownKvDtype> {
        match name {
            "bf16" => Ok(Self::Bf16),
            "f32" => Ok(Self::F32),
            "int8" => Ok(Self::Int8),
            "int5" => Ok(Self::Int5),
            "int4" => Ok(Self::Int4),
            _ => Err(UnknownKvDtype(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_read_back_are_stored_as_they_are(
            row in prop::collection::vec(prop_oneof![any::<f32>(), -9.0_f32..9.0], 0..70)
        ) {
            for kv_dtype in [KvDtype::Bf16, KvDtype::F32, KvDtype::Int8] {
                let (bytes, back) = stored(kv_dtype, &row);
                // Encoding again changes nothing if all values are finite.
                if back.iter().all(|value| value.is_finite()) {
                    let (again, same) = stored(kv_dtype, &back);
                    prop_assert_eq!(&again, &bytes);
                    prop_assert_eq!(bits(&same), bits(&back));
                }
            }
        }

        #[test]
        fn levels_are_off_by_half_a_step(row in prop::collection::vec(-9.0_f32..9.0, 1..70)) {
            let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let smallest = row.iter().fold(9.0_f32, |smallest, value| smallest.min(*value));
            let greatest = row.iter().fold(-9.0_f32, |greatest, value| greatest.max(*value));
            for (kv_dtype, step) in [
                (KvDtype::Int8, largest / 127.0),
                (KvDtype::Int5, largest / 15.0),
                (KvDtype::Int4, (greatest - smallest) / 15.0),
            ] {
                // Half a level, and the rounding of the scale and the smallest value.
                let off = step * 0.51 + largest / 256.0;
                for (value, back) in row.iter().zip(stored(kv_dtype, &row).1) {
                    prop_assert!((value - back).abs() <= off, "{}: {} {}", kv_dtype, value, back);
                }
            }
        }

        #[test]
        fn levels_come_back(levels in prop::collection::vec(0_u8..16, 0..70)) {
            let mut bytes = vec![0; (5 * levels.len()).div_ceil(8)];
            pack::<5>(levels.iter().copied(), &mut bytes);
            let mut row = vec![0.0; levels.len()];
            unpack::<5>(&bytes, &mut row, f32::from);
            prop_assert_eq!(&row, &levels.iter().map(|level| f32::from(*level)).collect::<Vec<_>>());
            bytes.resize(levels.len().div_ceil(2), 0);
            pack::<4>(levels.iter().copied(), &mut bytes);
            unpack::<4>(&bytes, &mut row, f32::from);
            prop_assert_eq!(row, levels.iter().map(|level| f32::from(*level)).collect::<Vec<_>>());
        }
    }

    fn stored(kv_dtype: KvDtype, row: &[f32]) -> (Vec<u8>, Vec<f32>) {
        let mut bytes = vec![0; kv_dtype.row_bytes(row.len())];
        kv_dtype.encode(row, &mut bytes);
        let mut back = vec![0.0; row.len()];
        kv_dtype.decode(&bytes, &mut back);
        (bytes, back)
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }
}
