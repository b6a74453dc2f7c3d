//! Rewrites shards without their deleted documents. In: a complete store. Out: new shards with the live
//! documents, and a manifest that names them in place of the old ones. Shard files never change.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hyperrag_core::{ShardId, Slot};
use hyperrag_files::temporary;

use crate::error::StoreError;
use crate::format::chunk_file::{IndexedDocument, ShardChunks};
use crate::format::manifest::Manifest;
use crate::format::records::{ShardRecord, ShardRows, Tombstones};
use crate::format::shard_header::BLOCKS_PER_SHARD_MAX;
use crate::format::shard_input::rows_digest;
use crate::local::chunk_file::write_chunks;
use crate::local::durable::publish;
use crate::local::garbage::garbage_collect;
use crate::local::reader::Store;
use crate::local::shard_reader::OpenShard;
use crate::local::shard_writer::ShardFileWriter;
use crate::local::writer::StoreWriter;

/// Shards that are written and will replace others, but are not yet part of the store.
pub struct Rewritten {
    pub(crate) manifest: Manifest,
}

impl Rewritten {
    /// Manifest that the store will have. It names a new index.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// Live documents of one or more shards.
struct Group {
    contents: ShardChunks,
    /// Source (as an index into `sources`) and slot there, of each chunk.
    places: Vec<(usize, usize)>,
    sources: Vec<OpenShard>,
    /// Value of `repaired_by` in the record of the first source that has one.
    repaired_by: Option<String>,
}

impl StoreWriter {
    /// Writes the live documents of all shards with deleted ones to new shards. Returns the result, which
    /// becomes the store by [`StoreWriter::publish`]; `None` if there is nothing to do or `stop` was set.
    /// `bytes_written` counts along.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a block to be kept is not what was written.
    pub fn compact(
        &mut self,
        stop: &AtomicBool,
        bytes_written: &AtomicU64,
    ) -> Result<Option<Rewritten>, StoreError> {
        assert!(self.manifest.complete, "only a complete store is changed");
        if self.manifest.tombstones.is_empty() {
            return Ok(None);
        }
        let written = self.write_live(stop, bytes_written);
        if !matches!(written, Ok(Some(_))) {
            garbage_collect(&self.paths, &self.manifest)?;
        }
        written
    }

    fn write_live(
        &self,
        stop: &AtomicBool,
        bytes_written: &AtomicU64,
    ) -> Result<Option<Rewritten>, StoreError> {
        let store = Store::with_manifest(&self.paths.root, Arc::new(self.manifest.clone()));
        let mut manifest = self.manifest.clone();
        let stale: HashSet<ShardId> =
            manifest.tombstones.iter().map(|deleted| deleted.shard).collect();
        manifest.shards.retain(|record| !stale.contains(&record.shard));
        manifest.tombstones.clear();
        manifest.first_row = self.manifest.next_row();
        manifest.first_shard = self.manifest.next_shard();
        manifest.index = self.manifest.generation + 1;
        let mut group = Group::new();
        for Tombstones { shard, rows } in &self.manifest.tombstones {
            let rows: HashSet<u64> = rows.iter().copied().collect();
            let mut contents = store.chunks(*shard)?;
            contents.documents.retain(|indexed| !rows.contains(&indexed.row));
            if group.is_full_with(&contents, &manifest) {
                group.write(&store, &mut manifest, bytes_written)?;
                group = Group::new();
            }
            group.add(&store, *shard, contents)?;
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        group.write(&store, &mut manifest, bytes_written)?;
        Ok(Some(Rewritten { manifest }))
    }

    /// Makes the rewritten shards part of the store and returns the bytes freed. A later change frees those
    /// that a reader still uses.
    ///
    /// # Errors
    /// [`StoreError`] if the snapshot cannot be written.
    pub fn publish(&mut self, rewritten: Rewritten) -> Result<u64, StoreError> {
        self.replace(rewritten.manifest)
    }
}

impl Group {
    fn new() -> Self {
        let contents = ShardChunks { chunks: Vec::new(), documents: Vec::new() };
        Self { contents, places: Vec::new(), sources: Vec::new(), repaired_by: None }
    }

