//! Bytes that a build may still take on its disk.

use std::fs;
use std::path::{Path, PathBuf};

use hyperrag_core::LanguageModel;
use hyperrag_store::{Manifest, ShardInput};

use crate::build::plan::BuildInput;
use crate::error::EngineError;

/// Bytes of the index for a byte of text, at most: text, words and postings, and as much again while
/// segments are merged.
const INDEX_BYTES: u64 = 6;
/// Bytes of the index and of the manifest for a unit, at most, whatever its text.
const UNIT_BYTES: u64 = 64 << 10;

/// Bytes that a build may still take.
pub(crate) struct DiskBudget {
    root: PathBuf,
    /// Bytes of what is sealed, and at most of what was let through since.
    taken: u64,
    /// Whether the free bytes of the disk were read.
    has_read_disk: bool,
}

impl DiskBudget {
    /// Counts what the store at `root` takes already.
    pub(crate) fn of(root: &Path, sealed: &Manifest) -> Self {
        let files = sealed.shards.iter().map(|shard| shard.kv.bytes + shard.chunk_file.bytes);
        let index = folder_bytes(&root.join(sealed.index_folder()));
        let taken = files.sum::<u64>() + 2 * index + sealed.shards.len() as u64 * 1024 + UNIT_BYTES;
        Self { root: root.to_owned(), taken, has_read_disk: false }
    }

    /// Lets a unit through if the store with it stays within its limit, and the first only if the
    /// disk has room for it.
    pub(crate) fn take<M: LanguageModel>(
        &mut self,
        input: &BuildInput<'_, M>,
        unit: &ShardInput,
    ) -> Result<(), EngineError> {
        let bytes =
            unit.bytes_max(input.model.kv_shape()) + INDEX_BYTES * unit.text_bytes() + UNIT_BYTES;
        let needed = self.taken + bytes;
        if let Some(max) = input.max_bytes.filter(|max| needed > *max) {
            return Err(EngineError::MaxBytes { unit: unit.shard.0, needed, max });
        }
        self.taken = needed;
        if !std::mem::replace(&mut self.has_read_disk, true) {
            self.check_disk(input, unit, bytes)?;
        }
        Ok(())
    }

    fn check_disk<M>(
        &self,
        input: &BuildInput<'_, M>,
        unit: &ShardInput,
        needed: u64,
    ) -> Result<(), EngineError> {
        // Where the system does not say, the disk says so when it is full.
        let Some(free) = free_bytes(&self.root) else { return Ok(()) };
        if free < needed {
            return Err(EngineError::NoRoom { path: self.root.clone(), free, needed });
        }
        let counts = input.progress.counts();
        let size = input.corpus.size();
        let share = counts.bytes_read as f64 / size.bytes.max(1) as f64;
        let rows = size.rows.map_or(counts.rows_read as f64 / share, |rows| rows as f64);
        let rows = rows.min(input.limit.unwrap_or(u64::MAX) as f64);
        let left = rows - unit.shard.0 as f64 * unit.rows as f64;
        let all = needed as f64 * left / unit.rows.max(1) as f64;
        if all > free as f64 && input.max_bytes.is_none() {
            let warning = format!(
                "{}: {free} bytes are free, and the build will need about {all:.0}, to judge by its \
                 next unit; where the disk is full it stops and can be gone on with",
                self.root.display()
            );
            (input.warn)(&warning.into());
        }
        Ok(())
    }
}

/// Bytes that the disk of a folder has free, where the system says so.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes of the files in a folder.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
