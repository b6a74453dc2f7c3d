//! Blocks in memory. In: whole blocks and a budget in bytes. Out: their bytes, without a copy. What is asked for
//! once makes room before what is asked for often (S3-FIFO, by `quick_cache`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyperrag_core::{
    Blob, BlobKey, Fetch, FetchSink, Piece, Tier, TierError, TierFact, TierRole, TierShape,
};
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::counters::{CacheCounts, Counters, facts};

/// Length of a usual block, in bytes. It sizes the list of blocks that are remembered after they made room. A
/// length that is four times too high or low costs little (`tests/hit_rate.rs`).
pub(crate) const BLOCK_BYTES_USUAL: u64 = 8 << 20;

/// Bytes that the tier needs for a block beside its own: key, place in the queues, header of the allocation.
const OVERHEAD: u64 = 256;

/// Blocks in the memory of this process, whole or not at all.
///
/// A block is one frame. The tier holds the [`Bytes`] that it is given, and gives the bytes that it holds:
/// nothing is copied. Bytes that are a part of a larger buffer keep all of it in memory, so a caller hands over
/// a buffer of the block's own.
pub struct RamTier {
    name: String,
    budget: u64,
    blocks: Cache<BlobKey, Bytes, BlockWeight, DefaultHashBuilder, Dropping>,
    counters: Arc<Counters>,
}

impl RamTier {
    /// Makes a tier of at most `budget` bytes. Memory is taken as blocks come.
    #[must_use]
    pub fn new(budget: u64) -> Self {
        Self::for_blocks(budget, BLOCK_BYTES_USUAL)
    }

    /// Makes a tier of at most `budget` bytes for blocks of about `block_bytes` bytes.
    #[must_use]
    pub fn for_blocks(budget: u64, block_bytes: u64) -> Self {
        let counters = Arc::new(Counters::default());
        let blocks = usize::try_from(budget / block_bytes.max(1)).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .weight_capacity(budget)
            .estimated_items_capacity(blocks.clamp(16, 1 << 24))
            .hot_allocation(HOT)
            .ghost_allocation(GHOST)
            // One lock: it is held for the copy of a pointer. Several would divide the budget.
            .shards(1)
            .build()
            .expect("both capacities are set");
        let dropping = Dropping(Arc::clone(&counters));
        let blocks = Cache::with_options(options, BlockWeight, Default::default(), dropping);
        Self { name: format!("ram:{budget}"), budget, blocks, counters }
    }

    /// Returns what the tier did so far.
    #[must_use]
    pub fn counts(&self) -> CacheCounts {
        self.counters.now()
    }

    /// Returns the bytes that the blocks and their keys take.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.blocks.weight()
    }

    fn read(&self, piece: &Piece) -> Option<Bytes> {
        let found = (piece.frame == 0).then(|| self.blocks.get(&piece.blob.key)).flatten();
        found.filter(|bytes| bytes.len() as u64 == piece.blob.bytes)
    }
}

impl Tier for RamTier {
    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> TierShape {
        TierShape { frame_bytes: u64::MAX, streams: false, immediate: true, role: TierRole::Cache }
    }

    fn fetch(&self, pieces: &[Piece], _: Duration, to: Arc<dyn FetchSink>) -> Box<dyn Fetch> {
        for (n, piece) in pieces.iter().enumerate() {
            let found = self.read(piece);
            self.counters.asked(found.is_some());
            to.deliver(n, Ok(found));
        }
        Box::new(())
    }

    /// Stores a block. One that is larger than the budget allows is refused as [`TierError::Full`], so that it
    /// does not drive all others out.
    fn put(&self, blob: &Blob, bytes: &Bytes) -> Result<(), TierError> {
        check_length(blob, bytes)?;
        let weight = BlockWeight.weight(&blob.key, bytes);
        let stored = weight <= hot_bytes(self.budget);
        self.counters.came(stored);
        if !stored {
            let (bytes, budget) = (blob.bytes, self.budget);
            return Err(TierError::Full(format!("a block of {bytes} bytes, a budget of {budget}")));
        }
        self.blocks.insert(blob.key, bytes.clone());
        Ok(())
    }

