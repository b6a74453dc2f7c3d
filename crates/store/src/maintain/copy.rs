//! Copies files of a store. In: a file. Out: a checked copy under its temporary name, then under its own. It
//! knows neither manifests nor the list of replicas.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hyperrag_core::ShardId;
use hyperrag_files::temporary;

use crate::error::StoreError;
use crate::local::durable::publish;
use crate::local::open::{create_temporary, open_sized};
use crate::local::reader::Store;

const COPY_BYTES: usize = 1 << 20;

/// A file under its temporary name. Removed unless it is published.
pub(crate) struct Partial<'a> {
    path: &'a Path,
    published: bool,
}

impl Partial<'_> {
    pub(crate) fn publish(mut self) -> Result<(), StoreError> {
        publish(self.path)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: the next copy overwrites it.
            let _ = fs::remove_file(temporary(self.path));
        }
    }
}

/// Copies a shard. Checks every byte of the copy before it gets its name.
pub(crate) fn copy_shard(
    source: &Store,
    target: &Store,
    shard: ShardId,
    buffer: &mut Vec<u8>,
    progress: &AtomicU64,
) -> Result<(), StoreError> {
    let (from, to) = (source.paths.shard(shard), target.paths.shard(shard));
    let copy = copy_bytes(&from, &to, source.manifest.record(shard).kv.bytes, progress)?;
    let damages = target.verify_shard_at(&temporary(&to), shard, buffer, &AtomicU64::new(0))?;
    match damages.into_iter().next() {
        None => copy.publish(),
        Some(damage) => {
            let place = damage.slot.map_or_else(String::new, |slot| format!("block {slot}: "));
            Err(StoreError::damaged(&from, format!("{place}{}", damage.what)))
        }
    }
}

/// Copies a chunk file. Checks the copy before it gets its name.
pub(crate) fn copy_chunk_file(
    source: &Store,
    target: &Store,
    shard: ShardId,
    buffer: &mut Vec<u8>,
    progress: &AtomicU64,
) -> Result<(), StoreError> {
    let (from, to) = (source.paths.chunk_file(shard), target.paths.chunk_file(shard));
    let bytes = source.manifest.record(shard).chunk_file.bytes;
    let copy = copy_bytes(&from, &to, bytes, progress)?;
    match target.verify_chunk_file_at(&temporary(&to), shard, buffer, &AtomicU64::new(0))? {
        None => copy.publish(),
        Some(damage) => Err(StoreError::damaged(&from, damage.what)),
    }
}

/// Copies a file to the temporary name of `to`, unchecked.
pub(crate) fn copy_bytes<'a>(
    from: &Path,
    to: &'a PathBuf,
    bytes: u64,
    progress: &AtomicU64,
) -> Result<Partial<'a>, StoreError> {
    let source = open_sized(from, bytes).map_err(|fault| fault.of_file(from))?;
    let target = create_temporary(to)?;
    let copy = Partial { path: to, published: false };
    let mut source = source.take(bytes);
    let mut buffer = vec![0; COPY_BYTES];
    let write = |part: &[u8]| (&target).write_all(part);
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StoreError::io(from, "cannot be read")(error)),
        };
        write(&buffer[..read]).map_err(StoreError::io(to, "cannot be written"))?;
        progress.fetch_add(read as u64, Ordering::Relaxed);
    }
    target.sync_all().map_err(StoreError::io(to, "cannot be written"))?;
    Ok(copy)
}
