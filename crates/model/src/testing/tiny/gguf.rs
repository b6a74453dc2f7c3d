//! Writes a tiny model as a GGUF file.

use std::io::{Seek, Write};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Result, Tensor};

use super::{LOGITS_SCALING, MERGES, PHI4_CONTEXT, PHI4_EXTENDED, SPECIAL, YARN, tokens};
use crate::arch::config::Architecture;
use crate::arch::rope::Scaling;
use crate::testing::tiny::Tiny;

impl Tiny {
    /// Writes a GGUF file with the metadata that llama.cpp's converter writes.
    ///
    /// # Errors
    /// The errors of the writer.
    pub fn write_gguf<W: Write + Seek>(&self, out: &mut W) -> Result<()> {
        let mut quantised = Vec::new();
        for super::Tensor { name, shape, values } in &self.tensors {
            let tensor = Tensor::from_slice(values, shape.as_slice(), &Device::Cpu)?;
            quantised.push((name.as_str(), QTensor::quantize(&tensor, GgmlDType::F32)?));
        }
        let metadata = self.metadata();
        let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<_> = quantised.iter().map(|(name, tensor)| (*name, tensor)).collect();
        gguf_file::write(out, &metadata, &tensors)
    }

    fn metadata(&self) -> Vec<(String, Value)> {
        let config = &self.config;
        let architecture = config.architecture.name();
        let name = match self.name {
            "llama" => "tiny".to_owned(),
            name => format!("tiny-{name}"),
        };
        let mut metadata = vec![
            ("general.architecture".to_owned(), text(architecture)),
            ("general.name".to_owned(), text(&name)),
        ];
        let own = [
            ("block_count", size(config.layers)),
            ("embedding_length", size(config.hidden)),
            ("feed_forward_length", self.feed_forward()),
            ("attention.head_count", size(config.heads)),
            ("attention.head_count_kv", self.kv_heads()),
            ("attention.layer_norm_rms_epsilon", Value::F32(config.norm_eps)),
            ("rope.freq_base", Value::F32(config.rope.base)),
        ];
        let own = own.into_iter().chain(self.further_metadata());
        let context = if self.name == "phi4" { PHI4_EXTENDED } else { config.context };
        let own = own.chain([("context_length", size(context))]);
        metadata.extend(own.map(|(key, value)| (format!("{architecture}.{key}"), value)));
        let tokens = tokens();
        let kind = |i: usize| Value::I32(if i < SPECIAL.len() { 3 } else { 1 });
        let tokenizer = [
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.pre", text("smollm")),
            ("tokenizer.ggml.tokens", Value::Array(tokens.iter().map(|t| text(t)).collect())),
            ("tokenizer.ggml.token_type", Value::Array((0..tokens.len()).map(kind).collect())),
            ("tokenizer.ggml.merges", Value::Array(MERGES.iter().map(|m| text(m)).collect())),
        ];
        metadata.extend(tokenizer.map(|(key, value)| (key.to_owned(), value)));
        metadata
    }

    /// Lists the metadata that not every architecture has.
    fn further_metadata(&self) -> Vec<(&'static str, Value)> {
        let config = &self.config;
        let mut metadata = match config.architecture {
            Architecture::Llama
            | Architecture::SmolLm3
            | Architecture::Granite
            | Architecture::Olmo2
            | Architecture::Phi3 => vec![("rope.dimension_count", size(config.rotary_dim))],
            _ => {
                let head_dim = size(config.heads_of_kind(false).head_dim);
                vec![
                    ("attention.key_length", head_dim.clone()),
                    ("attention.value_length", head_dim),
                ]
            }
        };
        if let Scaling::Linear(factor) = config.rope.scaling {
            metadata.push(("rope.scaling.type", text("linear")));
            metadata.push(("rope.scaling.factor", Value::F32(factor)));
        }
        if let Some(window) = &config.window {
            metadata.push(("attention.sliding_window", size(window.positions)));
        }
        metadata.extend(self.newer_metadata());
        for (key, cap) in [
            ("attn_logit_softcapping", config.attention_cap),
            ("final_logit_softcapping", config.logit_cap),
        ] {
            metadata.extend(cap.map(|cap| (key, Value::F32(cap))));
        }
        let known = config.mixed.is_some();
        if !known && config.attention_scale != 1.0 / (config.head_dim as f32).sqrt() {
            metadata.push(("attention.scale", Value::F32(config.attention_scale)));
        }
        metadata
    }
}

