//! Sizes of a block: layers, heads, dimensions and an element type come in, byte counts go out. Knows no
//! tokens and no data.

use serde::{Deserialize, Serialize};

use super::kv_dtype::KvDtype;

/// Sizes that a model and an element type give a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvShape {
    /// Decoder layers.
    pub layers: u32,
    /// KV heads as stored, not repeated for the query heads (grouped-query attention).
    pub kv_heads: u32,
    /// Dimensions of one head.
    pub head_dim: u32,
    /// Dimensions of the hidden state.
    pub hidden: u32,
    /// Type of the stored K and V.
    #[serde(rename = "element")]
    pub kv_dtype: KvDtype,
}

impl KvShape {
    /// Bytes of K and V of one position, all layers together.
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
        tokens * self.kv_dtype.row_bytes(self.head_dim as usize)
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

    #[test]
    fn smollm2_takes_23040_bytes_a_token() {
        let smollm2 =
            KvShape { layers: 30, kv_heads: 3, head_dim: 64, hidden: 576, kv_dtype: KvDtype::Bf16 };
        assert_eq!(smollm2.token_bytes(), 23_040);
        assert_eq!(smollm2.block_bytes(256), 256 * 23_040 + 2304);
        let of = |kv_dtype| KvShape { kv_dtype, ..smollm2 }.token_bytes();
        assert_eq!([KvDtype::Int8, KvDtype::Int5, KvDtype::Int4].map(of), [11_880, 7_560, 6_480]);
    }
}
