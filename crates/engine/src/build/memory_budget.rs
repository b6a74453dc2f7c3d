//! Memory that the stages of a build share.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use hyperrag_core::{Classified, ErrorKind, Hint};
use hyperrag_corpus::Limits;

/// Bytes that a build may take beyond the model's weights, and how its stages share them: reading,
/// units on their way and blocks on their way have a quarter each; what is left is for a unit's
/// chunk file, the index and the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    bytes: u64,
    document_bytes: u64,
}

/// A limit of memory too small for a build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{bytes} bytes of memory are too little{}",
    if *or_shorter_documents { " for the length of documents that is allowed" } else { "" },
)]
pub struct TooLittleMemory {
    bytes: u64,
    least: u64,
    or_shorter_documents: bool,
}

impl Classified for TooLittleMemory {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }

    fn hint(&self) -> Option<Hint> {
        let Self { least: bytes, or_shorter_documents, .. } = *self;
        Some(Hint::MemoryAtLeast { bytes, or_shorter_documents })
    }
}

impl Memory {
    /// Bytes without which the index, the program and a unit have no room.
    pub const LEAST: u64 = 256 << 20;
    /// Bytes where none are asked for.
    pub const DEFAULT: u64 = 1 << 30;
    /// Times the bytes of a document that they must be. It is held as a line or page, as text, as
    /// token ids of up to four times its bytes, in the index and in the chunk file.
    const DOCUMENTS: u64 = 64;

    /// Shares out `bytes`; without `document_bytes` a document may have as many as fit.
    ///
    /// # Errors
    /// [`TooLittleMemory`] names the least that does.
    pub fn new(bytes: u64, document_bytes: Option<u64>) -> Result<Self, TooLittleMemory> {
        let fitting = bytes / Self::DOCUMENTS;
        let document_bytes = document_bytes.unwrap_or(fitting);
        let least = document_bytes.saturating_mul(Self::DOCUMENTS);
        let or_shorter_documents = least > Self::LEAST && document_bytes > fitting;
        match bytes >= Self::LEAST && document_bytes <= fitting {
            true => Ok(Self { bytes, document_bytes }),
            false => {
                let least = least.max(Self::LEAST);
                Err(TooLittleMemory { bytes, least, or_shorter_documents })
            }
        }
    }

    /// Limits of reading the corpus.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { document_bytes: self.document_bytes, reader_bytes: self.bytes / 4 }
    }

    /// Room for all units together, from the first document read to the last block written.
    pub(crate) fn units(&self) -> Budget {
        Budget::new(self.bytes / 4)
    }

    /// Room for all blocks together, from the prefill to the disk.
    pub(crate) fn blocks(&self) -> Budget {
        Budget::new(self.bytes / 4)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { bytes: Self::DEFAULT, document_bytes: Self::DEFAULT / Self::DOCUMENTS }
    }
}

/// Bytes that several holders may have together. One stage takes, a later one gives back.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: u64,
    taken: Mutex<u64>,
    given_back: Condvar,
}

/// Bytes of a budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, taken: Mutex::new(0), given_back: Condvar::new() }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A share of nothing yet.
    pub(crate) fn share(&self) -> Share<'_> {
        Share { budget: self, bytes: 0 }
    }

    fn taken(&self) -> MutexGuard<'_, u64> {
        // A number is whole whoever panicked.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share<'_> {
    /// Waits until the budget has so many bytes more, or nobody else has any of it: what is larger
    /// than the whole goes through alone.
    pub(crate) fn grow(&mut self, bytes: u64) {
        let own = self.bytes;
        let full = |taken: &mut u64| *taken > own && *taken + bytes > self.budget.bytes;
        let waited = self.budget.given_back.wait_while(self.budget.taken(), full);
        *waited.unwrap_or_else(PoisonError::into_inner) += bytes;
        self.bytes += bytes;
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.budget.taken() -= self.bytes;
        self.budget.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn too_little_memory_names_the_least_that_does() {
        let check = |bytes, document: Option<u64>, least, or_shorter_documents| {
            let error = Memory::new(bytes, document).unwrap_err();
            let hint = Hint::MemoryAtLeast { bytes: least, or_shorter_documents };
            assert_eq!(error.hint(), Some(hint));
            error.to_string()
        };
        assert_eq!(Memory::new(Memory::DEFAULT, None), Ok(Memory::default()));
        assert_eq!(Memory::new(1 << 28, None).unwrap().limits().document_bytes, 4 << 20);
        assert_eq!(Memory::new(1 << 28, Some(5)).unwrap().limits().document_bytes, 5);
        for document in [None, Some(1)] {
            let error = check(100, document, 1 << 28, false);
            assert_eq!(error, "100 bytes of memory are too little");
        }
        let error = check(1 << 28, Some(16 << 20), 1 << 30, true);
        assert!(error.ends_with("too little for the length of documents that is allowed"));
        assert!(Memory::new(1 << 30, Some(u64::MAX)).is_err());
    }

    #[test]
    fn what_is_held_together_stays_within_the_budget() {
        let (budget, held, most) = (Budget::new(100), AtomicU64::new(0), AtomicU64::new(0));
        let (sender, receiver) = channel::<(u64, Share<'_>)>();
        thread::scope(|scope| {
            scope.spawn(|| {
                for (bytes, share) in receiver {
                    thread::yield_now();
                    held.fetch_sub(bytes, Ordering::SeqCst);
                    drop(share);
                }
            });
            for round in 0..2000 {
                let (mut share, mut all) = (budget.share(), 0);
                for bytes in [10, 7 * (round % 9)] {
                    share.grow(bytes);
                    all += bytes;
                    most.fetch_max(
                        held.fetch_add(bytes, Ordering::SeqCst) + bytes,
                        Ordering::SeqCst,
                    );
                }
                sender.send((all, share)).unwrap();
            }
            drop(sender);
        });
        assert!((60..=100).contains(&most.into_inner()));
    }

    #[test]
    fn what_is_larger_than_the_budget_goes_through_alone() {
        let budget = Budget::new(100);
        let mut large = budget.share();
        large.grow(500);
        large.grow(500);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.share().grow(1));
            assert!(!waiting.is_finished());
            drop(large);
        });
        assert_eq!(*budget.taken(), 0);
    }
}
