//! Token ids and chunks that depend on a seed alone.

use hyperrag_core::Chunk;

use crate::blocks::chunk;

#[path = "../../../../tests/cli/seeded.rs"]
mod numbers;

pub(crate) use numbers::Seeded;

/// Draws token ids that depend on the seed alone.
pub(crate) fn tokens(seed: u64, count: usize) -> Vec<u32> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        3 + (state >> 33) as u32 % 280
    });
    next.take(count).collect()
}

/// Makes chunks of 1 to 60 tokens.
pub(crate) fn ragged(count: usize) -> Vec<Chunk> {
    (0..count).map(|i| chunk(&tokens(i as u64, 1 + i * 37 % 60))).collect()
}
