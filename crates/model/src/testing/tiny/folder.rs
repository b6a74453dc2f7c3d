//! Writes a tiny model as a folder in transformers' format.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Result, Tensor, safetensors};
use serde_json::{Map, Value, json};

use super::{
    LLAMA3, LOGITS_SCALING, MERGES, PHI4_CONTEXT, PHI4_EXTENDED, QUERY_PRE_ATTN_SCALAR, ROTATING,
    SHORT_FACTORS, SPECIAL, YARN, tokens,
};
use crate::arch::config::{Architecture, Window};
use crate::arch::rope::Scaling;
use crate::arch::weights::RowOrder;
use crate::testing::tiny::Tiny;

impl Tiny {
    /// Writes the folder that Hugging Face's libraries read: `config.json`, `tokenizer.json`, and the
    /// weights in `files` files.
    ///
    /// # Errors
    /// The errors of the writer.
    pub fn write_folder(&self, folder: &Path, files: usize) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let write =
            |name: &str, value: &Value| std::fs::write(folder.join(name), format!("{value:#}\n"));
        write("config.json", &self.config_json())?;
        write("tokenizer.json", &tokenizer_json())?;
        write("tokenizer_config.json", &tokenizer_config_json())?;
        let own = self.tensors.iter().filter(|tensor| !tensor.name.starts_with("rope_"));
        let mut tensors = own.map(|tensor| self.named(tensor)).collect::<Result<Vec<_>>>()?;
        if self.name == "granite4" {
            tensors = with_shared_mlp(&tensors)?;
        }
        if files <= 1 {
            let tensors: HashMap<_, _> = tensors.into_iter().collect();
            return safetensors::save(&tensors, folder.join("model.safetensors"));
        }
        let mut names = BTreeMap::new();
        let mut bytes = 0;
        for (i, part) in tensors.chunks(tensors.len().div_ceil(files)).enumerate() {
            let file = format!("model-{:05}-of-{files:05}.safetensors", i + 1);
            let part: HashMap<_, _> = part.iter().cloned().collect();
            safetensors::save(&part, folder.join(&file))?;
            bytes += part.values().map(|tensor| 4 * tensor.elem_count()).sum::<usize>();
            names.extend(part.into_keys().map(|name| (name, file.clone())));
        }
        let index = json!({"metadata": {"total_size": bytes}, "weight_map": names});
        Ok(write("model.safetensors.index.json", &index)?)
    }

    /// Returns a tensor with transformers' name and conventions.
    fn named(&self, tensor: &super::Tensor) -> Result<(String, Tensor)> {
        let super::Tensor { name, shape, values } = tensor;
        let one_more = self.config.architecture.adds_one_to_norms();
        let kind = name.rsplit('.').nth(1).unwrap_or_default();
        let mut values = values.clone();
        if one_more && kind.ends_with("norm") {
            // A reader adds 1 again, which gives exactly the old value.
            values.iter_mut().for_each(|value| *value -= 1.0);
        }
        let permuted = self.config.architecture.pairs_neighbours_in_gguf();
        if permuted && ["attn_q", "attn_k"].contains(&kind) {
            let (dim, rotary) = (self.config.head_dim, self.config.rotary_dim);
            let (order, width) = (RowOrder::Interleaved { dim, rotary }, self.config.hidden);
            let rows = (0..shape[0]).map(|row| &tensor.values[order.place(row) * width..][..width]);
            values = rows.flatten().copied().collect();
        }
        let tensor = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)?;
        let fused = self.config.architecture == Architecture::Phi3;
        Ok((transformers_name(name, self.config.post_norms, fused), tensor))
    }

    fn config_json(&self) -> Value {
        let config = &self.config;
        let (model_type, class) = match (self.name, config.architecture) {
            ("mistral", _) => ("mistral", "Mistral"),
            (_, Architecture::Llama) => ("llama", "Llama"),
            (_, Architecture::Qwen2) => ("qwen2", "Qwen2"),
            (_, Architecture::Qwen3) => ("qwen3", "Qwen3"),
            (_, Architecture::Gemma) => ("gemma", "Gemma"),
            (_, Architecture::Gemma2) => ("gemma2", "Gemma2"),
            (_, Architecture::Gemma3) => ("gemma3_text", "Gemma3"),
            (_, Architecture::Gemma4) => ("gemma4_text", "Gemma4"),
            (_, Architecture::SmolLm3) => ("smollm3", "SmolLM3"),
            ("granite4", _) => ("granitemoehybrid", "GraniteMoeHybrid"),
            (_, Architecture::Granite) => ("granite", "Granite"),
            ("olmo3", _) => ("olmo3", "Olmo3"),
            (_, Architecture::Olmo2) => ("olmo2", "Olmo2"),
            (_, Architecture::Phi3) => ("phi3", "Phi3"),
        };
        let tied = !self.tensors.iter().any(|tensor| tensor.name == "output.weight");
        let all = json!({
            "architectures": [format!("{class}ForCausalLM")],
            "model_type": model_type,
            "torch_dtype": "float32",
            "vocab_size": config.vocabulary,
            "hidden_size": config.hidden,
            "intermediate_size": config.feed_forward,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads,
            "head_dim": config.head_dim,
            "max_position_embeddings": if self.name == "phi4" { PHI4_EXTENDED } else { config.context },
            "rms_norm_eps": number(config.norm_eps),
            "rope_theta": config.rope.base,
            "tie_word_embeddings": tied,
            "bos_token_id": 0,
            "eos_token_id": 2,
        });
        let mut all = all.as_object().cloned().unwrap_or_default();
        all.extend(self.further_config());
        Value::Object(all)
    }

    /// Lists the fields that not every architecture has.
    fn further_config(&self) -> Map<String, Value> {
        let config = &self.config;
        let mut further = Map::new();
        let mut set = |key: &str, value: Value| further.insert(key.to_owned(), value);
        match config.architecture {
            Architecture::Gemma => set("hidden_act", json!("gelu_pytorch_tanh")),
            Architecture::Gemma2 | Architecture::Gemma3 | Architecture::Gemma4 => {
                set("hidden_activation", json!("gelu_pytorch_tanh"))
            }
            _ => set("hidden_act", json!("silu")),
        };
        match &config.rope.scaling {
            Scaling::None => None,
            Scaling::Linear(factor) => {
                set("rope_scaling", json!({"rope_type": "linear", "factor": factor}))
            }
            Scaling::Divisors(_) if self.name != "llama3" => None,
            Scaling::Divisors(_) => set(
                "rope_scaling",
                json!({
                    "rope_type": "llama3",
                    "factor": LLAMA3.factor,
                    "low_freq_factor": LLAMA3.low_freq_factor,
                    "high_freq_factor": LLAMA3.high_freq_factor,
                    "original_max_position_embeddings": LLAMA3.original_context,
                }),
            ),
        };
        if let Some(window) = &config.window {
            set("sliding_window", json!(window.positions));
        }
        match config.architecture {
            Architecture::Qwen2 | Architecture::Qwen3 => {
                set("use_sliding_window", json!(false));
                // Like the makers' configurations, which do not use it.
                set("sliding_window", json!(4));
            }
            Architecture::Gemma2 => {
                set("query_pre_attn_scalar", json!(QUERY_PRE_ATTN_SCALAR));
                set("attn_logit_softcapping", json!(config.attention_cap));
                set("final_logit_softcapping", json!(config.logit_cap));
            }
            Architecture::Gemma3 => {
                set("query_pre_attn_scalar", json!(config.head_dim));
                set("sliding_window_pattern", json!(6));
                set("rope_local_base_freq", json!(config.local_rope.base));
            }
            _ => {}
        }
        further.extend(self.newer_config());
        further
    }
}

