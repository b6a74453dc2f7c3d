//! Turns the metadata of a GGUF into a [`Config`]. It does not read tensors.

use crate::arch::config::{Architecture, Config, DecoderSizes, Window};
use crate::arch::rope::{Rope, Scaling, YarnScaling};
use crate::error::LoadError;
use crate::format::gguf::header::{Metadata, MetadataValue};
use crate::format::gguf::metadata_reader::MetadataReader;

impl Config {
    /// Reads the configuration that the metadata state. Rotary divisors are a tensor, so they are not
    /// included.
    pub(crate) fn from_metadata(metadata: &Metadata) -> Result<Self, LoadError> {
        let reader = MetadataReader(metadata);
        let architecture: Architecture = reader.text("general.architecture")?.parse()?;
        let own = Own { reader, architecture };
        if architecture == Architecture::Gemma4 {
            return own.gemma4();
        }
        let hidden = own.size("embedding_length", 1 << 16)?;
        let heads = own.layer_size("attention.head_count", 1 << 10)?;
        let head_dim = match own.has("attention.key_length") {
            true => own.size("attention.key_length", 1 << 12)?,
            false => hidden / heads,
        };
        let sizes = DecoderSizes {
            layers: own.size("block_count", 1 << 10)?,
            hidden,
            feed_forward: own.layer_size("feed_forward_length", 1 << 20)?,
            heads,
            kv_heads: own.layer_size("attention.head_count_kv", 1 << 10)?,
            head_dim,
            vocabulary: own.reader.array("tokenizer.ggml.tokens")?.len(),
            context: own.size("context_length", 1 << 24)?,
        };
        own.refuse_unsupported(head_dim)?;
        let mut config = Self::new(architecture, sizes);
        config.norm_eps = own.float("attention.layer_norm_rms_epsilon")?;
        config.rotary_dim = own.rotary_dim(head_dim)?;
        config.rope = own.rope(config.rotary_dim, sizes.context)?;
        config.window = own.window(sizes.layers)?;
        config.local_rope = match architecture {
            // The local layers of Gemma 3 rotate by the base of Gemma 1, those of OLMo 3 unscaled.
            Architecture::Gemma3 => Rope::new(own.float_or("rope.freq_base_swa", 10_000.0)?),
            Architecture::Olmo2 => Rope::new(own.float_or("rope.freq_base_swa", config.rope.base)?),
            _ => config.rope.clone(),
        };
        own.set_newer(&mut config)?;
        if architecture == Architecture::Gemma2 {
            // llama.cpp's values for files that have none.
            let attention = own.float_or("attn_logit_softcapping", 50.0)?;
            config.attention_cap = Some(attention);
            config.logit_cap = Some(own.float_or("final_logit_softcapping", 30.0)?);
        } else if own.has("final_logit_softcapping") {
            let cap = own.float("final_logit_softcapping")?;
            config.logit_cap = Some(cap).filter(|cap| *cap != 0.0);
        }
        // No key marks the two models of 27B, whose scale is not that of a head's size.
        let scale = match (architecture, sizes.layers) {
            (Architecture::Gemma2, 46) | (Architecture::Gemma3, 62) => {
                1.0 / ((hidden / heads) as f32).sqrt()
            }
            _ => config.attention_scale,
        };
        config.attention_scale = own.float_or("attention.scale", scale)?;
        config.checked()
    }
}

/// Number of layers from one without rotary positions to the next in SmolLM 3. No key states it.
const SMOLLM3_INTERVAL: usize = 4;

/// The metadata of an architecture, whose keys begin with its name.
pub(super) struct Own<'a> {
    pub(super) reader: MetadataReader<'a>,
    pub(super) architecture: Architecture,
}

