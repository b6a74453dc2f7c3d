//! Sizes and rotary angles of each layer, and the places of its K and V in a block.
//!
//! In: a configuration. Out: sizes, angles, and which layers of a block hold K and V. It does not know files
//! or weights.
//!
//! A block has one size for all of its layers, its slots here. A layer takes as many slots as its K and V
//! fill, and a row of a head is stored as several rows of a slot. So nothing is padded, and blocks of other
//! models stay as they are: there each layer is a slot.

use std::ops::Range;
use std::sync::Arc;

use crate::arch::config::Config;
use crate::arch::mixed::{HeadSizes, MixedLayers};
use crate::arch::rope::Rotations;
use crate::error::LoadError;

impl Config {
    /// Whether a layer sees only the latest positions.
    pub(crate) fn is_local(&self, layer: usize) -> bool {
        self.window_of(layer).is_some()
    }

    /// Returns the sizes of K and V of a layer, also of one that reads another's.
    pub(crate) fn heads_of(&self, layer: usize) -> HeadSizes {
        self.heads_of_kind(self.is_local(layer))
    }

    /// Returns the sizes of K and V of layers that are local or not.
    pub(crate) fn heads_of_kind(&self, local: bool) -> HeadSizes {
        match self.mixed {
            Some(MixedLayers { global, .. }) if !local => global,
            _ => HeadSizes { kv_heads: self.kv_heads, head_dim: self.head_dim },
        }
    }

    /// Number of dimensions that rotate in a head of a layer that is local or not.
    pub(crate) fn rotary_dim_of_kind(&self, local: bool) -> usize {
        match self.mixed {
            Some(MixedLayers { global, .. }) if !local => global.head_dim,
            _ => self.rotary_dim,
        }
    }

    /// Returns the inner dimensions of the feed-forward part of a layer.
    pub(crate) fn feed_forward_of(&self, layer: usize) -> usize {
        match self.mixed {
            Some(mixed) if layer >= self.own_layers() => mixed.shared_feed_forward,
            _ => self.feed_forward,
        }
    }

    /// Number of layers that have K and V: the first ones.
    pub(crate) fn own_layers(&self) -> usize {
        self.layers - self.mixed.map_or(0, |mixed| mixed.shared)
    }

    /// Returns the layer whose K and V a layer reads: itself if it has some.
    ///
    /// # Panics
    /// If there is none, which [`Config::checked`] refuses.
    pub(crate) fn kv_source(&self, layer: usize) -> usize {
        let source = self.source(layer);
        source.expect("a checked configuration has a layer of each kind with K and V")
    }

    fn source(&self, layer: usize) -> Option<usize> {
        let own = self.own_layers();
        match layer < own {
            true => Some(layer),
            false => (0..own).rev().find(|source| self.is_local(*source) == self.is_local(layer)),
        }
    }

    /// Whether later layers read K and V of this one.
    pub(crate) fn is_shared(&self, layer: usize) -> bool {
        (self.own_layers()..self.layers).any(|later| self.source(later) == Some(layer))
    }

    /// Returns the sizes of a slot: the largest of which each layer fills a whole number.
    pub(crate) fn slot(&self) -> HeadSizes {
        let local = self.heads_of_kind(true);
        let Some(MixedLayers { global, .. }) = self.mixed else {
            return local;
        };
        let head_dim = common_divisor(local.head_dim, global.head_dim);
        let kv_heads = common_divisor(local.values() / head_dim, global.values() / head_dim);
        HeadSizes { kv_heads, head_dim }
    }

    /// Returns the slots of a block that hold K and V of a layer, which may be another's.
    pub(crate) fn slots(&self, layer: usize) -> Range<usize> {
        let (slot, source) = (self.slot(), self.kv_source(layer));
        let count = |layer| self.heads_of(layer).values() / slot.values();
        let first = (0..source).map(count).sum();
        first..first + count(source)
    }

    /// Number of slots of a block.
    pub(crate) fn slot_count(&self) -> usize {
        self.own_layers().checked_sub(1).map_or(0, |last| self.slots(last).end)
    }

    /// Computes the rotary angles of each layer. Layers with the same angles share them.
    pub(crate) fn rotations(&self) -> Vec<Arc<Rotations>> {
        let positions = self.context;
        let table = |local| {
            let HeadSizes { head_dim, .. } = self.heads_of_kind(local);
            let rotary = self.rotary_dim_of_kind(local);
            Arc::new(self.rope_of(local).rotations(positions, rotary, head_dim))
        };
        let none = self.rotary_layers.as_ref();
        let none = none.map(|_| Arc::new(Rotations::none(positions, self.head_dim)));
        let rope = table(false);
        let local = match self.window {
            Some(_) if self.mixed.is_some() || self.local_rope != self.rope => table(true),
            _ => Arc::clone(&rope),
        };
        let of = |layer| match &none {
            Some(none) if !self.rotates(layer) => none,
            _ if self.is_local(layer) => &local,
            _ => &rope,
        };
        (0..self.layers).map(|layer| Arc::clone(of(layer))).collect()
    }

