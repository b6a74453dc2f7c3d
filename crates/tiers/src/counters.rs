//! Counts what a cache did. In: events, from any thread. Out: their numbers, as facts of a probe.

use std::sync::atomic::{AtomicU64, Ordering};

use hyperrag_core::{FactValue, TierFact};

/// Numbers of what a cache did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Pieces that were there.
    pub hits: u64,
    /// Pieces that were absent.
    pub misses: u64,
    /// Blocks that were stored.
    pub puts: u64,
    /// Blocks that were not stored: too large, or no room.
    pub refused: u64,
    /// Blocks that made room for others.
    pub evicted: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    puts: AtomicU64,
    refused: AtomicU64,
    evicted: AtomicU64,
}

impl Counters {
    /// Counts a piece that was asked for.
    pub(crate) fn asked(&self, found: bool) {
        let counter = if found { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a block that came.
    pub(crate) fn came(&self, stored: bool) {
        let counter = if stored { &self.puts } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn evicted(&self, blocks: u64) {
        self.evicted.fetch_add(blocks, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> CacheCounts {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheCounts {
            hits: now(&self.hits),
            misses: now(&self.misses),
            puts: now(&self.puts),
            refused: now(&self.refused),
            evicted: now(&self.evicted),
        }
    }
}

/// Returns the facts of a cache.
pub(crate) fn facts(counts: &CacheCounts, budget: u64, held: u64, blocks: usize) -> Vec<TierFact> {
    [
        ("budget_bytes", budget),
        ("held_bytes", held),
        ("held_blocks", blocks as u64),
        ("hits", counts.hits),
        ("misses", counts.misses),
        ("puts", counts.puts),
        ("refused_blocks", counts.refused),
        ("evicted_blocks", counts.evicted),
    ]
    .map(|(name, number)| TierFact { name, value: FactValue::Number(number as f64) })
    .into()
}
