use crate::Config;

/// Positions of a random model: no figure needs more.
const CONTEXT: usize = 8192;

impl Config {
    /// Names of the models whose sizes are known here.
    pub const SHAPES: [&str; 5] =
        ["smollm2-135m", "qwen2.5-0.5b", "llama-3.2-1b", "gemma-2b", "tiny"];

    /// The sizes of a well-known model, as its makers' configuration states them, in a llama
    /// decoder: what costs time is the same, biases and activation functions aside.
    #[must_use]
    pub fn shape(name: &str) -> Option<Self> {
        // Layers, hidden, feed-forward, heads, KV heads, head dim, vocabulary.
        let sizes = match name {
            "smollm2-135m" => [30, 576, 1536, 9, 3, 64, 49_152],
            "qwen2.5-0.5b" => [24, 896, 4864, 14, 2, 64, 151_936],
            "llama-3.2-1b" => [16, 2048, 8192, 32, 8, 64, 128_256],
            "gemma-2b" => [18, 2048, 16_384, 8, 1, 256, 256_000],
            "tiny" => [2, 64, 96, 4, 2, 16, 291],
            _ => return None,
        };
        let [layers, hidden, feed_forward, heads, kv_heads, head_dim, vocabulary] = sizes;
        Some(Self {
            architecture: "llama".to_owned(),
            layers,
            hidden,
            feed_forward,
            heads,
            kv_heads,
            head_dim,
            vocabulary,
            context: CONTEXT,
            rope_base: 10_000.0,
            norm_eps: 1e-5,
        })
    }

    /// Floating-point operations that the decoder spends on one position, attention left out: two
    /// for each weight of its layers.
    #[must_use]
    pub fn flops_a_position(&self) -> f64 {
        let qkv = (self.heads + 2 * self.kv_heads) * self.head_dim;
        let layer = self.hidden * (qkv + self.heads * self.head_dim + 3 * self.feed_forward);
        2.0 * (self.layers * layer) as f64
    }

    /// Floating-point operations of attention on a run of `positions`, all of it: half of the
    /// square is masked, but computed.
    #[must_use]
    pub fn flops_of_attention(&self, positions: usize) -> f64 {
        4.0 * (self.layers * self.heads * self.head_dim) as f64 * (positions as f64).powi(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_shape() {
        for name in Config::SHAPES {
            let config = Config::shape(name).unwrap();
            assert_eq!(config.heads % config.kv_heads, 0, "{name}");
        }
        assert!(Config::shape("gpt-5").is_none());
        // 106 million weights outside of the embedding.
        let smollm2 = Config::shape("smollm2-135m").unwrap().flops_a_position();
        assert!((smollm2 / 2.0 - 106.2e6).abs() < 0.1e6, "{smollm2}");
    }
}
