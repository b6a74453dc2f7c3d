//! Rewrites a store of an earlier format version in the present one. In: a complete store and the new
//! fingerprint. Out: new shards. K, V and hidden states are copied; headers and tables name the new
//! fingerprint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hyperrag_core::{Fingerprint, ShardId};
use hyperrag_files::temporary;

use crate::error::StoreError;
use crate::format::manifest::Manifest;
use crate::format::records::{ShardRecord, ShardRows, Tombstones};
use crate::local::garbage::garbage_collect;
use crate::local::reader::Store;
use crate::local::shard_reader::OpenShard;
use crate::local::shard_writer::ShardFileWriter;
use crate::local::writer::StoreWriter;
use crate::maintain::compact::Rewritten;
use crate::maintain::copy::copy_bytes;

impl StoreWriter {
    /// Writes all shards anew for the fingerprint `next`, which must be of the same model. Returns the
    /// result, which becomes the store by [`StoreWriter::publish`]; `None` if `stop` was set. `bytes_written`
    /// counts along.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a file is not what was written.
    pub fn upgrade(
        &mut self,
        next: &Fingerprint,
        stop: &AtomicBool,
        bytes_written: &AtomicU64,
    ) -> Result<Option<Rewritten>, StoreError> {
        assert!(self.manifest.complete, "only a complete store is changed");
        let written = self.write_all(next, stop, bytes_written);
        if !matches!(written, Ok(Some(_))) {
            garbage_collect(&self.paths, &self.manifest)?;
        }
        written
    }

    fn write_all(
        &self,
        next: &Fingerprint,
        stop: &AtomicBool,
        bytes_written: &AtomicU64,
    ) -> Result<Option<Rewritten>, StoreError> {
        let store = Store::with_manifest(&self.paths.root, Arc::new(self.manifest.clone()));
        let mut manifest = Manifest {
            fingerprint: next.clone(),
            first_shard: self.manifest.next_shard(),
            first_row: self.manifest.next_row(),
            index: self.manifest.generation + 1,
            shards: Vec::new(),
            tombstones: Vec::new(),
            upgraded_from: Some(store.fingerprint),
            ..self.manifest.clone()
        };
        for record in &self.manifest.shards {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let shard = manifest.first_shard;
            manifest.shards.push(write_shard(&store, record, shard, next, bytes_written)?);
            let deleted = self.manifest.tombstones.iter().find(|there| there.shard == record.shard);
            let deleted = deleted.map(|there| Tombstones { shard, rows: there.rows.clone() });
            manifest.tombstones.extend(deleted);
            manifest.first_shard = ShardId(shard.0 + 1);
        }
        Ok(Some(Rewritten { manifest }))
    }
}

/// Writes the shard of `record` as `shard` of a store with the fingerprint `next`. Returns its record.
fn write_shard(
    store: &Store,
    record: &ShardRecord,
    shard: ShardId,
    next: &Fingerprint,
    bytes_written: &AtomicU64,
) -> Result<ShardRecord, StoreError> {
    let paths = &store.paths;
    let (from, to) = (paths.shard(record.shard), paths.shard(shard));
    let contents = store.chunks(record.shard)?;
    let opened = OpenShard::open(&from, &store.manifest, &store.fingerprint, record.shard);
    let (opened, file) = opened.map_err(|fault| fault.of_file(&from))?;
    let chunk_path = paths.chunk_file(record.shard);
    if contents.chunks.len() != opened.entries.len() {
        return Err(StoreError::damaged(&chunk_path, "it is not that of its shard"));
    }
    let mut shard_file = ShardFileWriter::create(&to, &contents.chunks, next)?;
    for (slot, (chunk, entry)) in contents.chunks.iter().zip(&opened.entries).enumerate() {
        opened.check_identity(slot, &chunk.identity(&store.fingerprint))?;
        shard_file.adopt(slot, &opened, &file)?;
        bytes_written.fetch_add(entry.bytes, Ordering::Relaxed);
    }
    let kv = shard_file.finish(ShardRows { shard, ..record.shard_rows() })?;
    let written = ShardRecord { shard, kv, ..record.clone() };
    let next_chunk_path = paths.chunk_file(shard);
    let copy = copy_bytes(&chunk_path, &next_chunk_path, record.chunk_file.bytes, bytes_written)?;
    let shards = vec![written.clone()];
    let alone = Arc::new(Manifest { shards, ..Manifest::first(next.clone()) });
    let next = Store::with_manifest(&paths.root, alone);
    let (buffer, counted) = (&mut Vec::new(), AtomicU64::new(0));
    if let Some(damage) = next.verify_shard_at(&temporary(&to), shard, buffer, &counted)?.pop() {
        return Err(opened.damaged_block(damage.slot.unwrap_or(0) as usize, &damage.what));
    }
    let temporary = temporary(&next_chunk_path);
    if let Some(damage) = next.verify_chunk_file_at(&temporary, shard, buffer, &counted)? {
        return Err(StoreError::damaged(&chunk_path, damage.what));
    }
    shard_file.publish()?;
    copy.publish()?;
    Ok(written)
}
