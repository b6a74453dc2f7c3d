use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The type of the stored K and V elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// bfloat16: the upper half of an f32, rounded to nearest, ties to even.
    Bf16,
    /// IEEE 754 binary32, as computed.
    F32,
    /// A row of `dim` signed bytes after its scale, a bf16: half of bf16's bytes.
    Int8,
}

/// A name that is no element type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown element type {0:?}: use bf16, f32 or int8")]
pub struct UnknownElement(pub String);

impl Element {
    /// All element types.
    pub const ALL: [Self; 3] = [Self::Bf16, Self::F32, Self::Int8];

    /// Bytes that a row of `dim` values takes: K (or V) of one position and one KV head.
    #[must_use]
    pub const fn row_bytes(self, dim: usize) -> usize {
        match self {
            Self::Bf16 => 2 * dim,
            Self::F32 => 4 * dim,
            Self::Int8 => SCALE_BYTES + dim,
        }
    }

    /// Turns a row into what will be read back once it is stored. Rounding twice changes nothing
    /// more, so a rounded row may be encoded.
    #[inline]
    pub fn round(self, row: &mut [f32]) {
        match self {
            Self::Bf16 => {
                for value in row {
                    *value = half::bf16::from_f32(*value).to_f32();
                }
            }
            Self::F32 => {}
            Self::Int8 => {
                let scale = scale(row);
                for value in row {
                    *value = f32::from(level(*value, scale)) * scale;
                }
            }
        }
    }

    /// Writes a row to `bytes`, little-endian.
    ///
    /// # Panics
    /// If `bytes` is not exactly as long as the encoded row.
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
                let scale = scale(row);
                let (first, levels) = bytes.split_at_mut(SCALE_BYTES);
                first.copy_from_slice(&half::bf16::from_f32(scale).to_le_bytes());
                for (out, value) in levels.iter_mut().zip(row) {
                    *out = level(*value, scale).to_le_bytes()[0];
                }
            }
        }
    }

    /// Reads `bytes` back into a row.
    ///
    /// # Panics
    /// If the lengths do not fit, as in [`Element::encode`].
    #[inline]
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
                let (first, levels) = bytes.split_at(SCALE_BYTES);
                let scale = bf16(first);
                for (value, level) in row.iter_mut().zip(levels) {
                    *value = f32::from(i8::from_le_bytes([*level])) * scale;
                }
            }
        }
    }
}

/// Bytes of the scale that a row of int8 starts with.
const SCALE_BYTES: usize = 2;
/// The largest level of int8; the smallest is its opposite.
const LEVEL_MAX: f32 = 127.0;

fn bf16(bytes: &[u8]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16)
}

/// What a level of the row is worth. Rounded to the nearest bf16 it is off by at most a 512th, so
/// that the largest value still gets level 127: then the row read back has the same scale.
fn scale(row: &[f32]) -> f32 {
    let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = half::bf16::from_f32(largest / LEVEL_MAX).to_f32();
    // Subnormal scales have too few bits for that; such rows count as zero.
    if scale < f32::MIN_POSITIVE { 0.0 } else { scale }
}

fn level(value: f32, scale: f32) -> i8 {
    if scale == 0.0 {
        return 0;
    }
    (value / scale).round_ties_even().clamp(-LEVEL_MAX, LEVEL_MAX) as i8
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Element {
    type Err = UnknownElement;

    fn from_str(name: &str) -> Result<Self, UnknownElement> {
        match name {
            "bf16" => Ok(Self::Bf16),
            "f32" => Ok(Self::F32),
            "int8" => Ok(Self::Int8),
            _ => Err(UnknownElement(name.to_owned())),
        }
    }
}

/// The sizes that a model and an element type give a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// Decoder layers.
    pub layers: u32,
    /// KV heads: those stored, never repeated to the query heads (grouped-query attention).
    pub kv_heads: u32,
    /// Dimensions of one head.
    pub head_dim: u32,
    /// Dimensions of the hidden state.
    pub hidden: u32,
    /// Type of the stored K and V.
    pub element: Element,
}

impl Geometry {
    /// Bytes of K and V that one position takes, all layers together.
    #[must_use]
    pub fn token_bytes(&self) -> usize {
        self.layers as usize * self.layer_bytes(1)
    }

    /// Bytes of K and V of one layer of a block of `tokens` positions.
    #[must_use]
    pub fn layer_bytes(&self, tokens: usize) -> usize {
        2 * self.kv_heads as usize * self.head_bytes(tokens)
    }

    /// Bytes of K (or V) of one KV head of one layer of a block of `tokens` positions.
    #[must_use]
    pub fn head_bytes(&self, tokens: usize) -> usize {
        tokens * self.element.row_bytes(self.head_dim as usize)
    }

    /// Bytes of the last position's hidden state, which is always f32.
    #[must_use]
    pub fn hidden_bytes(&self) -> usize {
        self.hidden as usize * 4
    }

    /// Bytes of a whole block of `tokens` positions: K and V of all layers and the hidden state.
    #[must_use]
    pub fn block_bytes(&self, tokens: usize) -> usize {
        tokens * self.token_bytes() + self.hidden_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn smollm2_takes_23040_bytes_a_token() {
        let smollm2 =
            Geometry { layers: 30, kv_heads: 3, head_dim: 64, hidden: 576, element: Element::Bf16 };
        assert_eq!(smollm2.token_bytes(), 23_040);
        assert_eq!(smollm2.block_bytes(256), 256 * 23_040 + 2304);
        assert_eq!(Geometry { element: Element::Int8, ..smollm2 }.token_bytes(), 11_880);
    }

    proptest! {
        #[test]
        fn rows_read_back_as_rounded(
            row in prop::collection::vec(prop_oneof![any::<f32>(), -9.0_f32..9.0], 0..70)
        ) {
            for element in Element::ALL {
                let mut bytes = vec![0; element.row_bytes(row.len())];
                element.encode(&row, &mut bytes);
                let mut back = vec![0.0; row.len()];
                element.decode(&bytes, &mut back);
                let mut rounded = row.clone();
                element.round(&mut rounded);
                prop_assert_eq!(bits(&rounded), bits(&back));
                // A second time changes nothing, as long as all are numbers.
                if back.iter().all(|value| value.is_finite()) {
                    let mut again = bytes.clone();
                    element.encode(&rounded, &mut again);
                    prop_assert_eq!(&again, &bytes);
                    element.round(&mut rounded);
                    prop_assert_eq!(bits(&rounded), bits(&back));
                }
            }
        }

        #[test]
        fn int8_is_off_by_half_a_level(row in prop::collection::vec(-9.0_f32..9.0, 1..70)) {
            let mut rounded = row.clone();
            Element::Int8.round(&mut rounded);
            let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            for (value, rounded) in row.iter().zip(rounded) {
                // Half a level, and for the largest values what the scale is off by.
                prop_assert!((value - rounded).abs() <= largest * (0.505 / 127.0 + 1.0 / 512.0));
            }
        }
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }
}