impl Tiny {
    /// Lists the fields that only newer architectures have.
    fn newer_config(&self) -> Map<String, Value> {
        let config = &self.config;
        // Another token than the embedding has is refused by transformers.
        let pad = json!({"pad_token_id": 0});
        let newer = match self.name {
            "smollm3" => json!({"no_rope_layers": [1, 1, 1, 0], "no_rope_layer_interval": 4}),
            "granite" | "granite4" => json!({
                "embedding_multiplier": config.embedding_scale,
                "attention_multiplier": number(config.attention_scale),
                "residual_multiplier": number(config.residual_scale),
                "logits_scaling": number(LOGITS_SCALING),
            }),
            "olmo2" => json!({}),
            "olmo3" => json!({
                "rope_theta": null,
                "layer_types": layer_types(&config.window, "sliding_attention", "full_attention"),
                "rope_parameters": {
                    "full_attention": {
                        "rope_type": "yarn",
                        "rope_theta": config.rope.base,
                        "factor": YARN.factor,
                        "beta_fast": YARN.beta_fast,
                        "beta_slow": YARN.beta_slow,
                        "original_max_position_embeddings": YARN.original_context,
                    },
                    "sliding_attention": {"rope_type": "default", "rope_theta": config.local_rope.base},
                },
            }),
            "gemma4" | "gemma4-dense" => self.gemma4_config(),
            "phi3" => json!({"original_max_position_embeddings": config.context}),
            "phi4" => json!({
                "original_max_position_embeddings": PHI4_CONTEXT,
                "partial_rotary_factor": 0.75,
                "rope_scaling": {
                    "type": "longrope",
                    "short_factor": SHORT_FACTORS,
                    "long_factor": SHORT_FACTORS.map(|factor| 8.0 * factor),
                },
            }),
            _ => return Map::new(),
        };
        let granite4 = match self.name {
            "granite4" => json!({
                "layer_types": vec!["attention"; config.layers],
                "num_local_experts": 0,
                "num_experts_per_tok": 0,
                "shared_intermediate_size": config.feed_forward,
                "position_embedding_type": "nope",
            }),
            _ => json!({}),
        };
        let all = [pad, newer, granite4].into_iter();
        all.flat_map(|fields| fields.as_object().cloned().unwrap_or_default()).collect()
    }
}

