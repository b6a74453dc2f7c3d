//! The configuration of a decoder: sizes, rotary positions, windows, caps.
//!
//! In: an architecture and sizes, or what a file states. Out: checked settings and their canonical text
//! for digests. It does not know files or weights.

use std::fmt;
use std::str::FromStr;

use hyperrag_core::{KvDtype, KvShape, ModelError, QuerySuffix};
use hyperrag_kernels::activation::Activation;

use crate::arch::mixed::{HeadSizes, MixedLayers};
use crate::arch::refused::refused;
use crate::arch::rope::Rope;
use crate::error::LoadError;

/// Largest number of positions in use, whatever the file promises: the rotary table has an entry for
/// each.
const CONTEXT_MAX: usize = 1 << 15;

/// A supported kind of decoder. All are one decoder with different settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama, Mistral, SmolLM2.
    Llama,
    /// Qwen 2 and 2.5: biases of Q, K and V.
    Qwen2,
    /// Qwen 3: norms of the heads of Q and K.
    Qwen3,
    /// Gemma: GELU, scaled embeddings.
    Gemma,
    /// Gemma 2: soft caps, windows on every other layer, norms behind the sublayers.
    Gemma2,
    /// Gemma 3's text model: windows on five of six layers, with rotary angles of their own.
    Gemma3,
    /// Gemma 4's text models: layers of two sizes, some of which read K and V of earlier ones, and inputs
    /// of tokens to each layer.
    Gemma4,
    /// SmolLM 3: every fourth layer has no rotary positions.
    SmolLm3,
    /// Granite 3, and Granite 4 where all layers attend: factors of embeddings, sums and logits.
    Granite,
    /// OLMo 2 and 3: norms behind the sublayers alone, and norms of whole rows of Q and K.
    Olmo2,
    /// Phi-3 and Phi-4-mini: fused tensors, rotary positions on a part of each head.
    Phi3,
}

impl Architecture {
    /// All architectures.
    pub const ALL: [Self; 11] = [
        Self::Llama,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma,
        Self::Gemma2,
        Self::Gemma3,
        Self::Gemma4,
        Self::SmolLm3,
        Self::Granite,
        Self::Olmo2,
        Self::Phi3,
    ];

    /// Returns the architecture's name in a GGUF file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma => "gemma",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
            Self::Gemma4 => "gemma4",
            Self::SmolLm3 => "smollm3",
            Self::Granite => "granite",
            Self::Olmo2 => "olmo2",
            Self::Phi3 => "phi3",
        }
    }

    pub(crate) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma | Self::Gemma2 | Self::Gemma3 | Self::Gemma4)
    }

    /// Whether norms in a folder multiply by one more than their weights.
    pub(crate) fn adds_one_to_norms(self) -> bool {
        self.is_gemma() && self != Self::Gemma4
    }

    /// Whether a GGUF has the rows of Q and K in the order in which neighbours rotate together.
    pub(crate) fn pairs_neighbours_in_gguf(self) -> bool {
        matches!(self, Self::Llama | Self::SmolLm3 | Self::Granite)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Architecture {
    type Err = LoadError;

    fn from_str(name: &str) -> Result<Self, LoadError> {
        let named = Self::ALL.into_iter().find(|architecture| architecture.name() == name);
        named.ok_or_else(|| refused(name))
    }
}

/// Norms of Q and K before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Q and K stay as they are.
    None,
    /// Norms of each head, with the same weights.
    Heads,
    /// Norms of all heads of Q together, and of all of K.
    Rows,
}

/// Positions that each layer sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Positions that a local layer sees, including the row's own.
    pub positions: usize,
    /// Whether each layer is local; the others see all positions before a row.
    pub local: Vec<bool>,
}

impl Window {
    /// Makes all layers local but the last one of every `period` layers.
    #[must_use]
    pub fn periodic(positions: usize, period: usize, layers: usize) -> Self {
        let local = (0..layers).map(|layer| layer % period + 1 < period);
        Self { positions, local: local.collect() }
    }
}

/// The sizes of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderSizes {
    /// Number of decoder layers.
    pub layers: usize,
    /// Dimensions of the hidden state.
    pub hidden: usize,
    /// Inner dimensions of the feed-forward part.
    pub feed_forward: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of KV heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Dimensions of one head.
    pub head_dim: usize,
    /// Number of token ids.
    pub vocabulary: usize,
    /// Number of positions for which the model was trained.
    pub context: usize,
}

