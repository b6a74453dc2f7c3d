use std::sync::atomic::{AtomicU64, Ordering};

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
