//! Counters that a job moves on and anybody may read. They do not know who shows them.

use std::sync::atomic::{AtomicU64, Ordering};

use hyperrag_store::Manifest;

/// Counters that a build moves on and anybody may read.
#[derive(Debug, Default)]
pub struct BuildProgress {
    pub(crate) bytes_read: AtomicU64,
    pub(crate) rows_read: AtomicU64,
    pub(crate) rows_done: AtomicU64,
    pub(crate) documents: AtomicU64,
    pub(crate) tokens: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of input read.
    pub bytes_read: u64,
    /// Rows of input read: ahead of those done.
    pub rows_read: u64,
    /// Rows whose blocks are computed or were there.
    pub rows_done: u64,
    /// Documents whose blocks were computed now.
    pub documents: u64,
    /// Positions computed now.
    pub tokens: u64,
    /// Bytes of blocks computed now.
    pub bytes_written: u64,
}

impl BuildProgress {
    /// Reads the counters.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            bytes_read: get(&self.bytes_read),
            rows_read: get(&self.rows_read),
            rows_done: get(&self.rows_done),
            documents: get(&self.documents),
            tokens: get(&self.tokens),
            bytes_written: get(&self.bytes_written),
        }
    }

    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// Bytes that a job over a store has done, and has to do.
#[derive(Debug, Default)]
pub struct ByteProgress {
    pub(crate) done: AtomicU64,
    pub(crate) all: AtomicU64,
}

impl ByteProgress {
    /// Bytes done, and bytes in all.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.all.load(Ordering::Relaxed))
    }

    pub(crate) fn expect(&self, manifest: &Manifest) {
        let bytes = manifest.shards.iter().map(|shard| shard.kv.bytes + shard.chunk_file.bytes);
        self.all.store(bytes.sum(), Ordering::Relaxed);
    }
}
