//! Turns a `config.json`, as transformers writes it, into a [`Config`]. Missing fields take
//! transformers' defaults. It does not know weights.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::arch::config::{Architecture, Config, DecoderSizes, Window};
use crate::arch::rope::{Llama3Scaling, Rope, Scaling};
use crate::error::LoadError;
use crate::format::json;

/// The contents of a `config.json` on which the decoder and the names of its tensors depend.
pub(crate) struct ModelJson {
    pub(crate) config: Config,
    /// Whether the embedding serves as head.
    pub(crate) tied: bool,
    pub(crate) end_tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Outer {
    #[serde(default)]
    model_type: String,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    quantization_config: Option<Quantization>,
    #[serde(default)]
    eos_token_id: Option<Tokens>,
}

#[derive(Deserialize)]
struct Quantization {
    #[serde(default)]
    quant_method: Option<String>,
}

/// A token or several, as in `eos_token_id`.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Tokens {
    One(u32),
    Several(Vec<u32>),
}

impl Tokens {
    pub(crate) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(token) => vec![token],
            Self::Several(tokens) => tokens,
        }
    }
}

#[derive(Deserialize)]
struct ConfigFields {
    model_type: String,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f32>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    rope_theta: Option<f32>,
    rope_local_base_freq: Option<f32>,
    rope_scaling: Option<RopeFields>,
    rope_parameters: Option<RopeParameters>,
    partial_rotary_factor: Option<f32>,
    use_sliding_window: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    sliding_window: Option<Option<usize>>,
    sliding_window_pattern: Option<usize>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    query_pre_attn_scalar: Option<f32>,
    #[serde(default, deserialize_with = "given")]
    attn_logit_softcapping: Option<Option<f32>>,
    #[serde(default, deserialize_with = "given")]
    final_logit_softcapping: Option<Option<f32>>,
    use_bidirectional_attention: Option<bool>,
}

/// Tells a field that is `null` from one that is left out.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Clone, Default, Deserialize)]
struct RopeFields {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f32>,
}

/// The newer spelling of rotary settings: for all layers, or for each kind of layer.
#[derive(Deserialize)]
struct RopeParameters {
    full_attention: Option<RopeFields>,
    sliding_attention: Option<RopeFields>,
    #[serde(flatten)]
    all: RopeFields,
}

impl ModelJson {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`LoadError`] if it cannot be read, or is of a model that is not supported.
    pub(crate) fn read(path: &Path, text: &[u8]) -> Result<Self, LoadError> {
        let outer: Outer = json::parse_json(path, text)?;
        let mut model = json::parse_json::<Value>(path, text)?;
        if outer.model_type == "gemma3" {
            model = model["text_config"].take();
        }
        let Some(architecture) = architecture(model["model_type"].as_str().unwrap_or_default())
        else {
            return Err(LoadError::Architecture { architecture: outer.model_type });
        };
        outer.refuse_unsupported()?;
        let fields = ConfigFields::deserialize(model).map_err(json::json_error(path))?;
        fields.refuse_unsupported(architecture)?;
        let config = fields.config(architecture)?;
        let tied = fields.tie_word_embeddings.unwrap_or(architecture.is_gemma());
        let end_tokens = outer.eos_token_id.map(Tokens::into_vec).unwrap_or_default();
        Ok(Self { config, tied, end_tokens })
    }
}

/// Returns the architecture that `model_type` names.
fn architecture(model_type: &str) -> Option<Architecture> {
    Some(match model_type {
        "llama" | "mistral" => Architecture::Llama,
        "qwen2" => Architecture::Qwen2,
        "qwen3" => Architecture::Qwen3,
        "gemma" => Architecture::Gemma,
        "gemma2" => Architecture::Gemma2,
        "gemma3_text" => Architecture::Gemma3,
        _ => return None,
    })
}

fn unsupported<T>(feature: impl Into<String>) -> Result<T, LoadError> {
    Err(LoadError::Unsupported { feature: feature.into() })
}

impl Outer {
    fn refuse_unsupported(&self) -> Result<(), LoadError> {
        if let Some(Quantization { quant_method }) = &self.quantization_config {
            let method = quant_method.as_deref().unwrap_or("a method that it does not name");
            return unsupported(format!("weights in safetensors quantised by {method}"));
        }
        let mut names = self.architectures.iter().flatten();
        match names.find(|name| name.ends_with("Classification")) {
            Some(name) => unsupported(format!("the head of a {name}")),
            None => Ok(()),
        }
    }
}

