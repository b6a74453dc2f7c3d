//! Blocks in a folder of a fast drive, one file each. In: whole blocks and a budget in bytes. Out: frames of their
//! files. What is asked for once makes room before what is asked for often (S3-FIFO, by `quick_cache`).
//!
//! The files are the truth, and the list in memory only says which of them makes room. So several processes may
//! use one folder: a file that vanished is absent, and one that another process wrote is found.

mod layout;
mod room;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyperrag_core::{
    Blob, BlobKey, FactValue, Fetch, FetchSink, Piece, Tier, TierError, TierFact, TierRole,
    TierShape,
};

use crate::cache::layout::{Layout, weight};
use crate::cache::room::Room;
use crate::counters::{CacheCounts, Counters, facts};
use crate::disk::tier_error;
use crate::ram::check_length;
use crate::runs::{BlockFiles, read_runs};

/// Length of a frame, in bytes.
const FRAME_BYTES: u64 = 1 << 20;

/// Least budget, in bytes: the folders of the files alone take a mebibyte.
const BUDGET_MIN: u64 = 4 << 20;

/// Bytes of the 256 folders and the marker, which the budget includes.
const FOLDERS_BYTES: u64 = 257 * 4096 + 4096;

/// Blocks in files of one folder, whole or not at all.
///
/// The folder has a marker file, without which nothing in it is touched. Files that the tier did not name are
/// left alone. A file is written under another name, and renamed when it is whole. It is not synced: after a
/// loss of power its bytes may be wrong, which whoever reads them notices.
pub struct CacheTier {
    name: String,
    folder: PathBuf,
    budget: u64,
    layout: Layout,
    room: Room,
    /// Locks by key: the list and the files change together. No one holds two.
    locks: [Mutex<()>; 64],
    counters: Arc<Counters>,
}

impl CacheTier {
    /// Opens or makes a cache of at most `budget` bytes of the drive, as `du` counts them. The files there are
    /// listed, not read. Each process that uses the folder keeps to the budget by what it has written or found;
    /// all of them together may exceed it.
    ///
    /// # Errors
    /// [`TierError::Refused`] for a budget under 4 MiB, for what is no folder, and for a folder that has files
    /// but no marker; else an error of the system.
    pub fn new(folder: &Path, budget: u64) -> Result<Self, TierError> {
        if budget < BUDGET_MIN {
            let said = format!("a cache of {budget} bytes: it needs at least {BUDGET_MIN}");
            return Err(TierError::Refused(said));
        }
        let layout = Layout::open(folder)?;
        let counters = Arc::new(Counters::default());
        let mut found = layout.list().map_err(|error| tier_error(folder, &error))?;
        // Those written long ago make room first.
        found.sort_unstable_by_key(|file| file.written);
        let room = Room::new(budget - FOLDERS_BYTES, Arc::clone(&counters));
        let name = format!("cache:{}:{budget}", folder.display());
        let locks = std::array::from_fn(|_| Mutex::default());
        let tier = Self { name, folder: folder.to_owned(), budget, layout, room, locks, counters };
        for file in found {
            tier.room.found(file.key, file.weight);
            tier.remove_evicted();
        }
        Ok(tier)
    }

    /// Returns what the tier did so far.
    #[must_use]
    pub fn counts(&self) -> CacheCounts {
        self.counters.now()
    }

    /// Returns the bytes of the drive that the blocks take.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.room.held() + FOLDERS_BYTES
    }

    fn lock(&self, key: &BlobKey) -> MutexGuard<'_, ()> {
        let lock =
            &self.locks[(usize::from(key.table[0]) ^ key.slot.0 as usize) % self.locks.len()];
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the files of blocks that made room. The list is not locked meanwhile.
    fn remove_evicted(&self) {
        for key in self.room.take_evicted() {
            let _lock = self.lock(&key);
            // Another thread may have stored it again.
            if !self.room.lists(&key) {
                // Best effort: a file that stays is found at the next start.
                let _ = self.layout.remove(&key);
            }
        }
    }

    /// Drops a block of which the file was cut or not written.
    fn forget(&self, key: &BlobKey) {
        let _lock = self.lock(key);
        self.room.drop_block(key);
        // Best effort, as above.
        let _ = self.layout.remove(key);
    }

    /// Writes a block's file and lists it.
    fn write(&self, blob: &Blob, bytes: &Bytes) -> Result<(), TierError> {
        let _lock = self.lock(&blob.key);
        let written = self.layout.write(&blob.key, bytes);
        let weight = written.map_err(|error| tier_error(&self.folder, &error))?;
        self.room.settle(&blob.key, weight);
        Ok(())
    }

    /// Writes a block for which the budget has room. Where the drive has none, other blocks make it, once.
    fn store(&self, blob: &Blob, bytes: &Bytes) -> Result<(), TierError> {
        match self.write(blob, bytes) {
            Err(TierError::Full(_)) if self.room.make(blob.bytes.saturating_mul(4)) => {
                self.remove_evicted();
                self.write(blob, bytes)
            }
            written => written,
        }
    }
}

