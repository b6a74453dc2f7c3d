//! K and V of the positions before a run: those of a block, or of a sequence that grows by tokens.

use hyperrag_kv::{Geometry, KvBlock};

/// What the tokens of a sequence come after.
#[derive(Clone, Copy)]
pub(crate) enum Past<'a> {
    /// A document part.
    Block(&'a KvBlock),
    /// A prompt and what was generated after it.
    Grown(&'a GrowingKv),
}

impl<'a> Past<'a> {
    /// Positions held.
    pub(crate) fn tokens(self) -> usize {
        match self {
            Self::Block(block) => block.tokens(),
            Self::Grown(grown) => grown.tokens,
        }
    }

    /// K of one KV head of one layer, `[position][dim]`.
    pub(crate) fn keys(self, layer: usize, head: usize) -> &'a [u8] {
        match self {
            Self::Block(block) => block.keys(layer, head),
            Self::Grown(grown) => grown.run(layer, head),
        }
    }

    /// V of one KV head of one layer, `[position][dim]`.
    pub(crate) fn values(self, layer: usize, head: usize) -> &'a [u8] {
        match self {
            Self::Block(block) => block.values(layer, head),
            Self::Grown(grown) => grown.run(layer, grown.geometry.kv_heads as usize + head),
        }
    }
}

/// K and V to which tokens are appended without moving those before: each head of each layer has a
/// run of its own, with room for all that will come.
pub(crate) struct GrowingKv {
    geometry: Geometry,
    tokens: usize,
    /// `[layer][K, then V][KV head]`, each `[position][dim]`.
    runs: Vec<Vec<u8>>,
}

impl GrowingKv {
    /// Without tokens, with room for `tokens`.
    pub(crate) fn with_room(geometry: Geometry, tokens: usize) -> Self {
        let runs = 2 * geometry.layers as usize * geometry.kv_heads as usize;
        let run = || Vec::with_capacity(geometry.head_bytes(tokens));
        Self { geometry, tokens: 0, runs: std::iter::repeat_with(run).take(runs).collect() }
    }

    /// Appends `tokens` positions; `kv` is laid out as in a block of them.
    pub(crate) fn append(&mut self, tokens: usize, kv: &[u8]) {
        let heads = kv.chunks_exact(self.geometry.head_bytes(tokens));
        for (run, head) in self.runs.iter_mut().zip(heads) {
            run.extend_from_slice(head);
        }
        self.tokens += tokens;
    }

    fn run(&self, layer: usize, index: usize) -> &[u8] {
        &self.runs[layer * 2 * self.geometry.kv_heads as usize + index]
    }
}
