//! K and V of the positions before a run: those of a block, or of a sequence that grows by tokens.

use hyperrag_core::{BlockError, KvShape, LayerSource};

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

    /// Returns K and V of a layer. Bytes that must be read go to `buffer`.
    pub(crate) fn layer(
        self,
        layer: usize,
        buffer: &'a mut Vec<u8>,
    ) -> Result<PastLayer<'a>, BlockError> {
        Ok(match self {
            Self::Block(block) => {
                let bytes = block.layer(layer, buffer)?;
                PastLayer::Read { tokens: block.tokens(), heads: block.kv_shape().kv_heads, bytes }
            }
            Self::Grown(grown) => PastLayer::Grown(grown, layer),
        })
    }
}

/// A layer of a [`PastKv`].
#[derive(Clone, Copy)]
pub(crate) enum PastLayer<'a> {
    Read { tokens: usize, heads: u32, bytes: &'a [u8] },
    Grown(&'a AppendKv, usize),
}

impl<'a> PastLayer<'a> {
    /// Returns K and V of one KV head.
    pub(crate) fn head(self, head: usize) -> PastHead<'a> {
        match self {
            Self::Read { tokens, heads, bytes } => {
                let heads = heads as usize;
                let run = bytes.len() / (2 * heads);
                let part = |index: usize| &bytes[index * run..(index + 1) * run];
                PastHead { tokens, keys: part(head), values: part(heads + head) }
            }
            Self::Grown(grown, layer) => PastHead {
                tokens: grown.tokens,
                keys: grown.run(layer, head),
                values: grown.run(layer, grown.kv_shape.kv_heads as usize + head),
            },
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
    kv_shape: KvShape,
    tokens: usize,
    /// `[layer][K, then V][KV head]`, each `[position][dim]`.
    runs: Vec<Vec<u8>>,
}

impl AppendKv {
    /// Returns empty runs with room for `tokens` positions.
    pub(crate) fn with_room(kv_shape: KvShape, tokens: usize) -> Self {
        let runs = 2 * kv_shape.layers as usize * kv_shape.kv_heads as usize;
        let run = || Vec::with_capacity(kv_shape.head_bytes(tokens));
        Self { kv_shape, tokens: 0, runs: std::iter::repeat_with(run).take(runs).collect() }
    }

    /// Appends `tokens` positions. `kv` has the layout of a block of them.
    pub(crate) fn append(&mut self, tokens: usize, kv: &[u8]) {
        let heads = kv.chunks_exact(self.kv_shape.head_bytes(tokens));
        for (run, head) in self.runs.iter_mut().zip(heads) {
            run.extend_from_slice(head);
        }
        self.tokens += tokens;
    }

    fn run(&self, layer: usize, index: usize) -> &[u8] {
        &self.runs[layer * 2 * self.kv_shape.kv_heads as usize + index]
    }
}
