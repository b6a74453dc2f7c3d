//! The settings that only a `config.json` of Gemma 4 has. Missing fields take transformers' defaults.
//!
//! In: the fields of the text model. Out: settings of its layers, and rotary positions. It does not know
//! weights.

use std::collections::HashMap;

use serde::Deserialize;

use crate::arch::config::{Config, Window};
use crate::arch::mixed::{HeadSizes, MixedLayers};
use crate::arch::refused::refused;
use crate::arch::rope::Rope;
use crate::error::LoadError;
use crate::format::rope_json::{RopeFields, RopeParameters};

/// Number of positions that local layers see, by default.
const WINDOW: usize = 512;
/// Number of layers from one that sees everything to the next, by default.
const PERIOD: usize = 6;
/// Bases of rotary positions of layers that see everything, and of local ones.
const BASES: [f32; 2] = [1_000_000.0, 10_000.0];
/// Part of the pairs of a head that rotate in layers that see everything, by default.
const SHARE: f32 = 0.25;

#[derive(Deserialize)]
pub(super) struct Gemma4Fields {
    vocab_size_per_layer_input: Option<usize>,
    hidden_size_per_layer_input: Option<usize>,
    num_key_value_heads: Option<usize>,
    num_global_key_value_heads: Option<usize>,
    global_head_dim: Option<usize>,
    per_layer_config: Option<HashMap<String, LayerFields>>,
    #[serde(default)]
    attention_k_eq_v: bool,
    #[serde(default)]
    num_kv_shared_layers: usize,
    #[serde(default)]
    use_double_wide_mlp: bool,
    #[serde(default)]
    enable_moe_block: bool,
    sliding_window: Option<usize>,
    layer_types: Option<Vec<String>>,
    rope_parameters: Option<RopeParameters>,
}

/// Settings of one layer in the place of those of all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerFields {
    head_dim: Option<usize>,
    num_key_value_heads: Option<usize>,
}

impl Gemma4Fields {
    /// Sets what this architecture has.
    ///
    /// # Errors
    /// [`LoadError`] for what is not supported, by its name.
    pub(super) fn set(&self, config: &mut Config) -> Result<(), LoadError> {
        if self.enable_moe_block {
            return Err(refused("gemma4moe"));
        }
        let token_input =
            size("hidden_size_per_layer_input", self.hidden_size_per_layer_input, 256)?;
        let tokens = self.vocab_size_per_layer_input.unwrap_or(1 << 18);
        if token_input > 0 && tokens != config.vocabulary {
            let feature = format!(
                "inputs of {tokens} tokens to each layer and a vocabulary of {}",
                config.vocabulary
            );
            return Err(LoadError::Unsupported { feature });
        }
        let window = self.window(config.layers)?;
        let global = self.global(&window, config)?;
        let shared = self.num_kv_shared_layers;
        let wide = if self.use_double_wide_mlp { 2 } else { 1 };
        config.window = Some(window);
        config.mixed = Some(MixedLayers {
            global,
            keys_as_values: self.attention_k_eq_v,
            shared,
            shared_feed_forward: wide * config.feed_forward,
            token_input,
        });
        self.set_ropes(config)
    }

    /// Decides which layers are local; the last one never is.
    fn window(&self, layers: usize) -> Result<Window, LoadError> {
        let positions = self.sliding_window.unwrap_or(WINDOW);
        let mut window = Window::periodic(positions, PERIOD, layers);
        if let Some(types) = &self.layer_types {
            let local = types.iter().map(|kind| match kind.as_str() {
                "sliding_attention" => Ok(true),
                "full_attention" => Ok(false),
                _ => Err(LoadError::Unsupported { feature: format!("layers of type {kind:?}") }),
            });
            window.local = local.collect::<Result<_, _>>()?;
        }
        if let Some(last) = window.local.last_mut() {
            *last = false;
        }
        Ok(window)
    }

    /// Returns the sizes of the layers that see everything, in the older or the newer spelling.
    fn global(&self, window: &Window, config: &Config) -> Result<HeadSizes, LoadError> {
        let default = HeadSizes { kv_heads: config.kv_heads, head_dim: config.head_dim };
        let Some(layers) = &self.per_layer_config else {
            let kv_heads = self.num_global_key_value_heads.filter(|_| self.attention_k_eq_v);
            let kv_heads = kv_heads.or(self.num_key_value_heads).unwrap_or(config.kv_heads);
            return checked(HeadSizes { kv_heads, head_dim: self.global_head_dim.unwrap_or(512) });
        };
        let of = |layer: usize| match layers.get(&layer.to_string()) {
            Some(own) => HeadSizes {
                kv_heads: own.num_key_value_heads.unwrap_or(default.kv_heads),
                head_dim: own.head_dim.unwrap_or(default.head_dim),
            },
            None => default,
        };
        let global = window.local.iter().rposition(|local| !local).map_or(default, of);
        let mut kinds = window.local.iter().enumerate();
        if let Some((layer, _)) =
            kinds.find(|(layer, local)| of(*layer) != if **local { default } else { global })
        {
            let HeadSizes { kv_heads, head_dim } = of(layer);
            let feature = format!(
                "layer {layer} with {kv_heads} KV heads of {head_dim} dimensions, unlike others of its kind"
            );
            return Err(LoadError::Unsupported { feature });
        }
        checked(global)
    }

    fn set_ropes(&self, config: &mut Config) -> Result<(), LoadError> {
        let Some(global) = config.mixed.map(|mixed| mixed.global) else { return Ok(()) };
        let [base, local_base] = BASES;
        let Some(RopeParameters { full_attention, sliding_attention, .. }) = &self.rope_parameters
        else {
            let rotating = (SHARE * global.head_dim as f32 / 2.0) as usize;
            config.rope = Rope::proportional(base, global.head_dim, rotating, 1.0);
            config.local_rope = Rope::new(local_base);
            return Ok(());
        };
        let rope = |of: &Option<RopeFields>, base, head_dim| match of {
            Some(fields) => fields.proportional_or_plain(base, head_dim),
            None => Err(LoadError::Unsupported {
                feature: "rope_parameters that are not those of each kind of layers".to_owned(),
            }),
        };
        config.rope = rope(full_attention, base, global.head_dim)?;
        config.local_rope = rope(sliding_attention, local_base, config.head_dim)?;
        Ok(())
    }
}

/// Refuses sizes that no model has.
fn checked(sizes: HeadSizes) -> Result<HeadSizes, LoadError> {
    for (key, value, max) in [
        ("num_global_key_value_heads", sizes.kv_heads, 1 << 10),
        ("global_head_dim", sizes.head_dim, 1 << 12),
    ] {
        if !(1..=max).contains(&value) {
            let what = format!("is {value}, outside 1 to {max}");
            return Err(LoadError::Metadata { key: key.to_owned(), what });
        }
    }
    Ok(sizes)
}

fn size(key: &str, value: Option<usize>, default: usize) -> Result<usize, LoadError> {
    let (value, max) = (value.unwrap_or(default), 1 << 12);
    match value <= max {
        true => Ok(value),
        false => {
            let what = format!("is {value}, above {max}");
            Err(LoadError::Metadata { key: key.to_owned(), what })
        }
    }
}
