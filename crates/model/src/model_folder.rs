//! A folder as transformers saves a model: `config.json`, safetensors, and a tokenizer.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use hyperrag_core::Digest;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::chat::Chat;
use crate::config_json::{ModelJson, Tokens};
use crate::digest::RawTensor;
use crate::model_file::{ROWS_AT_ONCE, digest_of};
use crate::{Architecture, Config, LoadError, Tokenizer, json};

/// Largest size of the header of a safetensors file, in bytes. With 10,000 tensors it has one million.
const HEADER_BYTES_MAX: u64 = 32 << 20;

/// A tensor that every model has. The part of its name before this text is the folder's prefix.
const EMBEDDING: &str = "embed_tokens.weight";

pub(crate) struct ModelFolder {
    path: PathBuf,
    model: ModelJson,
    /// Files with weights, in the order of their names.
    files: Vec<PathBuf>,
    tensors: HashMap<String, Place>,
    /// Prefix of the names of the decoder's tensors.
    prefix: String,
}

/// Location of a tensor in a file.
struct Place {
    file: Arc<File>,
    path: PathBuf,
    offset: u64,
    kind: String,
    shape: Vec<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

/// A tensor in the header of a safetensors file.
#[derive(Deserialize)]
pub(crate) struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    add_bos_token: Option<bool>,
    bos_token: Option<Value>,
    eos_token: Option<Value>,
    chat_template: Option<Value>,
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
        let text = json::read(&config)?.ok_or_else(|| missing("config.json"))?;
        let model = ModelJson::read(&config, &text)?;
        let files = weight_files(path)?.ok_or_else(|| missing("model.safetensors"))?;
        let mut tensors = HashMap::new();
        for file in &files {
            for (name, place) in read_header(file)? {
                if tensors.insert(name.clone(), place).is_some() {
                    return Err(json::wrong(file)(format!("tensor {name} is in another file too")));
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
        let path = self.path.join("tokenizer.json");
        let Some(text) = json::read(&path)? else {
            return Err(LoadError::NotInFolder { path: self.path.clone(), file: "tokenizer.json" });
        };
        let config = self.tokenizer_config()?;
        let bos = config.bos_token.as_ref().and_then(content);
        Tokenizer::from_json(&path, &text, config.add_bos_token, bos)
    }

    fn tokenizer_config(&self) -> Result<TokenizerConfig, LoadError> {
        let path = self.path.join("tokenizer_config.json");
        match json::read(&path)? {
            Some(text) => json::parse(&path, &text),
            None => Ok(TokenizerConfig::default()),
        }
    }

    pub(crate) fn chat(&self) -> Result<Option<Chat>, LoadError> {
        let config = self.tokenizer_config()?;
        let path = self.path.join("chat_template.jinja");
        let (path, template) = match (json::read(&path)?, &config.chat_template) {
            (Some(text), _) => {
                let text = String::from_utf8(text).map_err(json::wrong(&path))?;
                (path, Some(text))
            }
            (None, template) => (self.path.join("tokenizer_config.json"), default_of(template)),
        };
        let special = |token: &Option<Value>| token.as_ref().and_then(content).unwrap_or_default();
        let (bos, eos) = (special(&config.bos_token), special(&config.eos_token));
        let chat = template.map(|template| Chat::new(&template, &bos, &eos)).transpose();
        chat.map_err(|what| json::wrong(&path)(format!("the chat template {what}")))
    }

    pub(crate) fn end_tokens(&self) -> Result<Vec<u32>, LoadError> {
        let mut tokens = self.model.end_tokens.clone();
        let path = self.path.join("generation_config.json");
        if let Some(text) = json::read(&path)? {
            let generation: GenerationConfig = json::parse(&path, &text)?;
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
            "output_norm.weight" => return Some(format!("{prefix}norm.weight")),
            "output.weight" => {
                let head = self.tensors.keys().find(|name| name.ends_with("lm_head.weight"));
                return Some(head.cloned().unwrap_or_else(|| "lm_head.weight".to_owned()));
            }
            _ => {}
        }
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let architecture = self.config().architecture;
        let normed = matches!(architecture, Architecture::Gemma2 | Architecture::Gemma3);
        let part = match part {
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
    fn place(&self, name: &str, shape: &[usize]) -> Result<(&Place, Kind), LoadError> {
        let own = self.name(name).unwrap_or_else(|| name.to_owned());
        let Some(place) = self.tensors.get(&own) else {
            return Err(json::wrong(&self.path)(format!("its weights have no tensor {own}")));
        };
        if place.shape != shape {
            let what = format!("tensor {own} has shape {:?}, expected {shape:?}", place.shape);
            return Err(json::wrong(&place.path)(what));
        }
        let kind = Kind::named(&place.kind).ok_or_else(|| LoadError::Unsupported {
            feature: format!("weights of type {} (tensor {own})", place.kind),
        })?;
        Ok((place, kind))
    }

    pub(crate) fn raw(&self, name: &str, shape: &[usize]) -> Result<RawTensor<'_>, LoadError> {
        let (Place { file, path, offset, kind, .. }, of) = self.place(name, shape)?;
        let bytes = shape.iter().product::<usize>() as u64 * of.bytes();
        Ok(RawTensor { file, path, offset: *offset, bytes, kind })
    }

    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<PlainTensor, LoadError> {
        let (place, kind) = self.place(name, shape)?;
        // Gemma's norms multiply by one more than their weights.
        let norm = name.ends_with("norm.weight") && self.config().architecture.is_gemma();
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

/// Returns the text of a special token, which some files wrap in an object with details.
fn content(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}

/// Returns the files that hold the weights; `None` if there are none. An index beside
/// `model.safetensors` belongs to former weights: transformers does not read it either.
pub(crate) fn weight_files(folder: &Path) -> Result<Option<Vec<PathBuf>>, LoadError> {
    let whole = folder.join("model.safetensors");
    if whole.exists() {
        return Ok(Some(vec![whole]));
    }
    let index = folder.join("model.safetensors.index.json");
    let Some(text) = json::read(&index)? else { return Ok(None) };
    let Index { weight_map } = json::parse(&index, &text)?;
    let names: BTreeSet<String> = weight_map.into_values().collect();
    if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
        return Err(json::wrong(&index)(format!("it names {name:?}, which is in another folder")));
    }
    Ok(Some(names.iter().map(|name| folder.join(name)).collect()))
}

/// Reads the tensors in the header of a safetensors file.
fn read_header(path: &Path) -> Result<Vec<(String, Place)>, LoadError> {
    let opened =
        hyperrag_files::open(path).map_err(LoadError::io(path, "the weights cannot be opened"))?;
    let failed = || LoadError::io(path, "the weights cannot be read");
    let bytes = opened.metadata().map_err(failed())?.len();
    let mut length = [0; 8];
    opened.read_exact_at(&mut length, 0).map_err(failed())?;
    let length = u64::from_le_bytes(length);
    let after = bytes.saturating_sub(8);
    if length > after.min(HEADER_BYTES_MAX) {
        let what = format!("no safetensors: its header would take {length} of {after} bytes");
        return Err(json::wrong(path)(what));
    }
    let mut header = vec![0; length as usize];
    opened.read_exact_at(&mut header, 8).map_err(failed())?;
    let file = Arc::new(opened);
    let entries = entries(&header, after - length).map_err(json::wrong(path))?;
    let places = entries.into_iter().map(|(name, entry)| {
        let (file, path) = (Arc::clone(&file), path.to_owned());
        let Entry { dtype: kind, shape, data_offsets: [start, _] } = entry;
        (name, Place { file, path, offset: 8 + length + start, kind, shape })
    });
    Ok(places.collect())
}

/// Reads the tensors in the header of a safetensors file. Lengths and offsets are checked against the
/// `data` bytes after it.
pub(crate) fn entries(header: &[u8], data: u64) -> Result<Vec<(String, Entry)>, String> {
    json::bound(header)?;
    // As text first, so that nothing is kept of entries that are no tensors.
    let texts: HashMap<String, Box<RawValue>> =
        serde_json::from_slice(header).map_err(|error| error.to_string())?;
    let tensors = texts.into_iter().filter(|(name, _)| name != "__metadata__");
    let checked = tensors.map(|(name, text)| {
        let entry: Entry =
            serde_json::from_str(text.get()).map_err(|error| format!("{name}: {error}"))?;
        let Entry { dtype, shape, data_offsets: [start, end] } = &entry;
        let size = Kind::named(dtype).map(Kind::bytes);
        let count = shape.iter().try_fold(1_u64, |all, n| all.checked_mul(*n as u64));
        let fits = match (size, count) {
            (Some(size), Some(count)) => count.checked_mul(size) == end.checked_sub(*start),
            // A type that is not read: its length does not matter.
            (None, _) => start <= end,
            (_, None) => false,
        };
        match fits && *end <= data {
            true => Ok((name, entry)),
            false => Err(format!("tensor {name} is not within the file, or not of its shape")),
        }
    });
    checked.collect()
}

/// Types from which weights are read.
#[derive(Clone, Copy)]
enum Kind {
    F32,
    F16,
    Bf16,
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::Bf16),
            _ => None,
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A tensor whose values are still in the file.
pub(crate) struct PlainTensor {
    file: Arc<File>,
    path: PathBuf,
    offset: u64,
    kind: Kind,
    rows: usize,
    inputs: usize,
    /// Number added to every value.
    added: f32,
}

impl PlainTensor {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn values(&self) -> Result<Vec<f32>, LoadError> {
        let mut values = Vec::with_capacity(self.rows * self.inputs);
        self.each_rows(|rows| values.extend_from_slice(rows))?;
        Ok(values)
    }

    pub(crate) fn each_rows(&self, mut each: impl FnMut(&[f32])) -> Result<(), LoadError> {
        let row_bytes = self.inputs * self.kind.bytes() as usize;
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        // Vectors have rows of one value.
        let at_once = if self.inputs == 1 { self.rows.max(1) } else { ROWS_AT_ONCE };
        for first in (0..self.rows).step_by(at_once) {
            bytes.resize(at_once.min(self.rows - first) * row_bytes, 0);
            let offset = self.offset + (first * row_bytes) as u64;
            let read = self.file.read_exact_at(&mut bytes, offset);
            read.map_err(LoadError::io(&self.path, "the weights cannot be read"))?;
            values.clear();
            let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
            let added = |value: f32| value + self.added;
            match self.kind {
                Kind::F32 => {
                    let words = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
                    values.extend(words.map(f32::from_le_bytes).map(added));
                }
                Kind::F16 => values.extend(pairs().map(|b| added(f16::from_le_bytes(b).to_f32()))),
                Kind::Bf16 => {
                    values.extend(pairs().map(|b| added(bf16::from_le_bytes(b).to_f32())))
                }
            }
            each(&values);
        }
        Ok(())
    }
}
