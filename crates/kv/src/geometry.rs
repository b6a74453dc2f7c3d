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
}

/// A name that is no element type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown element type {0:?}: use bf16 or f32")]
pub struct UnknownElement(pub String);

impl Element {
    /// Bytes that one element takes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// `value` as it will be read back once stored.
    #[inline]
    #[must_use]
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::Bf16 => half::bf16::from_f32(value).to_f32(),
            Self::F32 => value,
        }
    }

    /// Writes `values` to `bytes`, little-endian.
    ///
    /// # Panics
    /// If `bytes` is not exactly as long as the encoded values.
    pub fn encode(self, values: &[f32], bytes: &mut [u8]) {
        assert_eq!(bytes.len(), values.len() * self.bytes(), "length of the encoded values");
        match self {
            Self::Bf16 => {
                for (out, value) in bytes.chunks_exact_mut(2).zip(values) {
                    out.copy_from_slice(&half::bf16::from_f32(*value).to_le_bytes());
                }
            }
            Self::F32 => {
                for (out, value) in bytes.chunks_exact_mut(4).zip(values) {
                    out.copy_from_slice(&value.to_le_bytes());
                }
            }
        }
    }

    /// Reads `bytes` back into `values`.
    ///
    /// # Panics
    /// If the lengths do not fit, as in [`Element::encode`].
    #[inline]
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) {
        assert_eq!(bytes.len(), values.len() * self.bytes(), "length of the encoded values");
        match self {
            Self::Bf16 => {
                for (value, b) in values.iter_mut().zip(bytes.chunks_exact(2)) {
                    *value = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
                }
            }
            Self::F32 => {
                for (value, b) in values.iter_mut().zip(bytes.chunks_exact(4)) {
                    *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        })
    }
}

impl FromStr for Element {
    type Err = UnknownElement;

    fn from_str(name: &str) -> Result<Self, UnknownElement> {
        match name {
            "bf16" => Ok(Self::Bf16),
            "f32" => Ok(Self::F32),
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
        tokens * self.head_dim as usize * self.element.bytes()
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
    }

    proptest! {
        #[test]
        fn elements_read_back_as_rounded(values in prop::collection::vec(any::<f32>(), 0..40)) {
            for element in [Element::Bf16, Element::F32] {
                let mut bytes = vec![0; values.len() * element.bytes()];
                element.encode(&values, &mut bytes);
                let mut back = vec![0.0; values.len()];
                element.decode(&bytes, &mut back);
                for (value, back) in values.iter().zip(back) {
                    prop_assert!(element.round(*value).to_bits() == back.to_bits());
                    prop_assert!(element.round(back).to_bits() == back.to_bits());
                }
            }
        }
    }
}
