//! A tiny llama with weights from a seed, as a real GGUF file: for tests, and to try the program
//! without a download. Its scores mean nothing, but they are computed as any other's.

use std::io::{Seek, Write};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Result, Tensor};

use crate::tokenizer::byte_characters;

const LAYERS: usize = 2;
const HIDDEN: usize = 64;
const FEED_FORWARD: usize = 96;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Merges of byte-level BPE, best first; `Ġ` is a blank.
const MERGES: [&str; 32] = [
    "Ġ t", "h e", "i n", "Ġ a", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "n d", "Ġ w", "e s",
    "o r", "Ġ o", "Ġ c", "i t", "e n", "i s", "a n", "Ġ b", "Ġ f", "in g", "a l", "Ġo f", "e d",
    "Ġ p", "a r", "Ġ in", "o u", "Ġa nd", "s t",
];

/// Writes the model made from `seed`. The same seed gives the same bytes.
///
/// # Errors
/// Those of the writer.
pub fn write<W: Write + Seek>(seed: u64, out: &mut W) -> Result<()> {
    let tokens = tokens();
    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![tokens.len(), HIDDEN]),
        ("output_norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("attn_norm", vec![HIDDEN]),
            ("attn_q", vec![q, HIDDEN]),
            ("attn_k", vec![kv, HIDDEN]),
            ("attn_v", vec![kv, HIDDEN]),
            ("attn_output", vec![HIDDEN, q]),
            ("ffn_norm", vec![HIDDEN]),
            ("ffn_gate", vec![FEED_FORWARD, HIDDEN]),
            ("ffn_up", vec![FEED_FORWARD, HIDDEN]),
            ("ffn_down", vec![HIDDEN, FEED_FORWARD]),
        ] {
            tensors.push((format!("blk.{layer}.{name}.weight"), shape));
        }
    }
    let mut random = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut quantised = Vec::new();
    for (name, shape) in &tensors {
        let values = weights(&mut random, shape);
        let tensor = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)?;
        quantised.push((name.as_str(), QTensor::quantize(&tensor, GgmlDType::F32)?));
    }
    let metadata = metadata(&tokens);
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = quantised.iter().map(|(name, tensor)| (*name, tensor)).collect();
    gguf_file::write(out, &metadata, &tensors)
}

/// Uniform weights that keep activations near 1; norms' weights lie around 1.
fn weights(random: &mut blake3::OutputReader, shape: &[usize]) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let mut bytes = vec![0; 4 * count];
    random.fill(&mut bytes);
    let (offset, scale) = match shape {
        [_] => (1.0, 0.2),
        _ => (0.0, 3.0 / (HIDDEN as f32).sqrt()),
    };
    let uniform = |b: &[u8]| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32 / 2f32.powi(31);
    bytes.chunks_exact(4).map(|b| offset + scale * uniform(b)).collect()
}

/// Special tokens, the 256 bytes in GPT-2's spelling, and what the merges make.
fn tokens() -> Vec<String> {
    let bytes = byte_characters().map(|character| character.to_string());
    let merged = MERGES.iter().map(|merge| merge.replace(' ', ""));
    SPECIAL.iter().map(|token| (*token).to_owned()).chain(bytes).chain(merged).collect()
}

fn metadata(tokens: &[String]) -> Vec<(&'static str, Value)> {
    let size = |n: usize| Value::U32(u32::try_from(n).unwrap_or(u32::MAX));
    let text = |t: &str| Value::String(t.to_owned());
    let kind = |i: usize| Value::I32(if i < SPECIAL.len() { 3 } else { 1 });
    vec![
        ("general.architecture", text("llama")),
        ("general.name", text("tiny")),
        ("llama.block_count", size(LAYERS)),
        ("llama.embedding_length", size(HIDDEN)),
        ("llama.feed_forward_length", size(FEED_FORWARD)),
        ("llama.attention.head_count", size(HEADS)),
        ("llama.attention.head_count_kv", size(KV_HEADS)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.rope.freq_base", Value::F32(10_000.0)),
        ("llama.rope.dimension_count", size(HEAD_DIM)),
        ("llama.context_length", size(2048)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("smollm")),
        ("tokenizer.ggml.tokens", Value::Array(tokens.iter().map(|t| text(t)).collect())),
        ("tokenizer.ggml.token_type", Value::Array((0..tokens.len()).map(kind).collect())),
        ("tokenizer.ggml.merges", Value::Array(MERGES.iter().map(|m| text(m)).collect())),
    ]
}
