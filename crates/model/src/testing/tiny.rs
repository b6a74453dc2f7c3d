//! Tiny models with weights from a seed, one of every architecture.
//!
//! In: a name and a seed. Out: real GGUF files and folders of safetensors, for tests and to try the
//! program without a download. Scores mean nothing, but are computed like any others.

mod folder;
mod gguf;

use std::io::{Seek, Write};

use candle_core::Result;

use crate::arch::config::{Architecture, Config, DecoderSizes, QkNorm, Window};
use crate::arch::mixed::{HeadSizes, MixedLayers};
use crate::arch::rope::{Llama3Scaling, Rope, Scaling, YarnScaling};
use crate::tokenizer::spelling::byte_characters;

const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Merges of byte-level BPE, best first; `Ġ` is a blank.
const MERGES: [&str; 32] = [
    "Ġ t", "h e", "i n", "Ġ a", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "n d", "Ġ w", "e s",
    "o r", "Ġ o", "Ġ c", "i t", "e n", "i s", "a n", "Ġ b", "Ġ f", "in g", "a l", "Ġo f", "e d",
    "Ġ p", "a r", "Ġ in", "o u", "Ġa nd", "s t",
];

/// Number of positions that local layers see: so few that short runs of tokens exceed it.
const WINDOW: usize = 8;
/// Scaling with a former context so short that short runs of tokens exceed it.
const LLAMA3: Llama3Scaling = Llama3Scaling {
    factor: 8.0,
    low_freq_factor: 1.0,
    high_freq_factor: 4.0,
    original_context: 64,
};
/// Scaling of the layers of OLMo 3 that see everything, with a former context as short.
const YARN: YarnScaling = YarnScaling {
    factor: 8.0,
    beta_fast: 32.0,
    beta_slow: 1.0,
    original_context: 64,
    attention_factor: None,
};
/// Divisors of LongRoPE for short texts, and the positions of Phi-4 before and after its extension.
const SHORT_FACTORS: [f32; 6] = [1.0, 1.25, 1.5, 2.5, 4.0, 6.0];
const PHI4_CONTEXT: usize = 1024;
const PHI4_EXTENDED: usize = 8192;
/// Divisor of the logits of Granite.
const LOGITS_SCALING: f32 = 1.7;
/// Number whose square root divides the attention scores of Gemma 2.
const QUERY_PRE_ATTN_SCALAR: u16 = 24;

/// Cap of the logits of Gemma 4.
const LOGIT_CAP: f32 = 3.0;
/// Number of pairs of a head that rotate in the layers of Gemma 4 that see everything: a quarter.
const ROTATING: usize = 4;

/// Names of the tiny models. Each shows what one family of models needs.
pub const NAMES: [&str; 18] = [
    "llama",
    "llama3",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3-linear",
    "gemma4",
    "gemma4-dense",
    "smollm3",
    "granite",
    "granite4",
    "olmo2",
    "olmo3",
    "phi3",
    "phi4",
];
/// Names of the tiny models whose LM head is not the embedding.
const UNTIED: [&str; 4] = ["llama3", "olmo2", "olmo3", "phi3"];

/// A tiny model in memory.
pub struct Tiny {
    name: &'static str,
    config: Config,
    /// Tensors with the names and the order of rows of a GGUF file.
    tensors: Vec<Tensor>,
}

struct Tensor {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Tiny {
    /// Returns the model of one of [`NAMES`] with weights from `seed`. The same seed gives the same
    /// bytes.
    #[must_use]
    pub fn new(name: &str, seed: u64) -> Option<Self> {
        let name = NAMES.into_iter().find(|known| *known == name)?;
        let config = config(name);
        let mut random = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let tensors = shapes(&config, UNTIED.contains(&name)).into_iter().map(|(name, shape)| {
            let values = weights(&mut random, &name, &shape, config.hidden);
            Tensor { name, shape, values }
        });
        let mut tensors: Vec<_> = tensors.collect();
        let named: &[&str] = match name {
            "llama3" | "gemma4" | "gemma4-dense" => &["rope_freqs.weight"],
            "phi4" => &["rope_factors_short.weight", "rope_factors_long.weight"],
            _ => &[],
        };
        if let Scaling::Divisors(divisors) = &config.rope.scaling {
            tensors.extend(named.iter().map(|name| {
                let (shape, values) = (vec![divisors.len()], divisors.clone());
                Tensor { name: (*name).to_owned(), shape, values }
            }));
        }
        Some(Self { name, config, tensors })
    }

