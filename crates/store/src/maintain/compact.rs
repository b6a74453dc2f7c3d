//! Rewrites shards without their deleted documents. In: a complete store. Out: new shards with the live
//! documents, and a manifest that names them in place of the old ones. Shard files never change.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hyperrag_core::{Digest, ShardId, Slot};
use hyperrag_files::temporary;

use crate::error::StoreError;
use crate::format::block_table::{BLOCKS_PER_SHARD_MAX, Entry};
use crate::format::chunk_file::{IndexedDocument, ShardChunks};
use crate::format::manifest::{Manifest, Origin, ShardRecord};
use crate::local::paths::{Files, publish};
use crate::local::pin::collect;
use crate::local::reader::Store;
use crate::local::shard_reader::Shard;
use crate::local::shard_writer::ShardFileWriter;
use crate::local::writer::{StoreWriter, record, rows_digest, write_chunks};

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
    sources: Vec<(ShardId, Shard)>,
    /// Value of `mended_by` in the record of the first source that has one.
    mended_by: Option<String>,
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
        if self.manifest.dead.is_empty() {
            return Ok(None);
        }
        let written = self.write_live(stop, bytes_written);
        if !matches!(written, Ok(Some(_))) {
            collect(&self.files, &self.manifest)?;
        }
        written
    }

    fn write_live(
        &self,
        stop: &AtomicBool,
        bytes_written: &AtomicU64,
    ) -> Result<Option<Rewritten>, StoreError> {
        let store = Store::with_manifest(&self.files.root, Arc::new(self.manifest.clone()));
        let mut manifest = self.manifest.clone();
        let stale: HashSet<ShardId> = manifest.dead.iter().map(|dead| dead.shard).collect();
        manifest.shards.retain(|record| !stale.contains(&record.shard));
        manifest.dead.clear();
        manifest.first_row = self.manifest.next_row();
        manifest.first_shard = self.manifest.next_shard();
        manifest.index = self.manifest.generation + 1;
        let mut group = Group::new();
        for dead in &self.manifest.dead {
            let rows: HashSet<u64> = dead.rows.iter().copied().collect();
            let mut contents = store.chunks(dead.shard)?;
            contents.documents.retain(|indexed| !rows.contains(&indexed.row));
            if group.is_full_with(&contents, &manifest) {
                group.write(&store, &mut manifest, bytes_written)?;
                group = Group::new();
            }
            group.add(&store, dead.shard, contents)?;
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
        Self { contents, places: Vec::new(), sources: Vec::new(), mended_by: None }
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
        let path = store.files.shard(shard);
        let opened = Shard::open(&path, &store.manifest, &store.fingerprint, shard);
        let (opened, _) = opened.map_err(|fault| fault.of_file(&path))?;
        let source = self.sources.len();
        let mended_by = &store.manifest.record(shard).mended_by;
        self.mended_by = self.mended_by.take().or_else(|| mended_by.clone());
        self.sources.push((shard, opened));
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
        let files = &from.files;
        let documents = self.contents.documents.iter().map(|indexed| &indexed.document);
        let origin = Origin {
            shard: manifest.first_shard,
            rows: self.contents.documents.len() as u64,
            rows_digest: rows_digest(documents),
        };
        let path = files.shard(origin.shard);
        let mut draft =
            ShardFileWriter::create(&path, &self.contents.chunks, &manifest.fingerprint)?;
        for (slot, (source, place)) in self.places.iter().enumerate() {
            let (shard, opened) = &self.sources[*source];
            let entry = &opened.entries[*place];
            check(files, *shard, *place, entry, &draft.entries[slot].identity)?;
            let file = from.open_files.get(&opened.path, opened.bytes);
            draft.copy(slot, entry, &*file.map_err(|fault| fault.of_file(&opened.path))?)?;
            bytes_written.fetch_add(entry.bytes, Ordering::Relaxed);
        }
        let kv = draft.finish(origin)?;
        let chunk_path = files.chunk_file(origin.shard);
        let chunk_file = write_chunks(&chunk_path, &self.contents)?;
        let mended_by = self.mended_by.clone();
        let record = record(origin, &self.contents, kv, chunk_file);
        manifest.shards.push(ShardRecord { mended_by, ..record });
        manifest.first_shard = ShardId(origin.shard.0 + 1);
        let store = Store::with_manifest(&files.root, Arc::new(manifest.clone()));
        let mut damages = store.verify_shard_at(
            &temporary(&path),
            origin.shard,
            &mut Vec::new(),
            &AtomicU64::new(0),
        )?;
        if let Some(damage) = damages.pop() {
            let (source, place) = self.places[damage.slot.unwrap_or(0) as usize];
            let (_, opened) = &self.sources[source];
            return Err(opened.damaged_block(place, &damage.what));
        }
        draft.publish()?;
        publish(&chunk_path)
    }
}

/// Refuses a block whose identity does not follow from its chunk.
pub(crate) fn check(
    files: &Files,
    shard: ShardId,
    slot: usize,
    entry: &Entry,
    identity: &Digest,
) -> Result<(), StoreError> {
    if entry.identity == *identity {
        return Ok(());
    }
    let what = format!("block {slot} and its chunk do not fit together");
    Err(StoreError::damaged(&files.shard(shard), what))
}
