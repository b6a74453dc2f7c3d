//! The rotary settings of a `config.json`, in transformers' older and newer spellings.
//!
//! In: fields of the file. Out: a [`Rope`]. It does not know architectures.

use serde::Deserialize;

use crate::arch::rope::{Llama3Scaling, Rope, Scaling, YarnScaling};
use crate::error::LoadError;

#[derive(Clone, Default, Deserialize)]
pub(super) struct RopeFields {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    pub(super) rope_theta: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    pub(super) original_max_position_embeddings: Option<usize>,
    pub(super) partial_rotary_factor: Option<f32>,
    attention_factor: Option<f32>,
    beta_fast: Option<f32>,
    beta_slow: Option<f32>,
    mscale: Option<f32>,
    mscale_all_dim: Option<f32>,
    truncate: Option<bool>,
    short_factor: Option<Vec<f32>>,
}

/// The newer spelling of rotary settings: for all layers, or for each kind of layer.
#[derive(Deserialize)]
pub(super) struct RopeParameters {
    pub(super) full_attention: Option<RopeFields>,
    pub(super) sliding_attention: Option<RopeFields>,
    #[serde(flatten)]
    pub(super) all: RopeFields,
}

impl RopeFields {
    /// Returns the older spelling's base, which stands beside the scaling.
    pub(super) fn base(rope_theta: Option<f32>) -> Self {
        Self { rope_theta, ..Self::default() }
    }

    /// Fills the missing fields from `other`.
    pub(super) fn or(self, other: Self) -> Self {
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
            attention_factor: self.attention_factor.or(other.attention_factor),
            beta_fast: self.beta_fast.or(other.beta_fast),
            beta_slow: self.beta_slow.or(other.beta_slow),
            mscale: self.mscale.or(other.mscale),
            mscale_all_dim: self.mscale_all_dim.or(other.mscale_all_dim),
            truncate: self.truncate.or(other.truncate),
            short_factor: self.short_factor.or(other.short_factor),
        }
    }

    /// Whether the scaling is LongRoPE, by its present name or one of its former ones. Only Phi-3 calls
    /// it `yarn`.
    pub(super) fn is_longrope(&self) -> bool {
        self.short_factor.is_some()
            && matches!(self.rope_type.as_deref(), Some("longrope" | "su" | "yarn"))
    }

    /// Makes the rotary positions. `base` is the architecture's, `context` the model's number of
    /// positions; `rotary_dim` dimensions of a head rotate.
    pub(super) fn rope(
        &self,
        base: f32,
        rotary_dim: usize,
        context: Option<usize>,
    ) -> Result<Rope, LoadError> {
        let base = self.rope_theta.unwrap_or(base);
        match self.rope_type.as_deref() {
            None | Some("default") => Ok(Rope::new(base)),
            _ if self.is_longrope() => self.longrope(base, context),
            Some("linear") => {
                let scaling = Scaling::Linear(needed("factor", self.factor)?);
                Ok(Rope { scaling, ..Rope::new(base) })
            }
            Some("llama3") => {
                let context = self.original_max_position_embeddings.or(context);
                let scaling = Llama3Scaling {
                    factor: needed("factor", self.factor)?,
                    low_freq_factor: needed("low_freq_factor", self.low_freq_factor)?,
                    high_freq_factor: needed("high_freq_factor", self.high_freq_factor)?,
                    original_context: context.unwrap_or(2048),
                };
                Ok(Rope::llama3(base, rotary_dim, scaling))
            }
            Some("yarn") => self.yarn(base, rotary_dim, context),
            Some(other) => unsupported(format!("RoPE scaling of type {other:?}")),
        }
    }

    /// Makes the rotary positions of a kind of layers that rotate a part of the pairs of each head of
    /// `head_dim` dimensions, or all of them.
    pub(super) fn proportional_or_plain(
        &self,
        base: f32,
        head_dim: usize,
    ) -> Result<Rope, LoadError> {
        let base = self.rope_theta.unwrap_or(base);
        let share = self.partial_rotary_factor.unwrap_or(1.0);
        match self.rope_type.as_deref() {
            Some("proportional") if (0.0..=1.0).contains(&share) => {
                let rotating = (share * head_dim as f32 / 2.0) as usize;
                Ok(Rope::proportional(base, head_dim, rotating, self.factor.unwrap_or(1.0)))
            }
            None | Some("default") if share == 1.0 => Ok(Rope::new(base)),
            kind => unsupported(format!(
                "RoPE of type {:?} on {share} of each head",
                kind.unwrap_or("default")
            )),
        }
    }

    fn yarn(
        &self,
        base: f32,
        rotary_dim: usize,
        context: Option<usize>,
    ) -> Result<Rope, LoadError> {
        if self.mscale.is_some() || self.mscale_all_dim.is_some() || self.truncate == Some(false) {
            return unsupported("YaRN with mscale, mscale_all_dim or truncate");
        }
        let original = self.original_max_position_embeddings.or(context);
        let scaling = YarnScaling {
            factor: needed("factor", self.factor)?,
            beta_fast: self.beta_fast.unwrap_or(32.0),
            beta_slow: self.beta_slow.unwrap_or(1.0),
            original_context: needed("original_max_position_embeddings", original)?,
            attention_factor: self.attention_factor,
        };
        Ok(Rope::yarn(base, rotary_dim, scaling))
    }

    /// Makes the angles of LongRoPE (arXiv 2402.13753) for texts within the former context. Longer
    /// ones have others, at all positions, so no block would fit both.
    fn longrope(&self, base: f32, context: Option<usize>) -> Result<Rope, LoadError> {
        let divisors = self.short_factor.clone().unwrap_or_default();
        let original = self.original_max_position_embeddings.or(context);
        let original = needed("original_max_position_embeddings", original)? as f64;
        let stated = self.factor.map(f64::from);
        let factor = stated.or(context.map(|context| context as f64 / original)).unwrap_or(1.0);
        let attention_factor = self.attention_factor.unwrap_or(match factor > 1.0 {
            true => (1.0 + libm::log(factor) / libm::log(original)).sqrt() as f32,
            false => 1.0,
        });
        Ok(Rope { base, scaling: Scaling::Divisors(divisors), attention_factor })
    }
}

fn needed<T>(key: &str, value: Option<T>) -> Result<T, LoadError> {
    let what = "of the RoPE scaling is missing".to_owned();
    value.ok_or_else(|| LoadError::Metadata { key: key.to_owned(), what })
}

fn unsupported<T>(feature: impl Into<String>) -> Result<T, LoadError> {
    Err(LoadError::Unsupported { feature: feature.into() })
}
