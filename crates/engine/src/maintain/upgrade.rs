//! Brings a store to the present version of the format.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hyperrag_core::{Fingerprint, Warning};
use hyperrag_store::{FORMAT_VERSION, Manifest, Store, StoreNotes, StoreWriter, replicas};
use serde::Serialize;

use crate::build::disk_budget::{folder_bytes, free_bytes};
use crate::error::EngineError;
use crate::index::{analyzer, rebuild_from_own};
use crate::progress::ByteProgress;

/// Report of an upgrade, or its plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Upgrade {
    /// Whether this is only a plan.
    pub dry_run: bool,
    /// Version of the format before.
    pub from: u32,
    /// Version that the store has now, or will have.
    pub to: u32,
    /// Shards that were, or would be, written anew.
    pub shards: usize,
    /// Blocks in them.
    pub blocks: u64,
    /// Bytes that the disk must have free meanwhile: the store's own once more.
    pub bytes_needed: u64,
    /// Bytes that it has free; none where the system does not say.
    pub bytes_free: Option<u64>,
    /// Bytes freed at the end. What a reader still uses is freed by a later change.
    pub bytes_freed: u64,
    /// Replicas, which have the former version until they are brought up to the store.
    pub replicas: Vec<PathBuf>,
    /// Seconds taken.
    pub seconds: f64,
}

impl Upgrade {
    /// The plan for the store at `root`.
    ///
    /// # Errors
    /// [`EngineError`] where there is no whole manifest.
    pub fn plan(root: &Path) -> Result<Self, EngineError> {
        let store = Store::open(root)?;
        let manifest = store.manifest();
        let from = manifest.fingerprint.format_version;
        let plan = Self { dry_run: true, from, to: FORMAT_VERSION, ..Self::default() };
        if from == FORMAT_VERSION {
            return Ok(plan);
        }
        Ok(Self {
            shards: manifest.shards.len(),
            blocks: manifest.shards.iter().map(|shard| shard.chunks).sum(),
            bytes_needed: bytes(manifest) + folder_bytes(&root.join(manifest.index_folder())),
            bytes_free: free_bytes(root),
            replicas: replicas(root)?,
            ..plan
        })
    }
}

fn bytes(manifest: &Manifest) -> u64 {
    manifest.shards.iter().map(|shard| shard.kv.bytes + shard.chunk_file.bytes).sum()
}

/// Writes the store at `root` as one of the present version, with the fingerprint `next`, which must be
/// that of the model that made it, and has it note `notes`. Blocks are copied, nothing is computed. Readers
/// are not disturbed, and stopped at any point before its end it has changed nothing. `warn` is told where the
/// new index cuts words by other rules.
///
/// # Errors
/// [`EngineError`] where the store is unfinished, damaged, or being written, or the disk is too full.
pub fn upgrade(
    root: &Path,
    next: &Fingerprint,
    notes: &StoreNotes,
    stop: &AtomicBool,
    progress: &ByteProgress,
    warn: fn(&Warning),
) -> Result<Upgrade, EngineError> {
    let start = Instant::now();
    let mut store = StoreWriter::open_complete(root)?;
    let mut done = Upgrade { dry_run: false, ..Upgrade::plan(root)? };
    if done.from == done.to {
        return Ok(done);
    }
    if let Some(free) = done.bytes_free.filter(|free| *free < done.bytes_needed) {
        let (path, needed) = (root.to_owned(), done.bytes_needed);
        return Err(EngineError::NoRoomToUpgrade { path, free, needed });
    }
    progress.all.store(bytes(store.manifest()), Ordering::Relaxed);
    let Some(rewritten) = store.upgrade(next, stop, &progress.done)? else {
        return Err(EngineError::Interrupted);
    };
    let analyzer = analyzer(root, store.manifest(), warn)?;
    rebuild_from_own(root, rewritten.manifest(), analyzer, stop)?;
    store.note(notes)?;
    done.bytes_freed = store.publish(rewritten)?;
    done.seconds = start.elapsed().as_secs_f64();
    Ok(done)
}