    fn holds(&self, blobs: &[Blob]) -> Result<Vec<bool>, TierError> {
        let held = |blob: &Blob| {
            self.blocks.peek(&blob.key).is_some_and(|bytes| bytes.len() as u64 == blob.bytes)
        };
        Ok(blobs.iter().map(held).collect())
    }

    fn probe(&self) -> Result<Vec<TierFact>, TierError> {
        Ok(facts(&self.counts(), self.budget, self.held_bytes(), self.blocks.len()))
    }
}

/// Share of a cache's budget for blocks that were asked for again, or came while there was room.
pub(crate) const HOT: f64 = 0.9;

/// Entries remembered after they made room, as a share of those held.
pub(crate) const GHOST: f64 = 0.5;

/// Returns the largest weight of one block, which `quick_cache` takes if it fits into the hot share.
pub(crate) fn hot_bytes(budget: u64) -> u64 {
    (budget as f64 * HOT) as u64
}

/// Refuses bytes that are not as many as the block has.
pub(crate) fn check_length(blob: &Blob, bytes: &Bytes) -> Result<(), TierError> {
    if bytes.is_empty() || bytes.len() as u64 != blob.bytes {
        let (key, found, expected) = (blob.key, bytes.len(), blob.bytes);
        return Err(TierError::Refused(format!("block {key} has {found} bytes, not {expected}")));
    }
    Ok(())
}

/// Weight of a block: its bytes and what the tier needs beside them.
#[derive(Clone)]
struct BlockWeight;

impl Weighter<BlobKey, Bytes> for BlockWeight {
    fn weight(&self, _: &BlobKey, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + OVERHEAD
    }
}

/// Counts evicted blocks, and keeps them until the lock is free: memory is given back outside it.
#[derive(Clone)]
struct Dropping(Arc<Counters>);

impl Lifecycle<BlobKey, Bytes> for Dropping {
    type RequestState = Vec<(BlobKey, Bytes)>;

    fn before_evict(&self, _: &mut Self::RequestState, _: &BlobKey, _: &mut Bytes) {
        self.0.evicted(1);
    }

    fn on_evict(&self, state: &mut Self::RequestState, key: BlobKey, bytes: Bytes) {
        state.push((key, bytes));
    }
}

#[cfg(test)]
mod tests {
    use hyperrag_core::{ShardId, Slot};

    use super::*;

    fn blob(slot: u32, bytes: u64) -> Blob {
        let key = BlobKey { table: [1; 16], slot: Slot(slot) };
        Blob { key, shard: ShardId(0), offset: 0, bytes }
    }

    fn zeros(bytes: usize) -> Bytes {
        vec![0; bytes].into()
    }

    #[test]
    fn a_block_larger_than_the_budget_is_refused_and_drives_nothing_out() {
        let tier = RamTier::new(100_000);
        tier.put(&blob(0, 1000), &zeros(1000)).unwrap();
        for bytes in [100_000, 200_000] {
            let refused = tier.put(&blob(1, bytes), &zeros(usize::try_from(bytes).unwrap()));
            assert!(matches!(refused, Err(TierError::Full(_))), "{refused:?}");
        }
        assert_eq!(tier.holds(&[blob(0, 1000), blob(1, 100_000)]).unwrap(), [true, false]);
        let none = RamTier::new(0);
        assert!(none.put(&blob(0, 1), &zeros(1)).is_err());
        assert_eq!(tier.counts(), CacheCounts { puts: 1, refused: 2, ..CacheCounts::default() });
    }

    #[test]
    fn the_budget_holds_with_keys_counted_and_bytes_are_not_copied() {
        let tier = RamTier::new(1_000_000);
        for slot in 0..1000 {
            tier.put(&blob(slot, 9000), &zeros(9000)).unwrap();
            assert!(tier.held_bytes() <= 1_000_000);
        }
        let held = tier.blocks.len();
        assert!((90..=108).contains(&held), "{held}");
        assert_eq!(tier.counts().evicted, 1000 - held as u64);
        let (bytes, last) = (zeros(9000), blob(1000, 9000));
        tier.put(&last, &bytes).unwrap();
        let read = tier.read(&Piece { blob: last, frame: 0 }).unwrap();
        assert_eq!(read.as_ptr(), bytes.as_ptr());
        // Bytes of another length are not those of the block.
        assert_eq!(tier.read(&Piece { blob: blob(1000, 8999), frame: 0 }), None);
    }
}
