//! K and V of the positions before a run: those of a block, or of a sequence that grows by tokens.

use std::ops::Range;

use hyperrag_core::{BlockError, LayerSource};

use crate::arch::config::Config;
use crate::backend::cpu::kv_codec::KvCodec;

/// The positions before the tokens of a sequence.
#[derive(Clone, Copy)]
pub(crate) enum PastKv<'a> {
    /// A document part.
    Block(&'a dyn LayerSource),
    /// A prompt and the tokens generated after it.
    Grown(&'a AppendKv),
}

impl<'a> PastKv<'a> {
    /// Number of positions held.
    pub(crate) fn tokens(self) -> usize {
        match self {
            Self::Block(block) => block.tokens(),
            Self::Grown(grown) => grown.tokens,
        }
    }

    /// Returns K and V of a layer, which may be another's. Bytes that must be read go to `buffer`.
    pub(crate) fn layer(
        self,
        config: &Config,
        layer: usize,
        buffer: &'a mut Vec<u8>,
    ) -> Result<PastLayer<'a>, BlockError> {
        Ok(match self {
            Self::Block(block) => {
                let bytes = read_slots(block, config.slots(layer), buffer)?;
                let heads = config.heads_of(layer).kv_heads;
                PastLayer::Read { tokens: block.tokens(), heads, bytes }
            }
            Self::Grown(grown) => PastLayer::Grown(grown, config.kv_source(layer)),
        })
    }
}

/// Reads successive layers of a block.
fn read_slots<'a>(
    block: &'a dyn LayerSource,
    slots: Range<usize>,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], BlockError> {
    if slots.len() == 1 {
        return block.layer(slots.start, buffer);
    }
    let mut one = Vec::new();
    buffer.clear();
    for slot in slots {
        buffer.extend_from_slice(block.layer(slot, &mut one)?);
    }
    Ok(buffer)
}

/// A layer of a [`PastKv`].
#[derive(Clone, Copy)]
pub(crate) enum PastLayer<'a> {
    Read { tokens: usize, heads: usize, bytes: &'a [u8] },
    Grown(&'a AppendKv, usize),
}

impl<'a> PastLayer<'a> {
    /// Returns K and V of one KV head.
    pub(crate) fn head(self, head: usize) -> PastHead<'a> {
        match self {
            Self::Read { tokens, heads, bytes } => {
                let run = bytes.len() / (2 * heads);
                let part = |index: usize| &bytes[index * run..(index + 1) * run];
                PastHead { tokens, keys: part(head), values: part(heads + head) }
            }
            Self::Grown(grown, layer) => {
                let runs = &grown.layers[layer].runs;
                let (keys, values) = runs.split_at(runs.len() / 2);
                PastHead { tokens: grown.tokens, keys: &keys[head], values: &values[head] }
            }
        }
    }
}

/// K and V of one KV head of one layer, each `[position][dim]`.
#[derive(Clone, Copy)]
pub(crate) struct PastHead<'a> {
    pub(crate) tokens: usize,
    pub(crate) keys: &'a [u8],
    pub(crate) values: &'a [u8],
}

/// K and V to which tokens are appended without moving earlier ones. Each head of each layer has its
/// own run, with room for all tokens to come.
pub(crate) struct AppendKv {
    tokens: usize,
    /// Layers that have K and V.
    layers: Vec<LayerRuns>,
}

/// K and V of a layer.
struct LayerRuns {
    /// Bytes of a position in a run.
    row_bytes: usize,
    /// `[K, then V][KV head]`, each `[position][dim]`.
    runs: Vec<Vec<u8>>,
}

impl AppendKv {
    /// Returns empty runs with room for `tokens` positions.
    pub(crate) fn with_room(config: &Config, codec: &KvCodec, tokens: usize) -> Self {
        let layers = (0..config.own_layers()).map(|layer| {
            let heads = config.heads_of(layer);
            let row_bytes = codec.row_bytes(heads.head_dim);
            let run = || Vec::with_capacity(tokens * row_bytes);
            let runs = std::iter::repeat_with(run).take(2 * heads.kv_heads).collect();
            LayerRuns { row_bytes, runs }
        });
        Self { tokens: 0, layers: layers.collect() }
    }

    /// Appends `tokens` positions. `kv` has the layout of a block of them.
    pub(crate) fn append(&mut self, tokens: usize, kv: &[u8]) {
        let mut rest = kv;
        for LayerRuns { row_bytes, runs } in &mut self.layers {
            for run in runs {
                let (own, later) = rest.split_at(tokens * *row_bytes);
                run.extend_from_slice(own);
                rest = later;
            }
        }
        self.tokens += tokens;
    }
}