impl ConfigFields {
    fn refuse_unsupported(&self, architecture: Architecture) -> Result<(), LoadError> {
        let gemma = architecture.is_gemma();
        let known: &[&str] = match gemma {
            // The releases say gelu and mean its approximation.
            true => &["gelu", "gelu_pytorch_tanh"],
            false => &["silu", "swish"],
        };
        let activation = self.hidden_activation.as_ref().or(self.hidden_act.as_ref());
        if let Some(activation) = activation.filter(|name| !known.contains(&name.as_str())) {
            return unsupported(format!("the activation {activation:?}"));
        }
        let biases = [("attention_bias", self.attention_bias), ("mlp_bias", self.mlp_bias)];
        if let Some((name, _)) = biases.into_iter().find(|(_, bias)| *bias == Some(true)) {
            return unsupported(name);
        }
        if self.use_bidirectional_attention == Some(true) {
            return unsupported("attention to later tokens");
        }
        Ok(())
    }

    fn config(&self, architecture: Architecture) -> Result<Config, LoadError> {
        let sizes = self.sizes(architecture)?;
        let mut config = Config::new(architecture, sizes);
        config.norm_eps = self.rms_norm_eps.unwrap_or(config.norm_eps);
        config.window = self.window(architecture, sizes.layers)?;
        self.set_ropes(architecture, sizes, &mut config)?;
        if matches!(architecture, Architecture::Gemma2 | Architecture::Gemma3) {
            config.attention_scale = 1.0 / self.query_pre_attn_scalar.unwrap_or(256.0).sqrt();
            let second = architecture == Architecture::Gemma2;
            let cap =
                |given: Option<Option<f32>>, default| given.unwrap_or(second.then_some(default));
            config.attention_cap = cap(self.attn_logit_softcapping, 50.0);
            config.logit_cap = cap(self.final_logit_softcapping, 30.0);
        }
        config.checked()
    }

    fn sizes(&self, architecture: Architecture) -> Result<DecoderSizes, LoadError> {
        use Architecture::{Gemma, Gemma2, Gemma3, Qwen3};
        let size = |key: &str, value: Option<usize>, default: Option<usize>, max: usize| {
            let wrong = |what| LoadError::Metadata { key: key.to_owned(), what };
            let value = value.or(default).ok_or_else(|| wrong("is missing".to_owned()))?;
            match (1..=max).contains(&value) {
                true => Ok(value),
                false => Err(wrong(format!("is {value}, outside 1 to {max}"))),
            }
        };
        // A text model inside another model leaves out fields that are as in the 4B model.
        let gemma3 = |value: usize| (architecture == Gemma3).then_some(value);
        let hidden = size("hidden_size", self.hidden_size, gemma3(2304), 1 << 16)?;
        let heads = size("num_attention_heads", self.num_attention_heads, gemma3(8), 1 << 10)?;
        let head_dim = match architecture {
            Gemma | Gemma2 | Gemma3 => 256,
            Qwen3 => 128,
            _ => hidden / heads,
        };
        let kv_heads = match (architecture, self.model_type.as_str()) {
            (Gemma2 | Gemma3, _) => 4,
            (_, "mistral") => 8,
            _ => heads,
        };
        let context = if architecture == Gemma3 { 131_072 } else { 2048 };
        let layers = self.num_hidden_layers;
        Ok(DecoderSizes {
            layers: size("num_hidden_layers", layers, gemma3(26), 1 << 10)?,
            hidden,
            feed_forward: size("intermediate_size", self.intermediate_size, gemma3(9216), 1 << 20)?,
            heads,
            kv_heads: size(
                "num_key_value_heads",
                self.num_key_value_heads,
                Some(kv_heads),
                1 << 10,
            )?,
            head_dim: size("head_dim", self.head_dim, Some(head_dim), 1 << 12)?,
            vocabulary: size("vocab_size", self.vocab_size, gemma3(262_208), 1 << 24)?,
            context: size(
                "max_position_embeddings",
                self.max_position_embeddings,
                Some(context),
                1 << 24,
            )?,
        })
    }