impl Tiny {
    /// Lists the fields of Gemma 4: in the older spelling, or in the newer one if the model is dense.
    fn gemma4_config(&self) -> Value {
        let config = &self.config;
        let Some(mixed) = config.mixed else { return json!({}) };
        let types = layer_types(&config.window, "sliding_attention", "full_attention");
        let (key, value) = match self.name {
            "gemma4" => ("global_head_dim", json!(mixed.global.head_dim)),
            _ => {
                let global = types.iter().enumerate().filter(|(_, kind)| *kind == "full_attention");
                let own = json!({
                    "head_dim": mixed.global.head_dim, "num_key_value_heads": mixed.global.kv_heads,
                });
                let own: Map<_, _> =
                    global.map(|(layer, _)| (layer.to_string(), own.clone())).collect();
                ("per_layer_config", json!(own))
            }
        };
        json!({
            "rope_theta": null,
            key: value,
            "layer_types": types,
            "attention_k_eq_v": mixed.keys_as_values,
            "num_kv_shared_layers": mixed.shared,
            "use_double_wide_mlp": mixed.shared_feed_forward > config.feed_forward,
            "hidden_size_per_layer_input": mixed.token_input,
            "vocab_size_per_layer_input": config.vocabulary,
            "final_logit_softcapping": config.logit_cap,
            "use_bidirectional_attention": "vision",
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "proportional",
                    "rope_theta": config.rope.base,
                    "partial_rotary_factor": (2 * ROTATING) as f64 / mixed.global.head_dim as f64,
                },
                "sliding_attention": {"rope_type": "default", "rope_theta": config.local_rope.base},
            },
        })
    }
}

/// Names the kind of each layer.
fn layer_types(window: &Option<Window>, local: &str, global: &str) -> Vec<String> {
    let layers = window.iter().flat_map(|window| &window.local);
    layers.map(|layer| if *layer { local } else { global }.to_owned()).collect()
}

/// Joins gates and ups and gives them the names of experts that all tokens share.
fn with_shared_mlp(tensors: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
    let mut renamed = Vec::new();
    for (name, tensor) in tensors {
        if name.contains("mlp.up_proj") {
            continue;
        }
        let up = name.replace("mlp.gate_proj", "mlp.up_proj");
        let up = tensors.iter().find(|(other, _)| up != *name && *other == up);
        let tensor = match up {
            Some((_, up)) => Tensor::cat(&[tensor, up], 0)?,
            None => tensor.clone(),
        };
        let name = name.replace("mlp.gate_proj", "shared_mlp.input_linear");
        renamed.push((name.replace("mlp.down_proj", "shared_mlp.output_linear"), tensor));
    }
    Ok(renamed)
}

/// Converts a number by its shortest digits: in f64, the f32 1e-5 has more.
fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn transformers_name(name: &str, post_norms: bool, fused: bool) -> String {
    let Some((layer, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'))
    else {
        return match name {
            "token_embd.weight" => "model.embed_tokens.weight",
            "output_norm.weight" => "model.norm.weight",
            "per_layer_token_embd.weight" => "model.embed_tokens_per_layer.weight",
            "per_layer_model_proj.weight" => "model.per_layer_model_projection.weight",
            "per_layer_proj_norm.weight" => "model.per_layer_projection_norm.weight",
            _ => "lm_head.weight",
        }
        .to_owned();
    };
    let (part, kind) = part.split_once('.').unwrap_or((part, "weight"));
    let part = match part {
        "attn_norm" => "input_layernorm",
        "attn_qkv" => "self_attn.qkv_proj",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" if fused => "mlp.gate_up_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "ffn_norm" if post_norms => "pre_feedforward_layernorm",
        "post_ffw_norm" => "post_feedforward_layernorm",
        "inp_gate" => "per_layer_input_gate",
        "proj" => "per_layer_projection",
        "post_norm" => "post_per_layer_input_norm",
        "layer_output_scale" => return format!("model.layers.{layer}.layer_scalar"),
        _ => "post_attention_layernorm",
    };
    format!("model.layers.{layer}.{part}.{kind}")
}

fn tokenizer_json() -> Value {
    let added = SPECIAL.iter().enumerate().map(|(id, content)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    });
    let vocabulary: Map<_, _> =
        tokens().into_iter().zip(0..).map(|(t, id)| (t, json!(id))).collect();
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": true}, bytes],
        },
        "post_processor": null,
        "decoder": bytes,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocabulary,
            "merges": MERGES,
        },
    })
}

fn tokenizer_config_json() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[2],
        "clean_up_tokenization_spaces": false,
    })
}
