//! Turns a `config.json`, as transformers writes it, into a [`Config`]. Missing fields take
//! transformers' defaults. It does not know weights.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::arch::config::{Architecture, Config, DecoderSizes, Window};
use crate::arch::refused::refused;
use crate::error::LoadError;
use crate::format::gemma4_json::Gemma4Fields;
use crate::format::json;
use crate::format::rope_json::{RopeFields, RopeParameters};

/// The contents of a `config.json` on which the decoder and the names of its tensors depend.
pub(crate) struct ModelJson {
    pub(crate) config: Config,
    /// Whether the embedding serves as head.
    pub(crate) tied: bool,
    pub(crate) end_tokens: Vec<u32>,
    /// Whether the feed-forward part has the names of experts that all tokens share.
    pub(crate) is_shared_mlp: bool,
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
    use_bidirectional_attention: Option<Value>,
    no_rope_layers: Option<Vec<u8>>,
    no_rope_layer_interval: Option<usize>,
    embedding_multiplier: Option<f32>,
    attention_multiplier: Option<f32>,
    residual_multiplier: Option<f32>,
    logits_scaling: Option<f32>,
    original_max_position_embeddings: Option<usize>,
    num_local_experts: Option<usize>,
    shared_intermediate_size: Option<usize>,
    position_embedding_type: Option<String>,
}

/// The model type of Granite 4, whose layers may all be plain ones.
const GRANITE4: &str = "granitemoehybrid";
/// Numbers that the released configurations of two architectures leave out.
const SMOLLM3_BASE: f32 = 2_000_000.0;
const OLMO3_BASE: f32 = 500_000.0;

