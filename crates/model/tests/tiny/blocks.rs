//! Chunks, and comparisons to the bit, for the tests of both models.

use hyperrag_core::{Chunk, ChunkId, DocId, KvBlock};

/// Makes a chunk of these tokens.
pub(crate) fn chunk(tokens: &[u32]) -> Chunk {
    let document = DocId::new("document").unwrap();
    Chunk { id: ChunkId { document, ordinal: 0 }, tokens: tokens.to_vec() }
}

/// Returns the bits of scores: `==` on floats would take `-0.0` for `0.0`.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Whether two blocks are equal to the bit.
pub(crate) fn same(a: &KvBlock, b: &KvBlock) -> bool {
    a.tokens() == b.tokens() && a.kv() == b.kv() && bits(a.hidden()) == bits(b.hidden())
}