impl BlockFiles for CacheTier {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn same_file(&self, one: &Blob, other: &Blob) -> bool {
        one == other
    }

    /// Opens a block's file. One of another length is removed: it was cut.
    fn open_file_of(&self, blob: &Blob) -> io::Result<Option<File>> {
        let key = &blob.key;
        let Some(file) = self.layout.open_file(key)? else {
            let _lock = self.lock(key);
            if self.layout.open_file(key)?.is_none() {
                self.room.vanished(key);
            }
            return Ok(None);
        };
        let found = file.metadata()?;
        if found.len() != blob.bytes {
            self.forget(key);
            return Ok(None);
        }
        if !self.room.asked(key) {
            // Another process wrote it, or it makes room at this moment.
            let lock = self.lock(key);
            if self.layout.open_file(key)?.is_some() {
                self.room.found(*key, weight(&found));
            }
            drop(lock);
            self.remove_evicted();
        }
        Ok(Some(file))
    }

    fn range_of(&self, piece: &Piece) -> Option<Range<u64>> {
        let range = piece.blob.frame(piece.frame, FRAME_BYTES);
        (!range.is_empty()).then_some(range)
    }
}

impl Tier for CacheTier {
    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> TierShape {
        TierShape {
            frame_bytes: FRAME_BYTES,
            streams: false,
            immediate: true,
            role: TierRole::Cache,
        }
    }

    /// Reads within the call. A read of a drive cannot be given up, so `patience` is not kept.
    fn fetch(&self, pieces: &[Piece], _: Duration, to: Arc<dyn FetchSink>) -> Box<dyn Fetch> {
        read_runs(self, pieces, |n, answer| {
            self.counters.asked(matches!(answer, Ok(Some(_))));
            to.deliver(n, answer);
        });
        Box::new(())
    }

    /// Stores a block. One that is larger than the budget allows is refused as [`TierError::Full`]. If the drive
    /// is full before the budget is, other blocks make room.
    fn put(&self, blob: &Blob, bytes: &Bytes) -> Result<(), TierError> {
        check_length(blob, bytes)?;
        if !self.room.reserve(&blob.key, layout::weight_of(blob.bytes)) {
            self.counters.came(false);
            let (bytes, budget) = (blob.bytes, self.budget);
            return Err(TierError::Full(format!("a block of {bytes} bytes, a budget of {budget}")));
        }
        self.remove_evicted();
        let stored = self.store(blob, bytes).inspect_err(|_| self.forget(&blob.key));
        self.counters.came(stored.is_ok());
        self.remove_evicted();
        stored
    }

    fn holds(&self, blobs: &[Blob]) -> Result<Vec<bool>, TierError> {
        let held = |blob: &Blob| {
            let length = match self.layout.open_file(&blob.key)? {
                Some(file) => Some(file.metadata()?.len()),
                None => None,
            };
            Ok(length == Some(blob.bytes))
        };
        let held: io::Result<Vec<bool>> = blobs.iter().map(held).collect();
        held.map_err(|error| tier_error(&self.folder, &error))
    }

    fn probe(&self) -> Result<Vec<TierFact>, TierError> {
        let free = self.layout.free_bytes().map_err(|error| tier_error(&self.folder, &error))?;
        let mut facts = facts(&self.counts(), self.budget, self.held_bytes(), self.room.blocks());
        facts.push(TierFact { name: "free_bytes", value: FactValue::Number(free as f64) });
        Ok(facts)
    }
}