/// Tells a field that is `null` from one that is left out.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl ModelJson {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`LoadError`] if it cannot be read, or is of a model that is not supported.
    pub(crate) fn read(path: &Path, text: &[u8]) -> Result<Self, LoadError> {
        let outer: Outer = json::parse_json(path, text)?;
        let mut model = json::parse_json::<Value>(path, text)?;
        if ["gemma3", "gemma4"].contains(&outer.model_type.as_str()) {
            model = model["text_config"].take();
        }
        let Some(architecture) = architecture(model["model_type"].as_str().unwrap_or_default())
        else {
            return Err(refused(&outer.model_type));
        };
        outer.refuse_unsupported()?;
        let gemma4 = (architecture == Architecture::Gemma4)
            .then(|| Gemma4Fields::deserialize(&model).map_err(json::json_error(path)));
        let fields = ConfigFields::deserialize(model).map_err(json::json_error(path))?;
        fields.refuse_unsupported(architecture)?;
        let mut config = fields.config(architecture)?;
        if let Some(gemma4) = gemma4.transpose()? {
            gemma4.set(&mut config)?;
            config = config.checked()?;
        }
        let tied = architecture.is_gemma() || architecture == Architecture::SmolLm3;
        let tied = fields.tie_word_embeddings.unwrap_or(tied);
        let is_shared_mlp = fields.model_type == GRANITE4;
        let end_tokens = outer.eos_token_id.map(Tokens::into_vec).unwrap_or_default();
        Ok(Self { config, tied, end_tokens, is_shared_mlp })
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
        "gemma4_text" => Architecture::Gemma4,
        "smollm3" => Architecture::SmolLm3,
        "granite" | GRANITE4 => Architecture::Granite,
        "olmo2" | "olmo3" => Architecture::Olmo2,
        "phi3" => Architecture::Phi3,
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
        // Images alone are read at once where it is "vision".
        let both_ways = self.use_bidirectional_attention.as_ref();
        if both_ways.is_some_and(|value| *value == true || *value == "all") {
            return unsupported("attention to later tokens");
        }
        if self.model_type == GRANITE4 {
            let attends = |kind: &String| ["attention", "full_attention"].contains(&kind.as_str());
            if !self.layer_types.as_ref().is_some_and(|types| types.iter().all(attends)) {
                return Err(refused(GRANITE4));
            }
            if self.num_local_experts != Some(0) {
                return Err(refused("granitemoe"));
            }
        }
        Ok(())
    }

    fn config(&self, architecture: Architecture) -> Result<Config, LoadError> {
        let sizes = self.sizes(architecture)?;
        let mut config = Config::new(architecture, sizes);
        config.norm_eps = self.rms_norm_eps.unwrap_or(config.norm_eps);
        if architecture == Architecture::Gemma4 {
            config.logit_cap = self.final_logit_softcapping.flatten();
            return Ok(config);
        }
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
        self.set_newer(architecture, &mut config)?;
        config.checked()
    }

    /// Sets what only newer architectures have.
    fn set_newer(&self, architecture: Architecture, config: &mut Config) -> Result<(), LoadError> {
        let layers = config.layers;
        match architecture {
            Architecture::SmolLm3 => {
                let interval = self.no_rope_layer_interval.unwrap_or(4);
                let rotates = match &self.no_rope_layers {
                    Some(rotates) => rotates.iter().map(|rotates| *rotates != 0).collect(),
                    None if interval == 0 => return unsupported("no_rope_layer_interval 0"),
                    None => (0..layers).map(|i| !(i + 1).is_multiple_of(interval)).collect(),
                };
                config.rotary_layers = Some(rotates);
            }
            Architecture::Granite => {
                config.embedding_scale = self.embedding_multiplier.unwrap_or(1.0);
                config.attention_scale = self.attention_multiplier.unwrap_or(1.0);
                config.residual_scale = self.residual_multiplier.unwrap_or(1.0);
                config.logit_scale = 1.0 / self.logits_scaling.unwrap_or(1.0);
                let rotates = self.position_embedding_type.as_deref() == Some("rope");
                if self.model_type == GRANITE4 && !rotates {
                    config.rotary_layers = Some(vec![false; layers]);
                }
            }
            Architecture::Olmo2 | Architecture::Phi3 if self.rms_norm_eps.is_none() => {
                config.norm_eps = 1e-5;
            }
            _ => {}
        }
        Ok(())
    }

    fn sizes(&self, architecture: Architecture) -> Result<DecoderSizes, LoadError> {
        use Architecture::{Gemma, Gemma2, Gemma3, Gemma4, Qwen3};
        let size = |key: &str, value: Option<usize>, default: Option<usize>, max: usize| {
            let wrong = |what| LoadError::Metadata { key: key.to_owned(), what };
            let value = value.or(default).ok_or_else(|| wrong("is missing".to_owned()))?;
            match (1..=max).contains(&value) {
                true => Ok(value),
                false => Err(wrong(format!("is {value}, outside 1 to {max}"))),
            }
        };
        // A text model inside another model leaves out fields that have their defaults.
        let inner = |gemma3: usize, gemma4: usize| match architecture {
            Gemma3 => Some(gemma3),
            Gemma4 => Some(gemma4),
            _ => None,
        };
        let hidden = size("hidden_size", self.hidden_size, inner(2304, 2304), 1 << 16)?;
        let heads = size("num_attention_heads", self.num_attention_heads, inner(8, 8), 1 << 10)?;
        let head_dim = match architecture {
            Gemma | Gemma2 | Gemma3 | Gemma4 => 256,
            Qwen3 => 128,
            _ => hidden / heads,
        };
        let kv_heads = match (architecture, self.model_type.as_str()) {
            (Gemma2 | Gemma3 | Gemma4, _) => 4,
            (_, "mistral") => 8,
            _ => heads,
        };
        let context = inner(131_072, 131_072).unwrap_or(2048);
        let layers = self.num_hidden_layers;
        Ok(DecoderSizes {
            layers: size("num_hidden_layers", layers, inner(26, 30), 1 << 10)?,
            hidden,
            feed_forward: match self.model_type.as_str() {
                GRANITE4 => {
                    let wide = self.shared_intermediate_size;
                    size("shared_intermediate_size", wide, Some(1024), 1 << 20)?
                }
                _ => size("intermediate_size", self.intermediate_size, inner(9216, 9216), 1 << 20)?,
            },
            heads,
            kv_heads: size(
                "num_key_value_heads",
                self.num_key_value_heads,
                Some(kv_heads),
                1 << 10,
            )?,
            head_dim: size("head_dim", self.head_dim, Some(head_dim), 1 << 12)?,
            vocabulary: size("vocab_size", self.vocab_size, inner(262_208, 262_144), 1 << 24)?,
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
        use Architecture::{Gemma2, Gemma3, Phi3, Qwen2, Qwen3, SmolLm3};
        let qwen = matches!(architecture, Qwen2 | Qwen3);
        let windowed = match architecture {
            Gemma2 | Gemma3 => true,
            Qwen2 | Qwen3 | SmolLm3 => self.use_sliding_window == Some(true),
            Phi3 => self.sliding_window.is_some(),
            _ => ["mistral", "olmo3"].contains(&self.model_type.as_str()),
        };
        let positions = self.sliding_window.unwrap_or(Some(4096));
        let Some(positions) = positions.filter(|_| windowed) else {
            return Ok(None);
        };
        if let Some(types) = self.layer_types.as_ref().filter(|_| architecture != Phi3) {
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
            // Only some layers are local, and which is not stated.
            SmolLm3 => return unsupported("use_sliding_window without layer_types"),
            _ if self.model_type == "olmo3" => 4,
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
        use Architecture::{Gemma3, Phi3, SmolLm3};
        let base = RopeFields::base(self.rope_theta);
        let older = base.clone().or(self.rope_scaling.clone().unwrap_or_default());
        let context = self.max_position_embeddings;
        let parameters = self.rope_parameters.as_ref();
        let of_all = parameters.map(|parameters| parameters.all.clone()).unwrap_or_default();
        let global = parameters.and_then(|parameters| parameters.full_attention.clone());
        let mut global = global.unwrap_or_default().or(of_all).or(older);
        let partial = self.partial_rotary_factor.or(global.partial_rotary_factor);
        if architecture == Phi3 {
            let share = partial.unwrap_or(1.0);
            if !(0.0..=1.0).contains(&share) {
                return unsupported(format!("RoPE on {share} of each head"));
            }
            config.rotary_dim = (sizes.head_dim as f32 * share) as usize;
            // The outer one counts, as in transformers.
            let original = self.original_max_position_embeddings;
            let original = original.or(global.original_max_position_embeddings).unwrap_or(4096);
            global.original_max_position_embeddings = Some(original);
            if global.is_longrope() {
                config.context = config.context.min(original);
            }
        } else if partial.is_some_and(|share| share != 1.0) {
            return unsupported("RoPE on a part of each head");
        }
        let olmo3 = self.model_type == "olmo3";
        let usual = match architecture {
            Gemma3 => 1_000_000.0,
            SmolLm3 => SMOLLM3_BASE,
            _ if olmo3 => OLMO3_BASE,
            _ => 10_000.0,
        };
        if global.is_longrope() && architecture != Phi3 {
            return unsupported("RoPE scaling of type \"longrope\"");
        }
        config.rope = global.rope(usual, config.rotary_dim, context)?;
        config.local_rope = config.rope.clone();
        let local = parameters.and_then(|parameters| parameters.sliding_attention.clone());
        let local = local.unwrap_or_default();
        if architecture == Gemma3 {
            let usual = self.rope_local_base_freq.unwrap_or(10_000.0);
            config.local_rope = local.rope(usual, sizes.head_dim, context)?;
        } else if olmo3 {
            // The scaling is for layers that see everything.
            config.local_rope = local.or(base).rope(config.rope.base, sizes.head_dim, context)?;
        }
        Ok(())
    }
}