impl Own<'_> {
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.reader.0.contains_key(&self.key(key))
    }

    pub(super) fn size(&self, key: &str, max: usize) -> Result<usize, LoadError> {
        self.reader.size(&self.key(key), max)
    }

    pub(super) fn float(&self, key: &str) -> Result<f32, LoadError> {
        self.reader.float(&self.key(key))
    }

    pub(super) fn float_or(&self, key: &str, default: f32) -> Result<f32, LoadError> {
        if self.has(key) { self.float(key) } else { Ok(default) }
    }

    /// Returns a number that some files state for each layer and that must be the same for all.
    pub(super) fn layer_size(&self, key: &str, max: usize) -> Result<usize, LoadError> {
        let name = self.key(key);
        let Some(MetadataValue::Array(sizes)) = self.reader.0.get(&name) else {
            return self.reader.size(&name, max);
        };
        let first = sizes.first().and_then(MetadataValue::size);
        if sizes.iter().any(|size| size.size() != first) {
            let feature = format!("layers that differ in {key}");
            return Err(LoadError::Unsupported { feature });
        }
        let size = first.and_then(|size| usize::try_from(size).ok());
        let what = format!("is not one number from 1 to {max} for all layers");
        size.filter(|size| (1..=max).contains(size))
            .ok_or_else(|| MetadataReader::wrong(&name, what))
    }

    /// Returns the number of dimensions of a head that rotate.
    fn rotary_dim(&self, head_dim: usize) -> Result<usize, LoadError> {
        match self.architecture {
            Architecture::Phi3 if self.has("rope.dimension_count") => {
                self.size("rope.dimension_count", 1 << 12)
            }
            _ => Ok(head_dim),
        }
    }

    fn rope(&self, rotary_dim: usize, context: usize) -> Result<Rope, LoadError> {
        let rope = Rope::new(self.float_or("rope.freq_base", 10_000.0)?);
        if !self.has("rope.scaling.type") {
            return Ok(rope);
        }
        match self.reader.text(&self.key("rope.scaling.type"))?.as_str() {
            "none" => Ok(rope),
            "linear" => {
                let scaling = Scaling::Linear(self.float("rope.scaling.factor")?);
                Ok(Rope { scaling, ..rope })
            }
            "yarn" if self.architecture != Architecture::Phi3 => {
                self.yarn(rope.base, rotary_dim, context)
            }
            // Its numbers are tensors.
            "longrope" if self.architecture == Architecture::Phi3 => Ok(rope),
            scaling => {
                let feature = format!("RoPE scaling of type {scaling:?}");
                Err(LoadError::Unsupported { feature })
            }
        }
    }

    fn yarn(&self, base: f32, rotary_dim: usize, context: usize) -> Result<Rope, LoadError> {
        for key in ["yarn_log_multiplier", "yarn_ext_factor", "yarn_attn_factor"] {
            if self.has(&format!("rope.scaling.{key}")) {
                return Err(LoadError::Unsupported { feature: format!("YaRN with {key}") });
            }
        }
        let key = "rope.scaling.original_context_length";
        let original_context = if self.has(key) { self.size(key, 1 << 24)? } else { context };
        let scaling = YarnScaling {
            factor: self.float("rope.scaling.factor")?,
            beta_fast: self.float_or("rope.scaling.yarn_beta_fast", 32.0)?,
            beta_slow: self.float_or("rope.scaling.yarn_beta_slow", 1.0)?,
            original_context,
            attention_factor: None,
        };
        let mut rope = Rope::yarn(base, rotary_dim, scaling);
        rope.attention_factor *= self.float_or("rope.scaling.attn_factor", 1.0)?;
        Ok(rope)
    }

    /// Sets what only newer architectures have.
    fn set_newer(&self, config: &mut Config) -> Result<(), LoadError> {
        match self.architecture {
            Architecture::SmolLm3 => {
                let rotates = |layer: usize| !(layer + 1).is_multiple_of(SMOLLM3_INTERVAL);
                config.rotary_layers = Some((0..config.layers).map(rotates).collect());
            }
            Architecture::Granite => {
                config.embedding_scale = self.float_or("embedding_scale", 1.0)?;
                config.residual_scale = self.float_or("residual_scale", 1.0)?;
                config.logit_scale = 1.0 / self.float_or("logit_scale", 1.0)?;
                // By this key a Granite 4 says that it has no rotary positions.
                let rotates = self.reader.0.get(&self.key("rope.scaling.finetuned"));
                if rotates.and_then(MetadataValue::boolean) == Some(false) {
                    config.rotary_layers = Some(vec![false; config.layers]);
                }
            }
            Architecture::Phi3 => {
                let factor = self.float_or("rope.scaling.attn_factor", 1.0)?;
                config.rope.attention_factor = factor;
                config.local_rope.attention_factor = factor;
                let original = "rope.scaling.original_context_length";
                if self.has(original) {
                    // Beyond these positions other angles hold, also for the tokens before.
                    config.context = config.context.min(self.size(original, 1 << 24)?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Decides which layers are local: as the file says, else as the architecture has it.
    pub(super) fn window(&self, layers: usize) -> Result<Option<Window>, LoadError> {
        if !self.has("attention.sliding_window") {
            return Ok(None);
        }
        let window = self.reader.0.get(&self.key("attention.sliding_window"));
        if self.architecture == Architecture::Phi3
            && window.and_then(MetadataValue::size) == Some(0)
        {
            // So a Phi-4 says that it has none.
            return Ok(None);
        }
        let positions = self.size("attention.sliding_window", 1 << 24)?;
        let key = self.key("attention.sliding_window_pattern");
        let period = match self.reader.0.get(&key) {
            Some(MetadataValue::Array(local)) => {
                let local = local.iter().map(MetadataValue::boolean).collect::<Option<Vec<_>>>();
                let local = local.filter(|local| local.len() == layers);
                let what = "is not one truth value a layer";
                let local = local.ok_or_else(|| MetadataReader::wrong(&key, what))?;
                return Ok(Some(Window { positions, local }));
            }
            Some(_) => self.reader.size(&key, 1 << 10)?,
            None if self.architecture == Architecture::Gemma2 => 2,
            None if self.architecture == Architecture::Gemma3 => 6,
            None if self.architecture == Architecture::Olmo2 => 4,
            None => return Ok(Some(Window { positions, local: vec![true; layers] })),
        };
        Ok(Some(Window::periodic(positions, period, layers)))
    }

    fn refuse_unsupported(&self, head_dim: usize) -> Result<(), LoadError> {
        let unsupported = |feature| Err(LoadError::Unsupported { feature });
        if self.has("expert_count") && self.size("expert_count", 1 << 10).is_ok() {
            return unsupported("a mixture of experts".to_owned());
        }
        let sizes = [("rope.dimension_count", "RoPE on"), ("attention.value_length", "values of")];
        let partial = self.architecture == Architecture::Phi3;
        for (key, what) in sizes.into_iter().skip(usize::from(partial)) {
            match self.size(key, 1 << 12) {
                Ok(size) if size != head_dim => {
                    return unsupported(format!("{what} {size} of {head_dim} dimensions"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
