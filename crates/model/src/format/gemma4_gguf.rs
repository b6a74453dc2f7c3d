//! The configuration that the metadata of a GGUF of Gemma 4 state.
//!
//! In: metadata. Out: a [`Config`] whose layers that see everything have no rotary divisors yet: these are a
//! tensor.

use crate::arch::config::{Config, DecoderSizes};
use crate::arch::mixed::{HeadSizes, MixedLayers};
use crate::arch::refused::refused;
use crate::arch::rope::Rope;
use crate::error::LoadError;
use crate::format::gguf::header::MetadataValue;
use crate::format::gguf::metadata_reader::MetadataReader;
use crate::format::gguf_config::Own;

impl Own<'_> {
    /// Reads the configuration.
    ///
    /// # Errors
    /// [`LoadError`] for metadata that are missing, and for what is not supported, by its name.
    pub(super) fn gemma4(&self) -> Result<Config, LoadError> {
        if self.has("expert_count") && self.size("expert_count", 1 << 10).is_ok() {
            return Err(refused("gemma4moe"));
        }
        let layers = self.size("block_count", 1 << 10)?;
        let Some(window) = self.window(layers)? else {
            return Err(MetadataReader::wrong(&self.key("attention.sliding_window"), "is missing"));
        };
        let head_dim = self.size("attention.key_length_swa", 1 << 12)?;
        let global_dim = self.size("attention.key_length", 1 << 12)?;
        for (key, expected) in [
            ("attention.value_length", global_dim),
            ("attention.value_length_swa", head_dim),
            ("rope.dimension_count", global_dim),
            ("rope.dimension_count_swa", head_dim),
        ] {
            let size = if self.has(key) { self.size(key, 1 << 12)? } else { expected };
            if size != expected {
                let feature = format!("{key} {size} of {expected} dimensions");
                return Err(LoadError::Unsupported { feature });
            }
        }
        let kv_heads = self.by_kind("attention.head_count_kv", 1 << 10, &window.local)?;
        let shared = match self.reader.0.get(&self.key("attention.shared_kv_layers")) {
            Some(shared) => shared.size().and_then(|n| usize::try_from(n).ok()),
            None => Some(0),
        };
        let shared = shared.filter(|shared| *shared < layers).ok_or_else(|| {
            let key = self.key("attention.shared_kv_layers");
            MetadataReader::wrong(&key, format!("is not below {layers}"))
        })?;
        let is_shared: Vec<bool> = (0..layers).map(|layer| layer >= layers - shared).collect();
        let feed_forward = self.by_kind("feed_forward_length", 1 << 20, &is_shared)?;
        let sizes = DecoderSizes {
            layers,
            hidden: self.size("embedding_length", 1 << 16)?,
            feed_forward: feed_forward[0].or(feed_forward[1]).unwrap_or(1),
            heads: self.layer_size("attention.head_count", 1 << 10)?,
            kv_heads: kv_heads[1].or(kv_heads[0]).unwrap_or(1),
            head_dim,
            vocabulary: self.reader.array("tokenizer.ggml.tokens")?.len(),
            context: self.size("context_length", 1 << 24)?,
        };
        let mut config = Config::new(self.architecture, sizes);
        config.norm_eps = self.float("attention.layer_norm_rms_epsilon")?;
        config.rope = Rope::new(self.float_or("rope.freq_base", 1_000_000.0)?);
        config.local_rope = Rope::new(self.float_or("rope.freq_base_swa", 10_000.0)?);
        if self.has("rope.scaling.type")
            && self.reader.text(&self.key("rope.scaling.type"))? != "none"
        {
            return Err(LoadError::Unsupported {
                feature: "RoPE scaling beside rope_freqs".to_owned(),
            });
        }
        if self.has("final_logit_softcapping") {
            let cap = self.float("final_logit_softcapping")?;
            config.logit_cap = Some(cap).filter(|cap| *cap != 0.0);
        }
        config.window = Some(window);
        config.mixed = Some(MixedLayers {
            global: HeadSizes {
                kv_heads: kv_heads[0].unwrap_or(sizes.kv_heads),
                head_dim: global_dim,
            },
            keys_as_values: false,
            shared,
            shared_feed_forward: feed_forward[1].unwrap_or(sizes.feed_forward),
            token_input: self.token_input()?,
        });
        Ok(config)
    }

    fn token_input(&self) -> Result<usize, LoadError> {
        let key = self.key("embedding_length_per_layer_input");
        let size = self.reader.0.get(&key).map_or(Some(0), MetadataValue::size);
        let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= 1 << 12);
        size.ok_or_else(|| MetadataReader::wrong(&key, "is not a number up to 4096"))
    }

    /// Returns a number of the layers for which `kinds` is false, and of those for which it is true, each
    /// `None` if there are no such layers. The layers of a kind must have the same number.
    fn by_kind(
        &self,
        key: &str,
        max: usize,
        kinds: &[bool],
    ) -> Result<[Option<usize>; 2], LoadError> {
        let name = self.key(key);
        let Some(MetadataValue::Array(sizes)) = self.reader.0.get(&name) else {
            let all = self.reader.size(&name, max)?;
            return Ok([false, true].map(|kind| kinds.contains(&kind).then_some(all)));
        };
        let wrong = || {
            MetadataReader::wrong(&name, format!("is not a number from 1 to {max} for each layer"))
        };
        if sizes.len() != kinds.len() {
            return Err(wrong());
        }
        let mut found = [None; 2];
        for (size, kind) in sizes.iter().zip(kinds) {
            let size = size.size().and_then(|size| usize::try_from(size).ok());
            let size = size.filter(|size| (1..=max).contains(size)).ok_or_else(wrong)?;
            let known = found[usize::from(*kind)].get_or_insert(size);
            if *known != size {
                let feature = format!("layers of a kind that differ in {key}");
                return Err(LoadError::Unsupported { feature });
            }
        }
        Ok(found)
    }
}
