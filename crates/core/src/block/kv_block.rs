//! The KV block of one chunk: lengths and bytes come in, slices by layer and head go out. Keeps the memory of
//! dropped blocks for the next ones. Knows no storage and no model.

use std::sync::{Mutex, PoisonError};

use super::kv_shape::KvShape;

/// Memory of dropped blocks, for the next ones. A page fault every 4 KiB of fresh memory costs more than
/// reading a block from the page cache.
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Smallest buffer that [`SPARE`] keeps, in bytes. The allocator reuses smaller ones itself; for larger ones
/// it asks the system for fresh memory.
const SPARE_FROM: usize = 128 << 10;

/// Largest size of [`SPARE`], two batches of blocks, in bytes.
const SPARE_BYTES: usize = 192 << 20;

/// The K and V of one chunk, and the final hidden state of its last position.
///
/// `kv` is laid out `[layer][K, then V][KV head][position][dim]`, little-endian, without repetition or
/// padding. K already carries its rotary position.
#[derive(Clone, Debug, PartialEq)]
pub struct KvBlock {
    kv_shape: KvShape,
    tokens: usize,
    kv: Vec<u8>,
    hidden: Vec<f32>,
}

impl KvBlock {
    /// Makes a block of `tokens` positions from its parts.
    ///
    /// # Panics
    /// If the lengths do not agree with the shape. A reader checks them first.
    #[must_use]
    pub fn new(kv_shape: KvShape, tokens: usize, kv: Vec<u8>, hidden: Vec<f32>) -> Self {
        assert_eq!(kv.len(), tokens * kv_shape.token_bytes(), "length of K and V");
        assert_eq!(hidden.len(), kv_shape.hidden as usize, "length of the hidden state");
        Self { kv_shape, tokens, kv, hidden }
    }

    /// Returns a buffer of `bytes` bytes for K and V. It may hold old data, so the caller overwrites all of
    /// it.
    #[must_use]
    pub fn memory(bytes: usize) -> Vec<u8> {
        if bytes < SPARE_FROM {
            return vec![0; bytes];
        }
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        // At most twice the size asked for, so that small blocks leave the large buffers to large ones.
        let fits = |memory: &Vec<u8>| (bytes..=2 * bytes).contains(&memory.capacity());
        let found = spare.iter().position(fits).map(|i| spare.swap_remove(i));
        drop(spare);
        let mut memory = found.unwrap_or_else(|| vec![0; bytes]);
        memory.resize(bytes, 0);
        memory
    }

    /// Sizes and element type.
    #[must_use]
    pub fn kv_shape(&self) -> &KvShape {
        &self.kv_shape
    }

    /// Positions held. The first query token has this position.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The final hidden state of the last position, after the last norm. The probability of the first query
    /// token is computed from it.
    #[must_use]
    pub fn hidden(&self) -> &[f32] {
        &self.hidden
    }

    /// All of K and V.
    #[must_use]
    pub fn kv(&self) -> &[u8] {
        &self.kv
    }

    /// K and V of one layer.
    #[must_use]
    pub fn layer(&self, layer: usize) -> &[u8] {
        let bytes = self.kv_shape.layer_bytes(self.tokens);
        &self.kv[layer * bytes..(layer + 1) * bytes]
    }

    /// K of one KV head of one layer, `[position][dim]`.
    #[must_use]
    pub fn keys(&self, layer: usize, head: usize) -> &[u8] {
        self.head(layer, head)
    }

    /// V of one KV head of one layer, `[position][dim]`.
    #[must_use]
    pub fn values(&self, layer: usize, head: usize) -> &[u8] {
        self.head(layer, self.kv_shape.kv_heads as usize + head)
    }

    fn head(&self, layer: usize, index: usize) -> &[u8] {
        let bytes = self.kv_shape.head_bytes(self.tokens);
        &self.layer(layer)[index * bytes..(index + 1) * bytes]
    }
}

impl Drop for KvBlock {
    fn drop(&mut self) {
        if self.kv.capacity() < SPARE_FROM {
            return;
        }
        let memory = std::mem::take(&mut self.kv);
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        spare.push(memory);
        while spare.iter().map(Vec::capacity).sum::<usize>() > SPARE_BYTES {
            spare.remove(0);
        }
    }
}
