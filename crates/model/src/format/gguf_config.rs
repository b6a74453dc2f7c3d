//! Turns the metadata of a GGUF into a [`Config`]. It does not read tensors.

use crate::arch::config::{Architecture, Config, DecoderSizes, Window};
use crate::arch::rope::Scaling;
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
        let hidden = own.size("embedding_length", 1 << 16)?;
        let heads = own.size("attention.head_count", 1 << 10)?;
        let head_dim = match own.has("attention.key_length") {
            true => own.size("attention.key_length", 1 << 12)?,
            false => hidden / heads,
        };
        let sizes = DecoderSizes {
            layers: own.size("block_count", 1 << 10)?,
            hidden,
            feed_forward: own.size("feed_forward_length", 1 << 20)?,
            heads,
            kv_heads: own.size("attention.head_count_kv", 1 << 10)?,
            head_dim,
            vocabulary: own.reader.array("tokenizer.ggml.tokens")?.len(),
            context: own.size("context_length", 1 << 24)?,
        };
        own.refuse_unsupported(head_dim)?;
        let mut config = Self::new(architecture, sizes);
        config.norm_eps = own.float("attention.layer_norm_rms_epsilon")?;
        config.rope.base = own.float_or("rope.freq_base", config.rope.base)?;
        config.rope.scaling = own.scaling()?;
        config.window = own.window(sizes.layers)?;
        match architecture {
            // The local layers of Gemma 3 rotate by the base of Gemma 1.
            Architecture::Gemma3 => {
                let base = own.float_or("rope.freq_base_swa", config.local_rope.base)?;
                config.local_rope.base = base;
            }
            _ => config.local_rope = config.rope.clone(),
        }
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

/// The metadata of an architecture, whose keys begin with its name.
struct Own<'a> {
    reader: MetadataReader<'a>,
    architecture: Architecture,
}

impl Own<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn has(&self, key: &str) -> bool {
        self.reader.0.contains_key(&self.key(key))
    }

    fn size(&self, key: &str, max: usize) -> Result<usize, LoadError> {
        self.reader.size(&self.key(key), max)
    }

    fn float(&self, key: &str) -> Result<f32, LoadError> {
        self.reader.float(&self.key(key))
    }

    fn float_or(&self, key: &str, default: f32) -> Result<f32, LoadError> {
        if self.has(key) { self.float(key) } else { Ok(default) }
    }

    fn scaling(&self) -> Result<Scaling, LoadError> {
        if !self.has("rope.scaling.type") {
            return Ok(Scaling::None);
        }
        match self.reader.text(&self.key("rope.scaling.type"))?.as_str() {
            "none" => Ok(Scaling::None),
            "linear" => Ok(Scaling::Linear(self.float("rope.scaling.factor")?)),
            scaling => {
                let feature = format!("RoPE scaling of type {scaling:?}");
                Err(LoadError::Unsupported { feature })
            }
        }
    }

    /// Decides which layers are local: as the file says, else as the architecture has it.
    fn window(&self, layers: usize) -> Result<Option<Window>, LoadError> {
        if !self.has("attention.sliding_window") {
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
        for (key, what) in sizes {
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