/// The settings of a decoder, as the metadata of its file state them.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Architecture, whose settings the fields below spell out.
    pub architecture: Architecture,
    /// Number of decoder layers.
    pub layers: usize,
    /// Dimensions of the hidden state.
    pub hidden: usize,
    /// Inner dimensions of the feed-forward part.
    pub feed_forward: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of KV heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Dimensions of one head.
    pub head_dim: usize,
    /// Number of token ids.
    pub vocabulary: usize,
    /// Number of positions in use: those of the training, up to a bound.
    pub context: usize,
    /// Number added to the mean square in every norm.
    pub norm_eps: f32,
    /// Rotary positions.
    pub rope: Rope,
    /// Rotary positions of local layers.
    pub local_rope: Rope,
    /// Number of dimensions of a head that rotate: the first ones.
    pub rotary_dim: usize,
    /// Whether each layer rotates Q and K by their positions; `None` if all do.
    pub rotary_layers: Option<Vec<bool>>,
    /// Window of the layers that see only the latest positions, if there are any.
    pub window: Option<Window>,
    /// Factor of the embeddings.
    pub embedding_scale: f32,
    /// Factor of what a sublayer adds to the residual.
    pub residual_scale: f32,
    /// Factor of the logits, before their cap.
    pub logit_scale: f32,
    /// Factor of the products of Q and K.
    pub attention_scale: f32,
    /// Soft cap of the scores of attention.
    pub attention_cap: Option<f32>,
    /// Soft cap of the logits.
    pub logit_cap: Option<f32>,
    /// Activation of the gates.
    pub activation: Activation,
    /// Whether Q, K and V have biases.
    pub qkv_bias: bool,
    /// Norms of Q and K.
    pub qk_norm: QkNorm,
    /// Whether the inputs of attention and of the feed-forward part are normed.
    pub pre_norms: bool,
    /// Whether the outputs of attention and of the feed-forward part are normed before they are added.
    pub post_norms: bool,
    /// Settings of layers that differ in more than what they see; `None` if they do not.
    pub mixed: Option<MixedLayers>,
}

impl Config {
    /// Returns a decoder of these sizes with the defaults of its architecture. Windows, caps and bases
    /// of rotary angles must come from the file.
    #[must_use]
    pub fn new(architecture: Architecture, sizes: DecoderSizes) -> Self {
        use Architecture::{Gemma2, Gemma3, Gemma4, Olmo2, Qwen2, Qwen3};
        let DecoderSizes { layers, hidden, feed_forward, heads, kv_heads, .. } = sizes;
        let gemma = architecture.is_gemma();
        Self {
            architecture,
            layers,
            hidden,
            feed_forward,
            heads,
            kv_heads,
            head_dim: sizes.head_dim,
            vocabulary: sizes.vocabulary,
            context: sizes.context.min(CONTEXT_MAX),
            norm_eps: 1e-6,
            rope: Rope::new(10_000.0),
            local_rope: Rope::new(10_000.0),
            rotary_dim: sizes.head_dim,
            rotary_layers: None,
            window: None,
            embedding_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
            residual_scale: 1.0,
            logit_scale: 1.0,
            attention_scale: match architecture {
                Gemma4 => 1.0,
                _ => 1.0 / (sizes.head_dim as f32).sqrt(),
            },
            attention_cap: None,
            logit_cap: None,
            activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
            qkv_bias: architecture == Qwen2,
            qk_norm: match architecture {
                Qwen3 | Gemma3 | Gemma4 => QkNorm::Heads,
                Olmo2 => QkNorm::Rows,
                _ => QkNorm::None,
            },
            pre_norms: architecture != Olmo2,
            post_norms: matches!(architecture, Gemma2 | Gemma3 | Gemma4 | Olmo2),
            mixed: None,
        }
    }

