//! Choice of the blocks of a cache that make room. In: keys and the bytes that they take. Out: keys of those to remove. It
//! knows no file.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyperrag_core::{BlobKey, Slot};
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::counters::Counters;
use crate::ram::{BLOCK_BYTES_USUAL, GHOST, HOT, hot_bytes};

/// Key of no block. While it is in the list, others make room for it.
const BALLAST: BlobKey = BlobKey { table: [0; 16], slot: Slot(u32::MAX) };

/// List of the blocks of a cache, by weight.
pub(super) struct Room {
    budget: u64,
    blocks: Cache<BlobKey, Entry, EntryWeight, DefaultHashBuilder, Collecting>,
    evicted: Arc<Mutex<Vec<BlobKey>>>,
    counters: Arc<Counters>,
}

/// A block in the list.
#[derive(Clone, Copy)]
struct Entry {
    weight: u64,
    /// Whether its file is still being written. Then it makes no room.
    pending: bool,
}

impl Room {
    pub(super) fn new(budget: u64, counters: Arc<Counters>) -> Self {
        let blocks = usize::try_from(budget / BLOCK_BYTES_USUAL).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .weight_capacity(budget)
            .estimated_items_capacity(blocks.clamp(16, 1 << 24))
            .hot_allocation(HOT)
            .ghost_allocation(GHOST)
            // Several would divide the budget. This one is never held while a file is touched.
            .shards(1)
            .build()
            .expect("both capacities are set");
        let evicted = Arc::new(Mutex::default());
        let collecting = Collecting(Arc::clone(&evicted));
        let blocks = Cache::with_options(options, EntryWeight, Default::default(), collecting);
        Self { budget, blocks, evicted, counters }
    }

    /// Returns the weight of all blocks.
    pub(super) fn held(&self) -> u64 {
        self.blocks.weight()
    }

    /// Returns the number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Adds a block whose file is there. One that is too large for the budget is not listed.
    pub(super) fn found(&self, key: BlobKey, weight: u64) {
        if weight <= hot_bytes(self.budget) {
            self.blocks.insert(key, Entry { weight, pending: false });
        }
    }

    /// Notes that a block was asked for. Returns whether it is in the list.
    pub(super) fn asked(&self, key: &BlobKey) -> bool {
        self.blocks.get(key).is_some()
    }

    /// Whether a block is in the list. It does not count as asked for.
    pub(super) fn lists(&self, key: &BlobKey) -> bool {
        self.blocks.contains_key(key)
    }

    /// Makes room for a block before its file is written. Returns whether it fits the budget at all.
    pub(super) fn reserve(&self, key: &BlobKey, weight: u64) -> bool {
        let fits = weight <= hot_bytes(self.budget);
        if fits {
            self.blocks.insert(*key, Entry { weight, pending: true });
        }
        fits
    }

    /// Notes that a block's file is there.
    pub(super) fn settle(&self, key: &BlobKey, weight: u64) {
        // Soft: it was not asked for again.
        let entry = Entry { weight, pending: false };
        if self.blocks.replace(*key, entry, true).is_err() {
            self.blocks.insert(*key, entry);
        }
    }

    /// Takes a block out of the list.
    pub(super) fn drop_block(&self, key: &BlobKey) {
        self.blocks.remove(key);
    }

    /// Notes that a block's file is gone, unless it is just being written.
    pub(super) fn vanished(&self, key: &BlobKey) {
        self.blocks.remove_if(key, |entry| !entry.pending);
    }

    /// Lets blocks of this weight, or a hundredth of all, make room. Returns whether any did.
    pub(super) fn make(&self, weight: u64) -> bool {
        let held = self.held();
        let wanted = weight.max(held / 100);
        let ballast = self.budget.saturating_sub(held).saturating_add(wanted).min(self.budget);
        // Pending, as what makes no room itself.
        self.blocks.insert(BALLAST, Entry { weight: ballast, pending: true });
        self.blocks.remove(&BALLAST);
        self.held() < held
    }

    /// Returns the blocks that made room since the last call and are not back in the list.
    pub(super) fn take_evicted(&self) -> Vec<BlobKey> {
        let mut evicted = std::mem::take(&mut *lock(&self.evicted));
        // A block that is stored again replaces itself, which counts as eviction.
        evicted.retain(|key| *key != BALLAST && !self.lists(key));
        self.counters.evicted(evicted.len() as u64);
        evicted
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct EntryWeight;

impl Weighter<BlobKey, Entry> for EntryWeight {
    fn weight(&self, _: &BlobKey, entry: &Entry) -> u64 {
        entry.weight
    }
}

/// Collects the keys of evicted blocks, so that their files are removed without a lock.
#[derive(Clone)]
struct Collecting(Arc<Mutex<Vec<BlobKey>>>);

impl Lifecycle<BlobKey, Entry> for Collecting {
    type RequestState = ();

    fn is_pinned(&self, _: &BlobKey, entry: &Entry) -> bool {
        entry.pending
    }

    fn on_evict(&self, (): &mut Self::RequestState, key: BlobKey, _: Entry) {
        lock(&self.0).push(key);
    }
}
