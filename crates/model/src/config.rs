use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use hyperrag_kv::{Element, Geometry, ModelError, QueryPart};

use crate::LoadError;

/// Positions used at most, whatever the file promises: the rotary table has an entry for each.
const CONTEXT_MAX: usize = 1 << 15;

/// Sizes of a llama decoder, as its GGUF metadata states them.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Architecture, e.g. `llama`.
    pub architecture: String,
    /// Decoder layers.
    pub layers: usize,
    /// Dimensions of the hidden state.
    pub hidden: usize,
    /// Inner dimensions of the feed-forward part.
    pub feed_forward: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Dimensions of one head.
    pub head_dim: usize,
    /// Token ids.
    pub vocabulary: usize,
    /// Positions the model was trained for.
    pub context: usize,
    /// Base of the rotary angles.
    pub rope_base: f32,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
}

impl Config {
    pub(crate) fn from_metadata(metadata: &HashMap<String, Value>) -> Result<Self, LoadError> {
        let reader = Reader(metadata);
        let architecture = reader.text("general.architecture")?;
        if architecture != "llama" {
            return Err(LoadError::Architecture { architecture });
        }
        if let Some(Value::String(scaling)) = metadata.get("llama.rope.scaling.type")
            && scaling != "none"
        {
            let feature = format!("RoPE scaling of type {scaling:?}");
            return Err(LoadError::Unsupported { feature });
        }
        let hidden = reader.size("llama.embedding_length", 1 << 16)?;
        let heads = reader.size("llama.attention.head_count", 1 << 10)?;
        let head_dim = match metadata.get("llama.attention.key_length") {
            Some(_) => reader.size("llama.attention.key_length", 1 << 12)?,
            None => hidden / heads,
        };
        let config = Self {
            layers: reader.size("llama.block_count", 1 << 10)?,
            hidden,
            feed_forward: reader.size("llama.feed_forward_length", 1 << 20)?,
            heads,
            kv_heads: reader.size("llama.attention.head_count_kv", 1 << 10)?,
            head_dim,
            vocabulary: reader.array("tokenizer.ggml.tokens")?.len(),
            context: reader.size("llama.context_length", 1 << 24)?.min(CONTEXT_MAX),
            rope_base: reader.float("llama.rope.freq_base").unwrap_or(10_000.0),
            norm_eps: reader.float("llama.attention.layer_norm_rms_epsilon")?,
            architecture,
        };
        if !config.heads.is_multiple_of(config.kv_heads) || !config.head_dim.is_multiple_of(2) {
            let feature = format!(
                "{} query heads over {} KV heads of {} dimensions",
                config.heads, config.kv_heads, config.head_dim
            );
            return Err(LoadError::Unsupported { feature });
        }
        if let Ok(rotated) = reader.size("llama.rope.dimension_count", 1 << 12)
            && rotated != config.head_dim
        {
            let feature = format!("RoPE on {rotated} of {} dimensions", config.head_dim);
            return Err(LoadError::Unsupported { feature });
        }
        Ok(config)
    }

    /// Sizes of a block whose K and V are of type `element`.
    ///
    /// # Panics
    /// For sizes beyond `u32`, which no file's metadata are let to have.
    #[must_use]
    pub fn geometry(&self, element: Element) -> Geometry {
        let size = |n: usize| u32::try_from(n).expect("the configuration bounds every size");
        Geometry {
            layers: size(self.layers),
            kv_heads: size(self.kv_heads),
            head_dim: size(self.head_dim),
            hidden: size(self.hidden),
            element,
        }
    }

    /// Cosine and sine of position times frequency, `[position][head_dim / 2]` (RoFormer, arXiv
    /// 2104.09864), by a library whose bits do not depend on the platform.
    pub(crate) fn rotations(&self) -> Vec<(f32, f32)> {
        let half = self.head_dim / 2;
        let base = f64::from(self.rope_base);
        let frequencies: Vec<f64> =
            (0..half).map(|i| libm::pow(base, -(2.0 * i as f64) / self.head_dim as f64)).collect();
        let angles = (0..self.context).flat_map(|p| frequencies.iter().map(move |f| p as f64 * f));
        angles.map(|angle| (libm::cos(angle) as f32, libm::sin(angle) as f32)).collect()
    }

    /// Whether `tokens` can stand after `past` positions. `what` names them in an error.
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

    /// Whether the query, and the labels of its scorer, can stand after `past` positions.
    pub(crate) fn check_query(&self, query: &QueryPart, past: usize) -> Result<(), ModelError> {
        self.check(&query.tokens, past, || "the query".to_owned())?;
        match query.scorer.labels() {
            labels if labels.is_empty() => Ok(()),
            labels => self.check(&labels, 0, || "the scorer".to_owned()),
        }
    }

    /// Query heads that share one KV head.
    pub(crate) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// How positions turn K, for the fingerprint.
    #[must_use]
    pub fn rope(&self) -> String {
        format!("interleaved, base {}", self.rope_base)
    }
}

/// Looks up metadata by key, and says which key is missing or out of range.
pub(crate) struct Reader<'a>(pub(crate) &'a HashMap<String, Value>);

impl<'a> Reader<'a> {
    fn get(&self, key: &str) -> Result<&'a Value, LoadError> {
        self.0.get(key).ok_or_else(|| LoadError::Metadata {
            key: key.to_owned(),
            what: "is missing".to_owned(),
        })
    }

    fn wrong(key: &str, what: impl std::fmt::Display) -> LoadError {
        LoadError::Metadata { key: key.to_owned(), what: what.to_string() }
    }

    fn size(&self, key: &str, max: usize) -> Result<usize, LoadError> {
        let size = match self.get(key)? {
            Value::U32(n) => u64::from(*n),
            Value::U64(n) => *n,
            Value::I32(n) => u64::try_from(*n).unwrap_or(0),
            _ => return Err(Self::wrong(key, "is not a whole number")),
        };
        match usize::try_from(size) {
            Ok(size) if (1..=max).contains(&size) => Ok(size),
            _ => Err(Self::wrong(key, format_args!("is {size}, outside 1 to {max}"))),
        }
    }

    /// A token id, where there is one.
    pub(crate) fn token(&self, key: &str) -> Result<Option<u32>, LoadError> {
        let token = self.0.get(key).map(Value::to_u32).transpose();
        token.map_err(|_| Self::wrong(key, "is not a token id"))
    }

    fn float(&self, key: &str) -> Result<f32, LoadError> {
        self.get(key)?.to_f32().map_err(|_| Self::wrong(key, "is not an f32"))
    }

    pub(crate) fn text(&self, key: &str) -> Result<String, LoadError> {
        let text = self.get(key)?.to_string().map_err(|_| Self::wrong(key, "is not text"))?;
        Ok(text.clone())
    }

    pub(crate) fn array(&self, key: &str) -> Result<&'a [Value], LoadError> {
        let array = self.get(key)?.to_vec().map_err(|_| Self::wrong(key, "is not an array"))?;
        Ok(array)
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, LoadError> {
        let texts = self.array(key)?.iter().map(|value| value.to_string().cloned());
        texts
            .collect::<Result<_, _>>()
            .map_err(|_| Self::wrong(key, "holds a value that is not text"))
    }
}
