use std::sync::{Mutex, PoisonError};

use crate::Geometry;

/// Memory of blocks that are gone, for the next ones: a page fault every 4 KiB of fresh memory costs
/// more than reading a block from the page cache.
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Less than this the allocator keeps by itself; from here on it asks the system for fresh memory.
const SPARE_FROM: usize = 128 << 10;

/// What [`SPARE`] holds at most: two batches of blocks.
const SPARE_BYTES: usize = 192 << 20;

/// The K and V of one chunk, and the final hidden state of its last position.
///
/// `kv` is laid out `[layer][K, then V][KV head][position][dim]`, little-endian, the positions'
/// true number, nothing repeated and nothing padded. K carries its rotary position already.
#[derive(Clone, Debug, PartialEq)]
pub struct KvBlock {
    geometry: Geometry,
    tokens: usize,
    kv: Vec<u8>,
    hidden: Vec<f32>,
}

impl KvBlock {
    /// A block of `tokens` positions from its parts.
    ///
    /// # Panics
    /// If the lengths do not agree with the geometry; a reader checks them before.
    #[must_use]
    pub fn new(geometry: Geometry, tokens: usize, kv: Vec<u8>, hidden: Vec<f32>) -> Self {
        assert_eq!(kv.len(), tokens * geometry.token_bytes(), "length of K and V");
        assert_eq!(hidden.len(), geometry.hidden as usize, "length of the hidden state");
        Self { geometry, tokens, kv, hidden }
    }

    /// Memory for K and V of a block of `bytes`, with leftovers in it: to be overwritten, all of it.
    #[must_use]
    pub fn memory(bytes: usize) -> Vec<u8> {
        if bytes < SPARE_FROM {
            return vec![0; bytes];
        }
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        // Enough and not much more, so that small blocks leave the memory to large ones.
        let fits = |memory: &Vec<u8>| (bytes..=2 * bytes).contains(&memory.capacity());
        let found = spare.iter().position(fits).map(|i| spare.swap_remove(i));
        drop(spare);
        let mut memory = found.unwrap_or_else(|| vec![0; bytes]);
        memory.resize(bytes, 0);
        memory
    }

    /// Sizes and element type.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Positions held; the first query position is this number.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The final hidden state of the last position, after the last norm: the first query token's
    /// probability is read from it.
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
        let bytes = self.geometry.layer_bytes(self.tokens);
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
        self.head(layer, self.geometry.kv_heads as usize + head)
    }

    fn head(&self, layer: usize, index: usize) -> &[u8] {
        let bytes = self.geometry.head_bytes(self.tokens);
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
