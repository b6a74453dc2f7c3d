//! Rewrites shards without the documents that were deleted or replaced.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hyperrag_core::Warning;
use hyperrag_store::{Manifest, StoreWriter};
use serde::Serialize;

use crate::error::EngineError;
use crate::index::{analyzer, rebuild_from_own};
use crate::progress::ByteProgress;

/// Report of a compaction.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Compaction {
    /// Documents that counted no longer, and are gone.
    pub documents_dropped: u64,
    /// Shards before.
    pub shards_before: usize,
    /// Shards now.
    pub shards: usize,
    /// Bytes of shards and chunk files before.
    pub bytes_before: u64,
    /// Bytes of shards and chunk files that the store now has.
    pub bytes: u64,
    /// Bytes freed on the disk, those of earlier changes included. What a reader still uses is freed
    /// by a later one.
    pub bytes_freed: u64,
    /// Seconds taken.
    pub seconds: f64,
}

/// Rewrites every shard of the store at `root` that holds deleted documents, leaves these out, and
/// rebuilds the index. Readers are not disturbed: whoever has the store open goes on with what it
/// was. Stopped at any point before its end, it has changed nothing. `warn` is told where the new index cuts
/// words by other rules.
///
/// # Errors
/// [`EngineError`] where the store is unfinished, damaged, or being written.
pub fn compact(
    root: &Path,
    stop: &AtomicBool,
    progress: &ByteProgress,
    warn: fn(&Warning),
) -> Result<Compaction, EngineError> {
    let start = Instant::now();
    let mut store = StoreWriter::open_complete(root)?;
    let before = store.manifest().clone();
    let stale = before.tombstones.iter().filter_map(|deleted| before.shard(deleted.shard));
    progress.all.store(stale.map(|record| record.kv.bytes).sum(), Ordering::Relaxed);
    let mut bytes_freed = 0;
    if let Some(compacted) = store.compact(stop, &progress.done)? {
        let analyzer = analyzer(root, &before, warn)?;
        rebuild_from_own(root, compacted.manifest(), analyzer, stop)?;
        bytes_freed = store.publish(compacted)?;
    } else if stop.load(Ordering::Relaxed) {
        return Err(EngineError::Interrupted);
    }
    let bytes = |manifest: &Manifest| {
        manifest.shards.iter().map(|shard| shard.kv.bytes + shard.chunk_file.bytes).sum()
    };
    Ok(Compaction {
        documents_dropped: before.deleted_documents(),
        shards_before: before.shards.len(),
        shards: store.manifest().shards.len(),
        bytes_before: bytes(&before),
        bytes: bytes(store.manifest()),
        bytes_freed,
        seconds: start.elapsed().as_secs_f64(),
    })
}
