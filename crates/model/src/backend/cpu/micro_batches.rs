//! Groups sequences into micro-batches, and divides the threads among these.
//!
//! In: items with their numbers of rows, a pool of threads, the rows of a tile. Out: results in the items'
//! order. It does not know what computes them. With enough rows, each thread runs micro-batches of its own
//! from the first layer to the last, and waits for no other thread after a step. Micro-batches are large:
//! all rows of one multiply a layer's weights while these are in the last-level cache.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

/// Largest number of rows in a micro-batch; a single item may have more.
pub(crate) const MICRO_BATCH_ROWS: usize = 1024;
/// Minimum rows for a thread to run micro-batches of its own. With fewer, loading the weights into its
/// cache dominates.
const OWN_ROWS: usize = 96;
/// Number of rows that could be computed while the weights of a micro-batch come from memory.
const WEIGHTS_ROWS: usize = 64;

/// Micro-batches that share the threads.
pub(crate) struct MicroBatches {
    threads: usize,
    /// Number of micro-batches that are not done.
    left: AtomicUsize,
}

impl MicroBatches {
    pub(crate) fn new(threads: usize, count: usize) -> Self {
        Self { threads, left: AtomicUsize::new(count) }
    }

    /// Number of threads for each micro-batch: more than one if fewer are left than there are threads.
    pub(crate) fn threads(&self) -> usize {
        self.threads.div_ceil(self.left.load(Ordering::Relaxed).max(1))
    }

    fn done(&self) {
        self.left.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Calls `compute` for the items of each micro-batch on the threads of `pool`, and returns the results in
/// the items' order. `rows` gives the number of rows of an item, `tile` the rows of a tile; `prefetch`
/// gets the items of a micro-batch some time before they are computed.
pub(crate) fn in_micro_batches<T: Sync, R: Send>(
    pool: &rayon::ThreadPool,
    tile: usize,
    items: &[T],
    rows: impl Fn(&T) -> usize,
    prefetch: impl Fn(&[T]) + Sync,
    compute: impl Fn(&[T], &MicroBatches) -> Vec<R> + Sync,
) -> Vec<R> {
    let threads = pool.current_num_threads();
    let cut: Vec<&[T]> = cut(items, rows, threads, tile);
    let batches = MicroBatches::new(threads, cut.len());
    let one = |i: usize| {
        if let Some(later) = cut.get(i + threads) {
            prefetch(later);
        }
        let made = compute(cut[i], &batches);
        batches.done();
        (i, made)
    };
    cut.iter().copied().take(threads).for_each(&prefetch);
    // A parallel bridge, because micro-batches should begin in their order.
    let mut made: Vec<_> = pool.install(|| (0..cut.len()).par_bridge().map(one).collect());
    made.sort_unstable_by_key(|(i, _)| *i);
    made.into_iter().flat_map(|(_, made)| made).collect()
}

/// Cuts `items` into micro-batches.
fn cut<T>(items: &[T], rows: impl Fn(&T) -> usize, threads: usize, tile: usize) -> Vec<&[T]> {
    let all: usize = items.iter().map(&rows).sum();
    if all < threads * OWN_ROWS {
        return if items.is_empty() { Vec::new() } else { vec![items] };
    }
    let mean = all.div_ceil(items.len());
    // Number of rows until the last thread is done, if all items had the mean length.
    let time = |count: &usize| {
        let rounds = items.len().div_ceil(*count).div_ceil(threads);
        rounds * ((count * mean).next_multiple_of(tile) + WEIGHTS_ROWS)
    };
    let most = (MICRO_BATCH_ROWS / mean).clamp(1, items.len());
    let rows_max = (1..=most).min_by_key(time).unwrap_or(1) * mean;
    let mut rest = items;
    let next = || {
        let mut sum = 0;
        let fits = rest.iter().take_while(|item| {
            sum += rows(item);
            sum <= rows_max
        });
        let (batch, later) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = later;
        (!batch.is_empty()).then_some(batch)
    };
    std::iter::from_fn(next).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn passes_fill_tiles_and_threads() {
        let counts = |items: usize, rows: usize, threads| {
            let items = vec![rows; items];
            cut(&items, |rows| *rows, threads, 32)
                .iter()
                .map(|batch| batch.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(counts(100, 19, 2), [50; 2]);
        assert_eq!(counts(100, 19, 16).len(), 15);
        // Two micro-batches of half the items would be too large, three would leave a thread idle.
        assert_eq!(counts(107, 19, 2), [27, 27, 27, 26]);
        assert_eq!(counts(8, 256, 2), [4; 2]);
        assert_eq!(counts(24, 256, 2), [4; 6]);
        // Too few rows for separate micro-batches.
        assert_eq!(counts(9, 19, 2), [9]);
        assert_eq!(counts(1, 2000, 2), [1]);
        assert_eq!(counts(0, 1, 2), [0; 0]);
    }

    proptest! {
        #[test]
        fn every_item_is_in_a_pass(
            rows in prop::collection::vec(0_usize..600, 0..60), threads in 1_usize..20, tile in 1_usize..33,
        ) {
            let batches = cut(&rows, |rows| *rows, threads, tile);
            prop_assert!(batches.iter().all(|batch| !batch.is_empty()));
            prop_assert_eq!(batches.concat(), rows);
        }
    }
}