impl Tiny {
    /// Returns the number of KV heads; the converter writes it for each layer of a Granite 4.
    fn kv_heads(&self) -> Value {
        let heads = size(self.config.kv_heads);
        match self.name {
            "granite4" => Value::Array(vec![heads; self.config.layers]),
            "gemma4-dense" => {
                let heads = |layer| size(self.config.heads_of(layer).kv_heads);
                Value::Array((0..self.config.layers).map(heads).collect())
            }
            _ => heads,
        }
    }

    /// Returns the width of the feed-forward part, for each layer if they differ.
    fn feed_forward(&self) -> Value {
        let config = &self.config;
        match self.name {
            "gemma4" => {
                let wide = |layer| size(config.feed_forward_of(layer));
                Value::Array((0..config.layers).map(wide).collect())
            }
            _ => size(config.feed_forward),
        }
    }

    /// Lists the metadata of Gemma 4.
    fn gemma4_metadata(&self) -> Vec<(&'static str, Value)> {
        let config = &self.config;
        let Some(mixed) = config.mixed else { return Vec::new() };
        vec![
            ("attention.key_length_swa", size(config.head_dim)),
            ("attention.value_length_swa", size(config.head_dim)),
            ("rope.dimension_count", size(mixed.global.head_dim)),
            ("rope.dimension_count_swa", size(config.head_dim)),
            ("rope.freq_base_swa", Value::F32(config.local_rope.base)),
            ("attention.shared_kv_layers", size(mixed.shared)),
            ("embedding_length_per_layer_input", size(mixed.token_input)),
            ("attention.sliding_window_pattern", self.local_layers()),
        ]
    }

    /// Returns a truth value for each layer: whether it is local.
    fn local_layers(&self) -> Value {
        let local = self.config.window.iter().flat_map(|window| &window.local);
        Value::Array(local.map(|local| Value::Bool(*local)).collect())
    }

    /// Lists the metadata that only newer architectures have.
    fn newer_metadata(&self) -> Vec<(&'static str, Value)> {
        let config = &self.config;
        match self.name {
            "granite" | "granite4" => {
                let mut metadata = vec![
                    ("embedding_scale", Value::F32(config.embedding_scale)),
                    ("residual_scale", Value::F32(config.residual_scale)),
                    ("logit_scale", Value::F32(LOGITS_SCALING)),
                ];
                if self.name == "granite4" {
                    metadata.push(("rope.scaling.finetuned", Value::Bool(false)));
                }
                metadata
            }
            "olmo3" => {
                vec![
                    ("attention.sliding_window_pattern", self.local_layers()),
                    ("rope.scaling.type", text("yarn")),
                    ("rope.scaling.factor", Value::F32(YARN.factor)),
                    ("rope.scaling.original_context_length", size(YARN.original_context)),
                ]
            }
            "gemma4" | "gemma4-dense" => self.gemma4_metadata(),
            "phi3" => vec![("rope.scaling.original_context_length", size(config.context))],
            "phi4" => vec![
                ("attention.sliding_window", size(0)),
                ("rope.scaling.original_context_length", size(PHI4_CONTEXT)),
                ("rope.scaling.attn_factor", Value::F32(config.rope.attention_factor)),
            ],
            _ => Vec::new(),
        }
    }
}

fn size(n: usize) -> Value {
    Value::U32(u32::try_from(n).unwrap_or(u32::MAX))
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}
