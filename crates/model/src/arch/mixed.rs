//! Settings of layers that differ in more than what they see, as in Gemma 4.
//!
//! In: nothing. Out: types of a configuration, and their text for fingerprints. It does not know files or
//! weights.

use std::fmt;

/// Sizes of K and V of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSizes {
    /// Number of KV heads.
    pub kv_heads: usize,
    /// Dimensions of one head, also of Q.
    pub head_dim: usize,
}

impl HeadSizes {
    /// Number of values of K, or of V, of a position.
    pub(crate) fn values(self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// Settings of a decoder whose layers differ in more than what they see. V is normed in all of them, and each
/// multiplies its output by a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixedLayers {
    /// Sizes of the layers that see everything; the configuration has those of local layers.
    pub global: HeadSizes,
    /// Whether K's weights make V too in the layers that see everything.
    pub keys_as_values: bool,
    /// Number of layers at the end that have no K and V. Each reads K and V of the last layer of its kind
    /// that has them.
    pub shared: usize,
    /// Inner dimensions of the feed-forward part of these layers.
    pub shared_feed_forward: usize,
    /// Dimensions of the input that each token gives each layer; 0 for none.
    pub token_input: usize,
}

impl fmt::Display for MixedLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { global: HeadSizes { kv_heads, head_dim }, keys_as_values, .. } = self;
        let Self { shared, shared_feed_forward, token_input, .. } = self;
        write!(
            f,
            "global {kv_heads}x{head_dim} keys_as_values {keys_as_values} shared {shared} \
             feed_forward {shared_feed_forward} token_input {token_input}"
        )
    }
}