    fn is_full_with(&self, more: &ShardChunks, manifest: &Manifest) -> bool {
        let documents = self.contents.documents.len() + more.documents.len();
        let chunks = self.contents.chunks.len() + more.chunks.len();
        documents > manifest.fingerprint.unit_rows as usize || chunks > BLOCKS_PER_SHARD_MAX
    }

    /// Adds the documents of `from` with their chunks.
    fn add(&mut self, store: &Store, shard: ShardId, from: ShardChunks) -> Result<(), StoreError> {
        if from.documents.is_empty() {
            return Ok(());
        }
        let path = store.paths.shard(shard);
        let opened = OpenShard::open(&path, &store.manifest, &store.fingerprint, shard);
        let (opened, _) = opened.map_err(|fault| fault.of_file(&path))?;
        let source = self.sources.len();
        let repaired_by = &store.manifest.record(shard).repaired_by;
        self.repaired_by = self.repaired_by.take().or_else(|| repaired_by.clone());
        self.sources.push(opened);
        for indexed in from.documents {
            let first = indexed.first_slot.0 as usize;
            let slots = first..first + indexed.chunks as usize;
            let first_slot = Slot(self.contents.chunks.len() as u32);
            self.contents.documents.push(IndexedDocument { first_slot, ..indexed });
            self.contents.chunks.extend_from_slice(&from.chunks[slots.clone()]);
            self.places.extend(slots.map(|slot| (source, slot)));
        }
        Ok(())
    }

    /// Writes the group as the next shard of `manifest`.
    fn write(
        &self,
        from: &Store,
        manifest: &mut Manifest,
        bytes_written: &AtomicU64,
    ) -> Result<(), StoreError> {
        if self.contents.documents.is_empty() {
            return Ok(());
        }
        let paths = &from.paths;
        let documents = self.contents.documents.iter().map(|indexed| &indexed.document);
        let shard_rows = ShardRows {
            shard: manifest.first_shard,
            rows: self.contents.documents.len() as u64,
            rows_digest: rows_digest(documents),
        };
        let path = paths.shard(shard_rows.shard);
        let mut shard_file =
            ShardFileWriter::create(&path, &self.contents.chunks, &manifest.fingerprint)?;
        for (slot, (source, place)) in self.places.iter().enumerate() {
            let opened = &self.sources[*source];
            let entry = &opened.entries[*place];
            opened.check_identity(*place, &shard_file.entries[slot].identity)?;
            let file = from.open_files.get(&opened.path, opened.bytes);
            shard_file.copy(slot, entry, &*file.map_err(|fault| fault.of_file(&opened.path))?)?;
            bytes_written.fetch_add(entry.bytes, Ordering::Relaxed);
        }
        let kv = shard_file.finish(shard_rows)?;
        let chunk_path = paths.chunk_file(shard_rows.shard);
        let chunk_file = write_chunks(&chunk_path, &self.contents)?;
        let repaired_by = self.repaired_by.clone();
        let record = ShardRecord::new(shard_rows, &self.contents, kv, chunk_file);
        manifest.shards.push(ShardRecord { repaired_by, ..record });
        manifest.first_shard = ShardId(shard_rows.shard.0 + 1);
        let store = Store::with_manifest(&paths.root, Arc::new(manifest.clone()));
        let mut damages = store.verify_shard_at(
            &temporary(&path),
            shard_rows.shard,
            &mut Vec::new(),
            &AtomicU64::new(0),
        )?;
        if let Some(damage) = damages.pop() {
            let (source, place) = self.places[damage.slot.unwrap_or(0) as usize];
            return Err(self.sources[source].damaged_block(place, &damage.what));
        }
        shard_file.publish()?;
        publish(&chunk_path)
    }
}
