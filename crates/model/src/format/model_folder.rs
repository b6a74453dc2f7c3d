//! A folder as transformers saves a model: `config.json`, safetensors, and a tokenizer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyperrag_core::Digest;
use serde::Deserialize;
use serde_json::Value;

use crate::arch::config::Config;
use crate::error::LoadError;
use crate::format::config_json::{ModelJson, Tokens};
use crate::format::json;
use crate::format::raw_tensor::{RawTensor, digest_of};
use crate::format::safetensors::{PlainTensor, SafetensorsDtype, SafetensorsTensor, read_header};
use crate::format::tokenizer_file::{TokenizerConfig, content, tokenizer_in};
use crate::format::weight_files::weight_files;
use crate::generate::chat_template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// A tensor that every model has. The part of its name before this text is the folder's prefix.
const EMBEDDING: &str = "embed_tokens.weight";

pub(crate) struct ModelFolder {
    path: PathBuf,
    model: ModelJson,
    /// Files with weights, in the order of their names.
    files: Vec<PathBuf>,
    tensors: HashMap<String, SafetensorsTensor>,
    /// Prefix of the names of the decoder's tensors.
    prefix: String,
}

#[derive(Default, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<Tokens>,
}

impl ModelFolder {
    /// Reads `config.json` and the headers of the weights.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let missing = |file: &'static str| LoadError::NotInFolder { path: path.to_owned(), file };
        let config = path.join("config.json");
        let text = json::read_json(&config)?.ok_or_else(|| missing("config.json"))?;
        let model = ModelJson::read(&config, &text)?;
        let files = weight_files(path)?.ok_or_else(|| missing("model.safetensors"))?;
        let mut tensors = HashMap::new();
        for file in &files {
            for (name, place) in read_header(file)? {
                if tensors.insert(name.clone(), place).is_some() {
                    return Err(json::json_error(file)(format!(
                        "tensor {name} is in another file too"
                    )));
                }
            }
        }
        let prefix = tensors.keys().filter_map(|name| name.strip_suffix(EMBEDDING)).min();
        let prefix = prefix.unwrap_or("model.").to_owned();
        Ok(Self { path: path.to_owned(), model, files, tensors, prefix })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.model.config
    }

    /// Hashes the configuration and the weights.
    pub(crate) fn digest(&self) -> Result<Digest, LoadError> {
        let mut hasher = blake3::Hasher::new();
        for file in self.hashed_files() {
            hasher.update(&digest_of(&file)?.0);
        }
        Ok(Digest(*hasher.finalize().as_bytes()))
    }

    /// Files of the configuration and of the weights.
    pub(crate) fn hashed_files(&self) -> Vec<PathBuf> {
        [self.path.join("config.json")].into_iter().chain(self.files.iter().cloned()).collect()
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        tokenizer_in(&self.path)
    }

    fn tokenizer_config(&self) -> Result<TokenizerConfig, LoadError> {
        TokenizerConfig::read(&self.path)
    }

    pub(crate) fn chat(&self) -> Result<Option<ChatTemplate>, LoadError> {
        let config = self.tokenizer_config()?;
        let path = self.path.join("chat_template.jinja");
        let (path, template) = match (json::read_json(&path)?, &config.chat_template) {
            (Some(text), _) => {
                let text = String::from_utf8(text).map_err(json::json_error(&path))?;
                (path, Some(text))
            }
            (None, template) => (self.path.join("tokenizer_config.json"), default_of(template)),
        };
        let [bos, eos] = config.special_texts();
        let chat = template.map(|template| ChatTemplate::new(&template, &bos, &eos)).transpose();
        chat.map_err(|what| json::json_error(&path)(format!("the chat template {what}")))
    }

    /// Returns the texts of the tokens that begin and end a text.
    pub(crate) fn special_texts(&self) -> Result<[String; 2], LoadError> {
        Ok(self.tokenizer_config()?.special_texts())
    }

    pub(crate) fn end_tokens(&self) -> Result<Vec<u32>, LoadError> {
        let mut tokens = self.model.end_tokens.clone();
        let path = self.path.join("generation_config.json");
        if let Some(text) = json::read_json(&path)? {
            let generation: GenerationConfig = json::parse_json(&path, &text)?;
            tokens.extend(generation.eos_token_id.map(Tokens::into_vec).unwrap_or_default());
        }
        let named = self.tokenizer_config()?.eos_token.as_ref().and_then(content);
        if let Some(named) = named {
            tokens.extend(self.tokenizer()?.token(&named));
        }
        tokens.sort_unstable();
        tokens.dedup();
        Ok(tokens)
    }

    /// Returns this folder's name of a GGUF tensor; `None` for one that no such folder has.
    fn name(&self, name: &str) -> Option<String> {
        let prefix = &self.prefix;
        match name {
            "token_embd.weight" => return Some(format!("{prefix}{EMBEDDING}")),
            "per_layer_token_embd.weight" => {
                return Some(format!("{prefix}embed_tokens_per_layer.weight"));
            }
            "per_layer_model_proj.weight" => {
                return Some(format!("{prefix}per_layer_model_projection.weight"));
            }
            "per_layer_proj_norm.weight" => {
                return Some(format!("{prefix}per_layer_projection_norm.weight"));
            }
            "output_norm.weight" => return Some(format!("{prefix}norm.weight")),
            "output.weight" => {
                let head = self.tensors.keys().find(|name| name.ends_with("lm_head.weight"));
                return Some(head.cloned().unwrap_or_else(|| "lm_head.weight".to_owned()));
            }
            _ => {}
        }
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        if part == "layer_output_scale" {
            return Some(format!("{prefix}layers.{layer}.layer_scalar"));
        }
        let normed = self.config().post_norms;
        let shared = self.model.is_shared_mlp;
        let part = match part {
            "attn_qkv" => "self_attn.qkv_proj",
            "ffn_gate_up" if shared => "shared_mlp.input_linear",
            "ffn_gate_up" => "mlp.gate_up_proj",
            "ffn_down" if shared => "shared_mlp.output_linear",
            "ffn_gate_inp" => "block_sparse_moe.router.layer",
            "attn_norm" => "input_layernorm",
            "attn_q" => "self_attn.q_proj",
            "attn_k" => "self_attn.k_proj",
            "attn_v" => "self_attn.v_proj",
            "attn_output" => "self_attn.o_proj",
            "attn_q_norm" => "self_attn.q_norm",
            "attn_k_norm" => "self_attn.k_norm",
            "post_attention_norm" if normed => "post_attention_layernorm",
            "ffn_norm" if normed => "pre_feedforward_layernorm",
            "ffn_norm" => "post_attention_layernorm",
            "post_ffw_norm" => "post_feedforward_layernorm",
            "ffn_gate" => "mlp.gate_proj",
            "ffn_up" => "mlp.up_proj",
            "ffn_down" => "mlp.down_proj",
            "inp_gate" => "per_layer_input_gate",
            "proj" => "per_layer_projection",
            "post_norm" => "post_per_layer_input_norm",
            _ => return None,
        };
        Some(format!("{prefix}layers.{layer}.{part}.{kind}"))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match name {
            // Some files have it and do not use it; if a required one is missing, reading it fails.
            "output.weight" => !self.model.tied,
            _ => self.name(name).is_some_and(|name| self.tensors.contains_key(&name)),
        }
    }

    /// Returns the location of the tensor `name` and its type.
    fn place(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<(&SafetensorsTensor, SafetensorsDtype), LoadError> {
        let own = self.name(name).unwrap_or_else(|| name.to_owned());
        let Some(place) = self.tensors.get(&own) else {
            return Err(json::json_error(&self.path)(format!("its weights have no tensor {own}")));
        };
        if place.shape != shape {
            let what = format!("tensor {own} has shape {:?}, expected {shape:?}", place.shape);
            return Err(json::json_error(&place.path)(what));
        }
        let kind = SafetensorsDtype::named(&place.kind).ok_or_else(|| LoadError::Unsupported {
            feature: format!("weights of type {} (tensor {own})", place.kind),
        })?;
        Ok((place, kind))
    }

    pub(crate) fn raw(&self, name: &str, shape: &[usize]) -> Result<RawTensor<'_>, LoadError> {
        let (SafetensorsTensor { file, path, offset, kind, .. }, of) = self.place(name, shape)?;
        let bytes = shape.iter().product::<usize>() as u64 * of.bytes();
        Ok(RawTensor { file, path, offset: *offset, bytes, kind })
    }

    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<PlainTensor, LoadError> {
        let (place, kind) = self.place(name, shape)?;
        // The norms of Gemma 1 to 3 multiply by one more than their weights.
        let norm = name.ends_with("norm.weight") && self.config().architecture.adds_one_to_norms();
        Ok(PlainTensor {
            file: Arc::clone(&place.file),
            path: place.path.clone(),
            offset: place.offset,
            kind,
            rows: shape[0],
            inputs: shape[1..].iter().product(),
            added: if norm { 1.0 } else { 0.0 },
        })
    }
}

/// Returns the template in `tokenizer_config.json`, or the one named `default` if there are several.
fn default_of(template: &Option<Value>) -> Option<String> {
    match template.as_ref()? {
        Value::String(template) => Some(template.clone()),
        Value::Array(named) => {
            let default = named.iter().find(|template| template["name"] == "default");
            default.and_then(|t| t["template"].as_str()).map(str::to_owned)
        }
        _ => None,
    }
}
