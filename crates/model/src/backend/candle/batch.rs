//! Cuts sequences into batches that fit into a device's memory.
//!
//! In: items, and the rows, positions and bytes of each. Out: results in the items' order. It does not
//! know what a pass computes.

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Error};
use hyperrag_core::{KvShape, ModelError, Warning};

use crate::arch::config::Config;
use crate::backend::candle::choice::DeviceSettings;
use crate::backend::candle::transfer;
use crate::backend::candle::transfer::first_line;

/// Share of the free memory that the activations of one pass may take. Blocks lie there too, and the
/// allocator needs room.
const MEMORY_SHARE: f64 = 0.4;
/// Largest number of rows in a pass: enough to fill any GPU, and few enough that the elements of the
/// widest tensor can be counted in 31 bits.
const ROWS_MAX: usize = 1 << 15;
/// Memory to assume for a device that does not state it, such as candle's CPU device, in bytes.
const MEMORY_BYTES: usize = 1 << 30;

/// Decides how many sequences go through a pass together.
pub(super) struct Batching {
    memory_bytes: usize,
    /// Size of a row's activations without attention, in bytes.
    row_bytes: usize,
    /// Size of the data that a row holds for each position to which it attends, in bytes.
    attention_bytes: usize,
    /// Bound set by passes that did not fit.
    sequences_max: AtomicUsize,
    warn: fn(&Warning),
}

impl Batching {
    pub(super) fn new(
        config: &Config,
        kv_shape: &KvShape,
        settings: DeviceSettings,
        device: &Device,
    ) -> Self {
        let qkv = (config.heads + 2 * config.kv_heads) * config.head_dim;
        let free = || transfer::free_bytes(device).unwrap_or(MEMORY_BYTES) as f64;
        Self {
            memory_bytes: settings.memory_bytes.unwrap_or_else(|| (free() * MEMORY_SHARE) as usize),
            // About two copies of each tensor live at once, in f32 and in the products' type.
            row_bytes: 16 * config.hidden
                + 16 * qkv
                + 8 * config.feed_forward
                + 2 * kv_shape.token_bytes(),
            // Scores, masked scores, weights, and the results of soft caps.
            attention_bytes: (12 + 8 * usize::from(config.attention_cap.is_some())) * config.heads,
            sequences_max: AtomicUsize::new(usize::MAX),
            warn: settings.warn,
        }
    }

    /// Returns the number of sequences of `rows` rows that fit together, if each row sees `positions`
    /// positions. `held` is the number of other bytes for each sequence.
    fn fitting(&self, rows: usize, positions: usize, held: usize) -> usize {
        let sequence = rows * (self.row_bytes + positions * self.attention_bytes) + held;
        let fitting = (self.memory_bytes / sequence.max(1)).min(ROWS_MAX / rows.max(1));
        fitting.min(self.sequences_max.load(Ordering::Relaxed)).max(1)
    }

    /// Runs `pass` over all `items`, cut into batches. `shape` gives rows a sequence, positions a row
    /// and held bytes, for a batch that starts with this item. A batch that does not fit is halved, and
    /// so are all later ones.
    pub(super) fn run<T, R>(
        &self,
        items: &[T],
        shape: impl Fn(&T) -> (usize, usize, usize),
        mut pass: impl FnMut(&[T]) -> candle_core::Result<Vec<R>>,
    ) -> Result<Vec<R>, ModelError> {
        let mut done = Vec::with_capacity(items.len());
        while let Some(first) = items.get(done.len()) {
            let (rows, positions, held) = shape(first);
            let rest = &items[done.len()..];
            let batch = &rest[..self.fitting(rows, positions, held).min(rest.len())];
            match pass(batch) {
                Ok(results) => done.extend(results),
                Err(error) if !is_out_of_memory(&error) => {
                    return Err(ModelError::Device(first_line(&error)));
                }
                Err(_) if batch.len() == 1 => return Err(ModelError::OutOfMemory { rows }),
                Err(_) => {
                    let half = batch.len() / 2;
                    self.sequences_max.fetch_min(half, Ordering::Relaxed);
                    let warning = format!(
                        "the device ran out of memory with {} sequences at once, going on with {half}",
                        batch.len()
                    );
                    (self.warn)(&warning.into());
                }
            }
        }
        Ok(done)
    }
}

/// Whether the failure is lack of memory. The codes of the driver and of cuBLAS arrive as text only:
/// candle boxes its errors, some of them as strings.
fn is_out_of_memory(error: &Error) -> bool {
    let text = format!("{error:?}");
    text.contains("OUT_OF_MEMORY") || text.contains("ALLOC_FAILED")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    static NOTICES: Mutex<Vec<String>> = Mutex::new(Vec::new());

    fn batching(memory_bytes: usize) -> Batching {
        Batching {
            memory_bytes,
            row_bytes: 8,
            attention_bytes: 1,
            sequences_max: AtomicUsize::new(usize::MAX),
            warn: |warning| NOTICES.lock().unwrap().push(warning.what.clone()),
        }
    }

    fn too_little_memory() -> Error {
        Error::Msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".to_owned())
    }

    #[test]
    fn batches_fit_into_memory_and_into_the_rows() {
        // Two rows of 8 + 4 bytes and 6 bytes held: 30 bytes a sequence.
        assert_eq!(batching(100).fitting(2, 4, 6), 3);
        assert_eq!(batching(10).fitting(2, 4, 6), 1);
        assert_eq!(batching(usize::MAX).fitting(1000, 0, 0), 32);
    }

    #[test]
    fn a_batch_that_does_not_fit_is_halved_for_good() {
        let batching = batching(1000);
        let items: Vec<u32> = (0..20).collect();
        let mut sizes = Vec::new();
        let doubled = batching.run(
            &items,
            |_| (1, 0, 100),
            |batch| {
                sizes.push(batch.len());
                match batch.len() {
                    ..3 => Ok(batch.iter().map(|item| 2 * item).collect()),
                    _ => Err(too_little_memory()),
                }
            },
        );
        assert_eq!(doubled.unwrap(), items.iter().map(|item| 2 * item).collect::<Vec<_>>());
        assert_eq!(sizes[..3], [9, 4, 2]);
        assert!(sizes[2..].iter().all(|size| *size == 2));
        let notices = NOTICES.lock().unwrap();
        assert!(notices[0].contains("9 sequences") && notices[0].ends_with("with 4"));
    }

    #[test]
    fn one_sequence_that_does_not_fit_and_other_errors_are_told() {
        let run = |error: fn() -> Error| {
            batching(0).run(&[7], |_| (5, 0, 0), move |_| Err::<Vec<u8>, _>(error()))
        };
        assert!(matches!(run(too_little_memory), Err(ModelError::OutOfMemory { rows: 5 })));
        let failed = run(|| Error::Msg("cublas is gone\n   0: a backtrace".to_owned()));
        assert!(matches!(failed, Err(ModelError::Device(what)) if what == "cublas is gone"));
    }
}