    /// Returns the model's configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// Writes the `llama` of `seed` as a GGUF file.
///
/// # Errors
/// The errors of the writer.
pub fn write<W: Write + Seek>(seed: u64, out: &mut W) -> Result<()> {
    match Tiny::new("llama", seed) {
        Some(tiny) => tiny.write_gguf(out),
        None => candle_core::bail!("there is no tiny llama"),
    }
}

fn config(name: &str) -> Config {
    use Architecture::{
        Gemma, Gemma2, Gemma3, Gemma4, Granite, Llama, Olmo2, Phi3, Qwen2, Qwen3, SmolLm3,
    };
    // Layers, heads, KV heads, head dim.
    let (architecture, [layers, heads, kv_heads, head_dim]) = match name {
        "qwen2" => (Qwen2, [2, 4, 2, 16]),
        "qwen3" => (Qwen3, [2, 4, 2, 24]),
        "gemma" => (Gemma, [2, 2, 1, 256]),
        "gemma2" => (Gemma2, [4, 4, 2, 32]),
        "gemma3" | "gemma3-linear" => (Gemma3, [12, 4, 1, 32]),
        "gemma4" => (Gemma4, [8, 4, 2, 16]),
        "gemma4-dense" => (Gemma4, [4, 4, 4, 16]),
        "smollm3" => (SmolLm3, [4, 4, 2, 16]),
        "granite" | "granite4" => (Granite, [2, 4, 2, 16]),
        "olmo2" => (Olmo2, [2, 4, 2, 16]),
        "olmo3" => (Olmo2, [4, 4, 2, 16]),
        "phi3" | "phi4" => (Phi3, [2, 4, 2, 16]),
        _ => (Llama, [2, 4, 2, 16]),
    };
    let vocabulary = tokens().len();
    let (hidden, feed_forward, context) = (64, 96, 2048);
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
    let mut config = Config::new(architecture, sizes);
    config.norm_eps = if architecture.is_gemma() { 1e-6 } else { 1e-5 };
    match name {
        "llama3" => config.rope = Rope::llama3(20_000.0, head_dim, LLAMA3),
        "mistral" => {
            config.window = Some(Window { positions: WINDOW, local: vec![true; layers] });
        }
        "qwen2" | "qwen3" => config.rope.base = 1_000_000.0,
        "gemma2" => {
            config.window = Some(Window::periodic(WINDOW, 2, layers));
            (config.attention_cap, config.logit_cap) = (Some(4.0), Some(3.0));
            config.attention_scale = 1.0 / f32::from(QUERY_PRE_ATTN_SCALAR).sqrt();
        }
        "gemma3" | "gemma3-linear" => {
            config.window = Some(Window::periodic(WINDOW, 6, layers));
            config.rope.base = 1_000_000.0;
        }
        _ => set_newer(name, &mut config),
    }
    match name {
        "gemma3" | "gemma4" | "gemma4-dense" => {}
        "olmo3" => config.local_rope = Rope::new(config.rope.base),
        "gemma3-linear" => config.rope.scaling = Scaling::Linear(8.0),
        _ => config.local_rope = config.rope.clone(),
    }
    config
}

/// Sets what the newer architectures have, with numbers that show.
fn set_newer(name: &str, config: &mut Config) {
    let layers = config.layers;
    match name {
        "smollm3" => {
            config.rope.base = 2_000_000.0;
            config.rotary_layers = Some((1..=layers).map(|layer| layer % 4 != 0).collect());
        }
        "granite" | "granite4" => {
            config.embedding_scale = 3.0;
            config.attention_scale = 0.15;
            config.residual_scale = 0.45;
            config.logit_scale = 1.0 / LOGITS_SCALING;
            config.rotary_layers = (name == "granite4").then(|| vec![false; layers]);
        }
        "gemma4" => set_mixed(
            config,
            &[true, true, false, true, false, true, true, false],
            MixedLayers {
                global: HeadSizes { kv_heads: 2, head_dim: 32 },
                keys_as_values: false,
                shared: 3,
                shared_feed_forward: 2 * config.feed_forward,
                token_input: 8,
            },
        ),
        "gemma4-dense" => set_mixed(
            config,
            &[true, false, true, false],
            MixedLayers {
                global: HeadSizes { kv_heads: 1, head_dim: 32 },
                keys_as_values: true,
                shared: 0,
                shared_feed_forward: config.feed_forward,
                token_input: 0,
            },
        ),
        "olmo2" => config.rope.base = 500_000.0,
        "olmo3" => {
            config.rope = Rope::yarn(500_000.0, config.rotary_dim, YARN);
            config.window = Some(Window::periodic(WINDOW, 4, layers));
        }
        "phi3" => {
            config.window = Some(Window { positions: WINDOW, local: vec![true; layers] });
        }
        "phi4" => {
            config.rotary_dim = 2 * SHORT_FACTORS.len();
            config.context = PHI4_CONTEXT;
            let [before, after] = [PHI4_CONTEXT, PHI4_EXTENDED].map(|positions| positions as f64);
            let factor = (1.0 + libm::log(after / before) / libm::log(before)).sqrt();
            config.rope.scaling = Scaling::Divisors(SHORT_FACTORS.to_vec());
            config.rope.attention_factor = factor as f32;
        }
        _ => {}
    }
}

/// Sets layers of two kinds, of which those marked are local.
fn set_mixed(config: &mut Config, local: &[bool], mixed: MixedLayers) {
    config.window = Some(Window { positions: WINDOW, local: local.to_vec() });
    config.mixed = Some(mixed);
    config.logit_cap = Some(LOGIT_CAP);
    config.rope = Rope::proportional(1_000_000.0, mixed.global.head_dim, ROTATING, 1.0);
}

/// Lists names and shapes of the tensors.
fn shapes(config: &Config, untied: bool) -> Vec<(String, Vec<usize>)> {
    let Config { hidden, vocabulary, .. } = *config;
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![vocabulary, hidden]),
        ("output_norm.weight".to_owned(), vec![hidden]),
    ];
    if untied {
        tensors.push(("output.weight".to_owned(), vec![vocabulary, hidden]));
    }
    let fused = config.architecture == Architecture::Phi3;
    let qk_norm = config.qk_norm != QkNorm::None;
    let input = config.mixed.map_or(0, |mixed| mixed.token_input);
    if input > 0 {
        let all = config.layers * input;
        tensors.extend([
            ("per_layer_token_embd.weight".to_owned(), vec![vocabulary, all]),
            ("per_layer_model_proj.weight".to_owned(), vec![all, hidden]),
            ("per_layer_proj_norm.weight".to_owned(), vec![input]),
        ]);
    }
    for layer in 0..config.layers {
        let HeadSizes { kv_heads, head_dim: dim } = config.heads_of(layer);
        let (q, kv, wide) = (config.heads * dim, kv_heads * dim, config.feed_forward_of(layer));
        let norms = match config.qk_norm {
            QkNorm::Rows => [q, kv],
            QkNorm::None | QkNorm::Heads => [dim, dim],
        };
        let has_kv = config.kv_source(layer) == layer;
        let has_v = config.is_local(layer) || !config.mixed.is_some_and(|m| m.keys_as_values);
        for (name, shape, present) in [
            ("attn_norm.weight", vec![hidden], config.pre_norms),
            ("attn_q.weight", vec![q, hidden], !fused),
            ("attn_k.weight", vec![kv, hidden], !fused && has_kv),
            ("attn_v.weight", vec![kv, hidden], !fused && has_kv && has_v),
            ("attn_qkv.weight", vec![q + 2 * kv, hidden], fused),
            ("attn_output.weight", vec![hidden, q], true),
            ("ffn_norm.weight", vec![hidden], config.pre_norms),
            ("ffn_gate.weight", vec![wide, hidden], !fused),
            ("ffn_up.weight", vec![if fused { 2 * wide } else { wide }, hidden], true),
            ("ffn_down.weight", vec![hidden, wide], true),
            ("attn_q.bias", vec![q], config.qkv_bias),
            ("attn_k.bias", vec![kv], config.qkv_bias),
            ("attn_v.bias", vec![kv], config.qkv_bias),
            ("attn_q_norm.weight", vec![norms[0]], qk_norm),
            ("attn_k_norm.weight", vec![norms[1]], qk_norm && has_kv),
            ("post_attention_norm.weight", vec![hidden], config.post_norms),
            ("post_ffw_norm.weight", vec![hidden], config.post_norms),
            ("inp_gate.weight", vec![input, hidden], input > 0),
            ("proj.weight", vec![hidden, input], input > 0),
            ("post_norm.weight", vec![hidden], input > 0),
            ("layer_output_scale.weight", vec![1], config.mixed.is_some()),
        ] {
            tensors.extend(present.then(|| (format!("blk.{layer}.{name}"), shape)));
        }
    }
    tensors
}

/// Draws uniform weights that keep activations near 1. The weights of norms lie around 1.
fn weights(
    random: &mut blake3::OutputReader,
    name: &str,
    shape: &[usize],
    hidden: usize,
) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let mut bytes = vec![0; 4 * count];
    random.fill(&mut bytes);
    let (offset, scale) = match shape {
        [_] if name.ends_with("bias") => (0.0, 0.5),
        [_] => (1.0, 0.2),
        _ => (0.0, 3.0 / (hidden as f32).sqrt()),
    };
    let uniform = |b: &[u8]| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32 / 2f32.powi(31);
    bytes.chunks_exact(4).map(|b| offset + scale * uniform(b)).collect()
}

/// Lists the special tokens, the 256 bytes in GPT-2's spelling, and the results of the merges.
fn tokens() -> Vec<String> {
    let bytes = byte_characters().map(|character| character.to_string());
    let merged = MERGES.iter().map(|merge| merge.replace(' ', ""));
    SPECIAL.iter().map(|token| (*token).to_owned()).chain(bytes).chain(merged).collect()
}