    /// Checks that the decoder can be computed.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`], which names the unsupported feature.
    pub fn checked(self) -> Result<Self, LoadError> {
        let unsupported = |feature| Err(LoadError::Unsupported { feature });
        let Self { heads, kv_heads, head_dim, .. } = self;
        if !heads.is_multiple_of(kv_heads) || !head_dim.is_multiple_of(2) {
            return unsupported(format!(
                "{heads} query heads over {kv_heads} KV heads of {head_dim} dimensions"
            ));
        }
        if !(2..=head_dim).contains(&self.rotary_dim) || !self.rotary_dim.is_multiple_of(2) {
            let rotary = self.rotary_dim;
            return unsupported(format!("RoPE on {rotary} of {head_dim} dimensions"));
        }
        if self.rotary_layers.as_ref().is_some_and(|layers| layers.len() != self.layers) {
            return unsupported("RoPE on layers that it does not have".to_owned());
        }
        let window = self.window.as_ref();
        if window.is_some_and(|w| w.positions == 0 || w.local.len() != self.layers) {
            return unsupported("a window that is not one of its layers'".to_owned());
        }
        let positive = |value: f32| value.is_finite() && value > 0.0;
        let caps = [self.attention_cap, self.logit_cap];
        let scales =
            [self.embedding_scale, self.attention_scale, self.residual_scale, self.logit_scale];
        self.check_mixed()?;
        let rotary = |local| (self.rope_of(local), self.rotary_dim_of_kind(local));
        let ropes = [false, true].map(rotary);
        if !scales.into_iter().chain(caps.into_iter().flatten()).all(positive)
            || !ropes
                .iter()
                .all(|(rope, dim)| rope.numbers(*dim).is_some_and(|mut all| all.all(positive)))
        {
            return unsupported(
                "a scale, a soft cap or a number of RoPE that is not above 0".to_owned(),
            );
        }
        Ok(self)
    }

    /// Returns the number of positions that a layer sees, including the row's own; `None` for all.
    pub(crate) fn window_of(&self, layer: usize) -> Option<usize> {
        let window = self.window.as_ref()?;
        window.local[layer].then_some(window.positions)
    }

    /// Returns the sizes of a block whose K and V are of type `kv_dtype`. Where layers differ, a layer of
    /// the block is a part of K and V of one of the decoder's layers.
    ///
    /// # Panics
    /// If a size is beyond `u32`, which no file's metadata may have.
    #[must_use]
    pub fn kv_shape(&self, kv_dtype: KvDtype) -> KvShape {
        let size = |n: usize| u32::try_from(n).expect("the configuration bounds every size");
        let HeadSizes { kv_heads, head_dim } = self.slot();
        KvShape {
            layers: size(self.slot_count()),
            kv_heads: size(kv_heads),
            head_dim: size(head_dim),
            hidden: size(self.hidden),
            kv_dtype,
        }
    }

    /// Whether a layer rotates Q and K by their positions.
    pub(crate) fn rotates(&self, layer: usize) -> bool {
        self.rotary_layers.as_ref().is_none_or(|layers| layers[layer])
    }

    /// Returns the rotary positions of layers that are local or not.
    pub(crate) fn rope_of(&self, local: bool) -> &Rope {
        if local { &self.local_rope } else { &self.rope }
    }

    /// Returns the factor of the rotated dimensions of Q. K is not multiplied, so what Q and K have
    /// together is here.
    pub(crate) fn query_factor(&self, layer: usize) -> f32 {
        match self.rotates(layer) {
            true => self.rope_of(self.window_of(layer).is_some()).attention_factor.powi(2),
            false => 1.0,
        }
    }

