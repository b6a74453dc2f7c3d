//! Configurations of well-known models, and their floating-point operations, for figures without a
//! model file.

use crate::arch::config::{Architecture, Config, DecoderSizes, Window};
use crate::arch::rope::{Llama3Scaling, Rope};

/// Number of positions of a random model: no figure needs more.
const CONTEXT: usize = 8192;

impl Config {
    /// Names of the models that [`Config::shape`] knows.
    pub const SHAPES: [&str; 9] = [
        "smollm2-135m",
        "qwen2.5-0.5b",
        "qwen3-0.6b",
        "llama-3.2-1b",
        "gemma-2b",
        "gemma2-2b",
        "gemma3-270m",
        "gemma3-1b",
        "tiny",
    ];

    /// Returns the decoder of a well-known model, as the configuration of its makers states it.
    #[must_use]
    pub fn shape(name: &str) -> Option<Self> {
        use Architecture::{Gemma, Gemma2, Gemma3, Llama, Qwen2, Qwen3};
        // Layers, hidden, feed-forward, heads, KV heads, head dim, vocabulary.
        let (architecture, sizes) = match name {
            "smollm2-135m" => (Llama, [30, 576, 1536, 9, 3, 64, 49_152]),
            "qwen2.5-0.5b" => (Qwen2, [24, 896, 4864, 14, 2, 64, 151_936]),
            "qwen3-0.6b" => (Qwen3, [28, 1024, 3072, 16, 8, 128, 151_936]),
            "llama-3.2-1b" => (Llama, [16, 2048, 8192, 32, 8, 64, 128_256]),
            "gemma-2b" => (Gemma, [18, 2048, 16_384, 8, 1, 256, 256_000]),
            "gemma2-2b" => (Gemma2, [26, 2304, 9216, 8, 4, 256, 256_000]),
            "gemma3-270m" => (Gemma3, [18, 640, 2048, 4, 1, 256, 262_144]),
            "gemma3-1b" => (Gemma3, [26, 1152, 6912, 4, 1, 256, 262_144]),
            "tiny" => (Llama, [2, 64, 96, 4, 2, 16, 291]),
            _ => return None,
        };
        let [layers, hidden, feed_forward, heads, kv_heads, head_dim, vocabulary] = sizes;
        let context = CONTEXT;
        let sizes = DecoderSizes {
            layers,
            hidden,
            feed_forward,
            heads,
            kv_heads,
            head_dim,
            vocabulary,
            context,
        };
        let mut config = Self::new(architecture, sizes);
        match architecture {
            Llama if name == "llama-3.2-1b" => {
                let scaling = Llama3Scaling {
                    factor: 32.0,
                    low_freq_factor: 1.0,
                    high_freq_factor: 4.0,
                    original_context: 8192,
                };
                config.rope = Rope::llama3(500_000.0, head_dim, scaling);
            }
            Qwen2 | Qwen3 => config.rope.base = 1_000_000.0,
            Gemma2 => {
                config.window = Some(Window::periodic(4096, 2, layers));
                (config.attention_cap, config.logit_cap) = (Some(50.0), Some(30.0));
            }
            Gemma3 => {
                config.window = Some(Window::periodic(512, 6, layers));
                config.rope.base = 1_000_000.0;
            }
            _ => {}
        }
        Some(config)
    }

    /// Counts the floating-point operations of the decoder for one position, without attention: two for
    /// each weight of its layers.
    #[must_use]
    pub fn flops_a_position(&self) -> f64 {
        let qkv = (self.heads + 2 * self.kv_heads) * self.head_dim;
        let layer = self.hidden * (qkv + self.heads * self.head_dim + 3 * self.feed_forward);
        2.0 * (self.layers * layer) as f64
    }

    /// Counts the floating-point operations of attention in a run of `positions`. The masked half of
    /// the square is computed, so it counts.
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
            assert!(config.checked().is_ok(), "{name}");
        }
        assert!(Config::shape("gpt-5").is_none());
        // 106 million weights outside of the embedding.
        let smollm2 = Config::shape("smollm2-135m").unwrap().flops_a_position();
        assert!((smollm2 / 2.0 - 106.2e6).abs() < 0.1e6, "{smollm2}");
    }
}
