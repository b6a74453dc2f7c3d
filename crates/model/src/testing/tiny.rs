//! Tiny models with weights from a seed, one of every architecture.
//!
//! In: a name and a seed. Out: real GGUF files and folders of safetensors, for tests and to try the
//! program without a download. Scores mean nothing, but are computed like any others.

mod folder;
mod gguf;

use std::io::{Seek, Write};

use candle_core::Result;

use crate::arch::config::{Architecture, Config, DecoderSizes, Window};
use crate::arch::rope::{Llama3Scaling, Rope, Scaling};
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
/// Number whose square root divides the attention scores of Gemma 2.
const QUERY_PRE_ATTN_SCALAR: u16 = 24;

/// Names of the tiny models. Each shows what one family of models needs.
pub const NAMES: [&str; 9] =
    ["llama", "llama3", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gemma3-linear"];

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
        let tensors = shapes(&config, name == "llama3").into_iter().map(|(name, shape)| {
            let values = weights(&mut random, &name, &shape, config.hidden);
            Tensor { name, shape, values }
        });
        let mut tensors: Vec<_> = tensors.collect();
        if let Scaling::Divisors(divisors) = &config.rope.scaling {
            let (shape, values) = (vec![divisors.len()], divisors.clone());
            tensors.push(Tensor { name: "rope_freqs.weight".to_owned(), shape, values });
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
    use Architecture::{Gemma, Gemma2, Gemma3, Llama, Qwen2, Qwen3};
    // Layers, heads, KV heads, head dim.
    let (architecture, [layers, heads, kv_heads, head_dim]) = match name {
        "qwen2" => (Qwen2, [2, 4, 2, 16]),
        "qwen3" => (Qwen3, [2, 4, 2, 24]),
        "gemma" => (Gemma, [2, 2, 1, 256]),
        "gemma2" => (Gemma2, [4, 4, 2, 32]),
        "gemma3" | "gemma3-linear" => (Gemma3, [12, 4, 1, 32]),
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
        _ => {}
    }
    match name {
        "gemma3" => {}
        "gemma3-linear" => config.rope.scaling = Scaling::Linear(8.0),
        _ => config.local_rope = config.rope.clone(),
    }
    config
}

/// Lists names and shapes of the tensors.
fn shapes(config: &Config, untied: bool) -> Vec<(String, Vec<usize>)> {
    let Config { hidden, vocabulary, head_dim: dim, feed_forward: wide, .. } = *config;
    let (q, kv) = (config.heads * dim, config.kv_heads * dim);
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![vocabulary, hidden]),
        ("output_norm.weight".to_owned(), vec![hidden]),
    ];
    if untied {
        tensors.push(("output.weight".to_owned(), vec![vocabulary, hidden]));
    }
    for layer in 0..config.layers {
        for (name, shape, present) in [
            ("attn_norm.weight", vec![hidden], true),
            ("attn_q.weight", vec![q, hidden], true),
            ("attn_k.weight", vec![kv, hidden], true),
            ("attn_v.weight", vec![kv, hidden], true),
            ("attn_output.weight", vec![hidden, q], true),
            ("ffn_norm.weight", vec![hidden], true),
            ("ffn_gate.weight", vec![wide, hidden], true),
            ("ffn_up.weight", vec![wide, hidden], true),
            ("ffn_down.weight", vec![hidden, wide], true),
            ("attn_q.bias", vec![q], config.qkv_bias),
            ("attn_k.bias", vec![kv], config.qkv_bias),
            ("attn_v.bias", vec![kv], config.qkv_bias),
            ("attn_q_norm.weight", vec![dim], config.qk_norm),
            ("attn_k_norm.weight", vec![dim], config.qk_norm),
            ("post_attention_norm.weight", vec![hidden], config.post_norms),
            ("post_ffw_norm.weight", vec![hidden], config.post_norms),
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