    /// Writes everything on which blocks and scores depend, one setting a line. Numbers are given by
    /// their bits, which no formatting rounds.
    pub(crate) fn canonical_text(&self) -> String {
        let Self { architecture, layers, hidden, feed_forward, heads, kv_heads, .. } = self;
        let Self { head_dim, vocabulary, norm_eps, rope, local_rope, window, .. } = self;
        let Self { embedding_scale, attention_scale, attention_cap, logit_cap, .. } = self;
        // The number of positions in use changes no block and no score.
        let Self { activation, qkv_bias, qk_norm, post_norms, context: _, .. } = self;
        let qk_norm = match qk_norm {
            QkNorm::None => "false",
            QkNorm::Heads => "true",
            QkNorm::Rows => "rows",
        };
        let bits = |value: &f32| format!("{:08x}", value.to_bits());
        let cap = |cap: &Option<f32>| cap.as_ref().map_or("none".to_owned(), bits);
        let window = window.as_ref().map_or("none".to_owned(), |Window { positions, local }| {
            let local: String = local.iter().map(|local| if *local { 'l' } else { 'g' }).collect();
            format!("{positions} {local} {}", local_rope.canonical_text())
        });
        let activation = match activation {
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu-tanh",
        };
        let fields = [
            ("architecture", architecture.to_string()),
            ("layers", layers.to_string()),
            ("hidden", hidden.to_string()),
            ("feed_forward", feed_forward.to_string()),
            ("heads", heads.to_string()),
            ("kv_heads", kv_heads.to_string()),
            ("head_dim", head_dim.to_string()),
            ("vocabulary", vocabulary.to_string()),
            ("norm_eps", bits(norm_eps)),
            ("rope", rope.canonical_text()),
            ("window", window),
            ("embedding_scale", bits(embedding_scale)),
            ("attention_scale", bits(attention_scale)),
            ("attention_cap", cap(attention_cap)),
            ("logit_cap", cap(logit_cap)),
            ("activation", activation.to_owned()),
            ("qkv_bias", qkv_bias.to_string()),
            ("qk_norm", qk_norm.to_owned()),
            ("post_norms", post_norms.to_string()),
        ];
        let fields = fields.into_iter().chain(self.newer_settings());
        fields.map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    /// Lists the settings that only newer architectures have, where they differ from what all others
    /// do: the text of the others stays as it is.
    fn newer_settings(&self) -> impl Iterator<Item = (&'static str, String)> {
        let Self { head_dim, rotary_dim, residual_scale, logit_scale, pre_norms, .. } = self;
        let bits = |value: f32| format!("{:08x}", value.to_bits());
        let layers = self.rotary_layers.as_deref().map(flags).unwrap_or_default();
        let mixed = self.mixed.map(|mixed| mixed.to_string()).unwrap_or_default();
        let settings = [
            ("rotary_dim", rotary_dim.to_string(), rotary_dim == head_dim),
            ("rotary_layers", layers, self.rotary_layers.is_none()),
            ("residual_scale", bits(*residual_scale), *residual_scale == 1.0),
            ("logit_scale", bits(*logit_scale), *logit_scale == 1.0),
            ("pre_norms", pre_norms.to_string(), *pre_norms),
            ("mixed", mixed, self.mixed.is_none()),
        ];
        settings.into_iter().filter(|(.., usual)| !usual).map(|(name, value, _)| (name, value))
    }

    /// Checks that `tokens` can stand after `past` positions. `what` names them in an error.
    pub(crate) fn check(
        &self,
        tokens: &[u32],
        past: usize,
        what: impl Fn() -> String,
    ) -> Result<(), ModelError> {
        if tokens.is_empty() {
            return Err(ModelError::Empty { what: what() });
        }
        let (positions, max) = (past + tokens.len(), self.context);
        if positions > max {
            return Err(ModelError::TooLong { what: what(), tokens: positions, max });
        }
        let vocabulary = self.vocabulary;
        match tokens.iter().find(|token| **token as usize >= vocabulary) {
            Some(token) => {
                Err(ModelError::UnknownToken { what: what(), token: *token, vocabulary })
            }
            None => Ok(()),
        }
    }

    /// Checks that the query and the labels of its scorer can stand after `past` positions.
    pub(crate) fn check_query(&self, query: &QuerySuffix, past: usize) -> Result<(), ModelError> {
        self.check(&query.tokens, past, || "the query".to_owned())?;
        match query.scorer.labels() {
            labels if labels.is_empty() => Ok(()),
            labels => self.check(&labels, 0, || "the scorer".to_owned()),
        }
    }

    /// Describes the rotary positions and all other settings of attention scores, for the fingerprint.
    #[must_use]
    pub fn rope(&self) -> String {
        let mut text = format!("interleaved, {}", self.rope);
        if let Some(Window { positions, local }) = &self.window {
            let local: String = local.iter().map(|local| if *local { 'l' } else { 'g' }).collect();
            text += &format!(", window {positions} ({}) on {local}", self.local_rope);
        }
        if self.attention_scale != 1.0 / (self.head_dim as f32).sqrt() {
            text += &format!(", scores times {}", self.attention_scale);
        }
        let caps = [("scores", self.attention_cap), ("logits", self.logit_cap)];
        for (what, cap) in caps.into_iter().filter_map(|(what, cap)| Some((what, cap?))) {
            text += &format!(", {what} capped at {cap}");
        }
        if self.embedding_scale != 1.0 && !self.architecture.is_gemma() {
            text += &format!(", embeddings times {}", self.embedding_scale);
        }
        for (name, value) in self.newer_settings() {
            text += &format!(", {name} {value}");
        }
        text
    }
}

/// Writes a digit for each layer.
fn flags(layers: &[bool]) -> String {
    layers.iter().map(|layer| if *layer { '1' } else { '0' }).collect()
}