    /// Checks that the two kinds of layers can be computed.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`], which names what cannot.
    pub(crate) fn check_mixed(&self) -> Result<(), LoadError> {
        let unsupported = |feature| Err(LoadError::Unsupported { feature });
        let Some(MixedLayers { global, shared, .. }) = self.mixed else { return Ok(()) };
        let (heads, HeadSizes { kv_heads, head_dim }) = (self.heads, global);
        if kv_heads == 0
            || !heads.is_multiple_of(kv_heads)
            || head_dim == 0
            || !head_dim.is_multiple_of(2)
        {
            return unsupported(format!(
                "{heads} query heads over {kv_heads} KV heads of {head_dim} dimensions"
            ));
        }
        if self.rotary_dim != self.head_dim || self.rotary_layers.is_some() {
            return unsupported("RoPE on a part of each local head".to_owned());
        }
        if shared >= self.layers {
            return unsupported(format!("{shared} of {} layers without K and V", self.layers));
        }
        match (0..self.layers).find(|layer| self.source(*layer).is_none()) {
            Some(layer) => unsupported(format!(
                "layer {layer}, which has no K and V and no layer of its kind before it that has"
            )),
            None => Ok(()),
        }
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::config::{Architecture, DecoderSizes, Window};

    fn config(
        [layers, period, kv_heads, head_dim]: [usize; 4],
        mixed: Option<MixedLayers>,
    ) -> Config {
        let sizes = DecoderSizes {
            layers,
            hidden: 64,
            feed_forward: 96,
            heads: 32,
            kv_heads,
            head_dim,
            vocabulary: 291,
            context: 128,
        };
        let mut config = Config::new(Architecture::Gemma3, sizes);
        config.window = Some(Window::periodic(8, period, layers));
        Config { mixed, ..config }
    }

    fn mixed(kv_heads: usize, head_dim: usize, shared: usize) -> MixedLayers {
        let global = HeadSizes { kv_heads, head_dim };
        MixedLayers {
            global,
            keys_as_values: false,
            shared,
            shared_feed_forward: 96,
            token_input: 0,
        }
    }

    #[test]
    fn wide_layers_take_several_slots() {
        // Sizes as those of E2B, E4B and 31B, and heads that differ more.
        for (sizes, mixed, slot, slots) in [
            ([35, 5, 1, 256], mixed(1, 512, 20), [1, 256], 12 + 2 * 3),
            ([42, 6, 2, 256], mixed(2, 512, 18), [2, 256], 20 + 2 * 4),
            ([60, 6, 16, 256], mixed(4, 512, 0), [8, 256], 2 * 50 + 10),
            ([48, 6, 8, 256], mixed(1, 512, 0), [2, 256], 4 * 40 + 8),
        ] {
            let config = config(sizes, Some(mixed));
            config.check_mixed().unwrap();
            let found = config.slot();
            assert_eq!([found.kv_heads, found.head_dim], slot);
            assert_eq!(config.slot_count(), slots);
            let all = (0..config.own_layers()).flat_map(|layer| config.slots(layer));
            assert!(all.eq(0..slots), "each slot is of one layer");
        }
        let plain = config([4, 2, 2, 32], None);
        assert!((0..4).all(|layer| plain.slots(layer) == (layer..layer + 1)));
        assert_eq!(plain.slot_count(), 4);
    }

    #[test]
    fn shared_layers_read_the_last_of_their_kind() {
        let config = config([35, 5, 1, 256], Some(mixed(1, 512, 20)));
        let sources = |layers: [usize; 5]| layers.map(|layer| config.kv_source(layer));
        assert_eq!(sources([12, 13, 14, 15, 19]), [12, 13, 14, 13, 14]);
        assert_eq!(sources([20, 24, 29, 33, 34]), [13, 14, 14, 13, 14]);
        let shared: Vec<_> = (0..35).filter(|layer| config.is_shared(*layer)).collect();
        assert_eq!(shared, [13, 14]);
        assert_eq!(config.slots(34), config.slots(14));
    }

    #[test]
    fn layers_without_a_source_are_refused() {
        for (shared, words) in [(5, "5 of 5 layers"), (4, "layer 4, which")] {
            let error = config([5, 5, 1, 256], Some(mixed(1, 512, shared))).check_mixed();
            let error = error.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