    fn window(
        &self,
        architecture: Architecture,
        layers: usize,
    ) -> Result<Option<Window>, LoadError> {
        use Architecture::{Gemma2, Gemma3, Qwen2, Qwen3};
        let qwen = matches!(architecture, Qwen2 | Qwen3);
        let windowed = match architecture {
            Gemma2 | Gemma3 => true,
            Qwen2 | Qwen3 => self.use_sliding_window == Some(true),
            _ => self.model_type == "mistral",
        };
        let positions = self.sliding_window.unwrap_or(Some(4096));
        let Some(positions) = positions.filter(|_| windowed) else {
            return Ok(None);
        };
        if let Some(types) = &self.layer_types {
            let local = types.iter().map(|kind| match kind.as_str() {
                "sliding_attention" => Ok(true),
                "full_attention" => Ok(false),
                _ => unsupported(format!("layers of type {kind:?}")),
            });
            let local = local.collect::<Result<Vec<_>, _>>()?;
            return Ok(Some(Window { positions, local }));
        }
        if qwen {
            let first = self.max_window_layers.unwrap_or(28);
            let local: Vec<bool> = (0..layers).map(|layer| layer >= first).collect();
            return Ok(local.contains(&true).then_some(Window { positions, local }));
        }
        let period = match architecture {
            Gemma2 => 2,
            Gemma3 => self.sliding_window_pattern.unwrap_or(6).max(1),
            _ => return Ok(Some(Window { positions, local: vec![true; layers] })),
        };
        Ok(Some(Window::periodic(positions, period, layers)))
    }

    fn set_ropes(
        &self,
        architecture: Architecture,
        sizes: DecoderSizes,
        config: &mut Config,
    ) -> Result<(), LoadError> {
        let base = RopeFields { rope_theta: self.rope_theta, ..RopeFields::default() };
        let older = base.or(self.rope_scaling.clone().unwrap_or_default());
        let context = self.max_position_embeddings;
        let parameters = self.rope_parameters.as_ref();
        let of_all = parameters.map(|parameters| parameters.all.clone()).unwrap_or_default();
        let global = parameters.and_then(|parameters| parameters.full_attention.clone());
        let global = global.unwrap_or_default().or(of_all).or(older);
        let partial = self.partial_rotary_factor.or(global.partial_rotary_factor);
        if partial.is_some_and(|share| share != 1.0) {
            return unsupported("RoPE on a part of each head");
        }
        let gemma3 = architecture == Architecture::Gemma3;
        let base = if gemma3 { 1_000_000.0 } else { 10_000.0 };
        config.rope = global.rope(base, sizes.head_dim, context)?;
        config.local_rope = config.rope.clone();
        if gemma3 {
            let local = parameters.and_then(|parameters| parameters.sliding_attention.clone());
            let base = self.rope_local_base_freq.unwrap_or(10_000.0);
            config.local_rope = local.unwrap_or_default().rope(base, sizes.head_dim, context)?;
        }
        Ok(())
    }
}

impl RopeFields {
    /// Fills the missing fields from `other`.
    fn or(self, other: Self) -> Self {
        Self {
            rope_type: self.rope_type.or(other.rope_type),
            rope_theta: self.rope_theta.or(other.rope_theta),
            factor: self.factor.or(other.factor),
            low_freq_factor: self.low_freq_factor.or(other.low_freq_factor),
            high_freq_factor: self.high_freq_factor.or(other.high_freq_factor),
            original_max_position_embeddings: self
                .original_max_position_embeddings
                .or(other.original_max_position_embeddings),
            partial_rotary_factor: self.partial_rotary_factor.or(other.partial_rotary_factor),
        }
    }

    fn rope(&self, base: f32, head_dim: usize, context: Option<usize>) -> Result<Rope, LoadError> {
        let base = self.rope_theta.unwrap_or(base);
        let needed = |key: &str, value: Option<f32>| {
            let what = "of the RoPE scaling is missing".to_owned();
            value.ok_or_else(|| LoadError::Metadata { key: key.to_owned(), what })
        };
        match self.rope_type.as_deref() {
            None | Some("default") => Ok(Rope::new(base)),
            Some("linear") => {
                let scaling = Scaling::Linear(needed("factor", self.factor)?);
                Ok(Rope { base, scaling })
            }
            Some("llama3") => {
                let context = self.original_max_position_embeddings.or(context);
                let scaling = Llama3Scaling {
                    factor: needed("factor", self.factor)?,
                    low_freq_factor: needed("low_freq_factor", self.low_freq_factor)?,
                    high_freq_factor: needed("high_freq_factor", self.high_freq_factor)?,
                    original_context: context.unwrap_or(2048),
                };
                Ok(Rope::llama3(base, head_dim, scaling))
            }
            Some(other) => unsupported(format!("RoPE scaling of type {other:?}")),
        }
    }
}
