//! Copies a store: shards and chunk files, the index, and last what makes them a store.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Instant;

use hyperrag_retrieval::copy_index;
use hyperrag_store::{Replica, StoreError, remember_replica};
use serde::Serialize;

use crate::error::EngineError;
use crate::index::open_fitting;
use crate::progress::ByteProgress;

/// Report of a replication.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Replication {
    /// Shards that the replica now has.
    pub shards: usize,
    /// Shards that were copied now, or whose chunk file was.
    pub shards_copied: usize,
    /// Bytes copied.
    pub bytes_copied: u64,
    /// Whether the store remembers the replica: one that cannot be written does not.
    pub remembered: bool,
    /// Seconds taken.
    pub seconds: f64,
}

/// Makes `to` a copy of what the store at `from` holds, or brings it up to that, and has the store
/// remember it. `thorough` reads every byte of what is there already.
///
/// # Errors
/// [`EngineError`]. What was copied stays, and the same call goes on from there.
pub fn replicate(
    from: &Path,
    to: &Path,
    thorough: bool,
    progress: &ByteProgress,
) -> Result<Replication, EngineError> {
    let start = Instant::now();
    let replica = Replica::open(from, to)?;
    progress.expect(replica.manifest());
    let shards = replica.manifest().shards.len();
    let mut done = Replication { shards, ..Replication::default() };
    let mut buffer = Vec::new();
    for record in &replica.manifest().shards {
        let copied = replica.copy(record.shard, thorough, &mut buffer, &progress.done)?;
        done.bytes_copied += copied;
        done.shards_copied += usize::from(copied > 0);
    }
    // An intact one of another state of the store would take the place of a good one.
    drop(open_fitting(from, replica.manifest())?);
    let index = replica.manifest().index_folder();
    done.bytes_copied += copy_index(&from.join(&index), &to.join(&index))?;
    replica.publish()?;
    done.remembered = match remember_replica(from, to) {
        Ok(()) => true,
        Err(StoreError::Io { source, .. }) if is_read_only(&source) => false,
        Err(error) => return Err(error.into()),
    };
    done.seconds = start.elapsed().as_secs_f64();
    Ok(done)
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
}
