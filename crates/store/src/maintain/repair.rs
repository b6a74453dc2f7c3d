//! Repairs shards and chunk files of a store with an intact manifest: from a replica, or, for a shard, from
//! its own intact blocks and others computed again. Intact files are not written.

use std::fs::{self, File};
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hyperrag_core::{Blob, BoxedError, Calibration, Chunk, Digest, KvBlock, ShardId, Slot};
use hyperrag_files::temporary;

use crate::error::{NoRepair, StoreError};
use crate::format::block_table::{
    BlockEntry, decode_table, first_offset, header_and_table, place_chunks, table_end,
};
use crate::format::manifest::Manifest;
use crate::format::notes::StoreNotes;
use crate::format::paths::StorePaths;
use crate::format::records::FileRecord;
use crate::format::shard_header::{SHARD_HEADER_BYTES, ShardHeader};
use crate::local::calibration;
use crate::local::durable::{check_own_folder, make_own_folder, write_whole};
use crate::local::garbage::{garbage_collect, replace_manifest};
use crate::local::lock::lock;
use crate::local::notes;
use crate::local::open::{create_temporary, open_plain, read_plain};
use crate::local::reader::Store;
use crate::local::shard_reader::{OpenShard, check_block};
use crate::local::shard_writer::ShardFileWriter;
use crate::local::state::State;
use crate::maintain::copy::{copy_chunk_file, copy_shard};

/// Number of positions computed at a time.
const BATCH_TOKENS: usize = 1024;

/// Function that computes the blocks of chunks again, or says why it cannot.
pub type ComputeBlocks<'a> = dyn FnMut(&[Chunk]) -> Result<Vec<KvBlock>, BoxedError> + 'a;

/// Function that brings the bytes of a block from another place, unchecked; `None` if it is not there.
pub type FetchBlock<'a> = dyn FnMut(&Blob) -> Option<Vec<u8>> + 'a;

/// A store under repair. While it lives, no other process writes.
pub struct Repair {
    store: Store,
    _lock: Option<File>,
}

/// Intact blocks of a shard, and the slots of the damaged ones.
pub struct Salvage {
    file: Option<File>,
    /// Blocks from another place, at the offsets that they have in the shard.
    fetched: Option<File>,
    fetched_slots: Vec<usize>,
    entries: Vec<BlockEntry>,
    damaged: Vec<usize>,
}

impl Salvage {
    /// Number of blocks that must be computed again.
    #[must_use]
    pub fn damaged(&self) -> usize {
        self.damaged.len()
    }

    /// Number of blocks that came from another place.
    #[must_use]
    pub fn fetched(&self) -> usize {
        self.fetched_slots.len()
    }

    /// Returns the file that has the intact block of a slot; `None` for a damaged one.
    fn file_of(&self, slot: usize) -> Option<&File> {
        if self.fetched_slots.binary_search(&slot).is_ok() {
            return self.fetched.as_ref();
        }
        self.file.as_ref().filter(|_| self.damaged.binary_search(&slot).is_err())
    }
}

impl Repair {
    /// Starts to repair the store at `root`, whose manifest is `manifest`. With `plan` it takes no lock and
    /// must not write.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process writes.
    pub fn open(root: &Path, manifest: Arc<Manifest>, plan: bool) -> Result<Self, StoreError> {
        let lock = if plan { None } else { Some(lock(&StorePaths::new(root))?) };
        let store = Store::with_manifest(root, manifest);
        for folder in [store.paths.shards(), store.paths.chunks()].iter().filter(|_| !plan) {
            make_own_folder(folder)?;
        }
        check_own_folder(&root.join(store.manifest.index_folder()))?;
        Ok(Self { store, _lock: lock })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Opens the files of a replica, to be checked against this store's manifest.
    #[must_use]
    pub fn replica(&self, root: &Path) -> Store {
        Store::with_manifest(root, Arc::clone(&self.store.manifest))
    }

    /// Replaces a shard by the replica's.
    ///
    /// # Errors
    /// [`StoreError`]. The store's file is unchanged then.
    pub fn copy_shard(
        &self,
        from: &Store,
        shard: ShardId,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        copy_shard(from, &self.store, shard, buffer, &AtomicU64::new(0))
    }

    /// Replaces a chunk file by the replica's.
    ///
    /// # Errors
    /// [`StoreError`]. The store's file is unchanged then.
    pub fn copy_chunk_file(&self, from: &Store, shard: ShardId) -> Result<(), StoreError> {
        copy_chunk_file(from, &self.store, shard, &mut Vec::new(), &AtomicU64::new(0))
    }

    /// Replaces a damaged calibration by this one, if it is the store's.
    ///
    /// # Errors
    /// [`StoreError::NotRepaired`] if it is another one.
    pub fn write_calibration(&self, calibration: &Calibration) -> Result<(), StoreError> {
        let path = self.store.paths.calibration();
        if Some(calibration.digest()) != self.store.manifest.fingerprint.calibration {
            return Err(StoreError::NotRepaired { path, why: NoRepair::OtherCalibration });
        }
        calibration::write(&path, calibration)
    }

    /// Writes the file `generation` anew from the manifest.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    pub fn write_generation(&self) -> Result<(), StoreError> {
        let paths = &self.store.paths;
        State::snapshot(paths)?.map_or(Ok(()), |snapshot| snapshot.announce(paths, None))
    }

    /// Replaces damaged notes by these, or removes them.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be written.
    pub fn write_notes(&self, now: Option<&StoreNotes>) -> Result<(), StoreError> {
        match now {
            Some(now) => notes::write(self.store.root(), now),
            None => notes::remove(self.store.root()),
        }
    }

    /// Finds the intact blocks of a damaged shard. A damaged table is made again from the chunks and the
    /// blocks' own headers; the manifest's digest tells whether it is the one written.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system refuses the file.
    pub fn salvage(
        &self,
        shard: ShardId,
        chunks: &[Chunk],
        buffer: &mut Vec<u8>,
    ) -> Result<Salvage, StoreError> {
        let path = self.store.paths.shard(shard);
        let file = match open_plain(&path) {
            Err(fault) if fault.is_refusal() => return Err(fault.of_file(&path)),
            opened => opened.ok(),
        };
        let entries = file.as_ref().and_then(|file| {
            self.stored_table(shard, file).or_else(|| self.table_of_headers(shard, file, chunks))
        });
        let (Some(file), Some(entries)) = (file, entries) else {
            let entries = Vec::new();
            let damaged = (0..chunks.len()).collect();
            return Ok(Salvage {
                file: None,
                fetched: None,
                fetched_slots: Vec::new(),
                entries,
                damaged,
            });
        };
        let kv_shape = self.store.kv_shape();
        let blocks = entries.iter().enumerate();
        let damaged = blocks
            .filter(|(_, entry)| check_block(&file, entry, kv_shape, buffer).is_err())
            .map(|(slot, _)| slot)
            .collect();
        let (fetched, fetched_slots) = (None, Vec::new());
        Ok(Salvage { file: Some(file), fetched, fetched_slots, entries, damaged })
    }

    /// Fetches the damaged blocks of a shard from another place, as far as they are there. Each is checked.
    /// Without the shard's block table nothing is fetched.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be written.
    pub fn fetch_damaged(
        &self,
        shard: ShardId,
        salvage: &mut Salvage,
        fetch: &mut FetchBlock<'_>,
    ) -> Result<(), StoreError> {
        let Ok(blobs) = self.store.blobs(shard) else { return Ok(()) };
        let path = self.store.paths.shard(shard).with_extension("fetched");
        let file = create_temporary(&path)?;
        // It has no name from here on, whatever happens.
        fs::remove_file(temporary(&path)).map_err(StoreError::io(&path, "cannot be made"))?;
        let mut left = Vec::new();
        for slot in mem::take(&mut salvage.damaged) {
            let at = Slot(slot as u32);
            let blob = (at.0 < blobs.count()).then(|| blobs.blob(at));
            let found = blob.and_then(|blob| Some((blob.offset, fetch(&blob)?)));
            match found.filter(|(_, bytes)| blobs.check(at, bytes).is_ok()) {
                Some((offset, bytes)) => {
                    let written = file.write_all_at(&bytes, offset);
                    written.map_err(StoreError::io(&path, "cannot be written"))?;
                    salvage.fetched_slots.push(slot);
                }
                None => left.push(slot),
            }
        }
        salvage.damaged = left;
        if salvage.entries.is_empty() {
            salvage.entries = blobs.into_entries();
        }
        salvage.fetched = Some(file);
        Ok(())
    }

    /// Replaces a block table that is kept by itself and does not fit, or is missing, by the one in another
    /// folder.
    ///
    /// # Errors
    /// [`StoreError`] if the other one does not fit, or this one cannot be written.
    pub fn copy_table(&self, from: &Store, shard: ShardId) -> Result<(), StoreError> {
        let Store { paths, manifest, fingerprint, .. } = &self.store;
        let (from, to) = (from.paths.table(shard), paths.table(shard));
        if OpenShard::read_table(&to, manifest, fingerprint, shard).is_ok() {
            return Ok(());
        }
        let read = OpenShard::read_table(&from, manifest, fingerprint, shard)
            .and_then(|table| read_plain(&from, first_offset(table.entries.len())));
        make_own_folder(&paths.tables())?;
        write_whole(&to, &read.map_err(|fault| fault.of_file(&from))?)
    }

    /// Reads the table in the file if it is intact, whatever follows it.
    fn stored_table(&self, shard: ShardId, file: &File) -> Option<Vec<BlockEntry>> {
        let record = self.store.manifest.record(shard);
        let bytes = table_end(usize::try_from(record.chunks).ok()?);
        if bytes as u64 > file.metadata().ok()?.len() {
            return None;
        }
        let mut start = vec![0; bytes];
        file.read_exact_at(&mut start, 0).ok()?;
        if Digest::of(&start) != record.kv.digest {
            return None;
        }
        let header = ShardHeader::decode(start.first_chunk()?).ok()?;
        let fingerprint = &self.store.manifest.fingerprint;
        let (kv_shape, tokens_max) = (&fingerprint.kv_shape, fingerprint.chunk_tokens);
        decode_table(&start[SHARD_HEADER_BYTES..], &header, kv_shape, tokens_max).ok()
    }

    fn table_of_headers(
        &self,
        shard: ShardId,
        file: &File,
        chunks: &[Chunk],
    ) -> Option<Vec<BlockEntry>> {
        let fingerprint = &self.store.manifest.fingerprint;
        let mut entries = place_chunks(chunks, fingerprint);
        for entry in &mut entries {
            let mut header = vec![0; entry.header_bytes as usize];
            file.read_exact_at(&mut header, entry.offset).ok()?;
            entry.header_crc = crc32fast::hash(&header);
        }
        let record = self.store.manifest.record(shard);
        let digest = Digest::of(&header_and_table(record.shard_rows(), &entries, fingerprint));
        (digest == record.kv.digest).then_some(entries)
    }

    /// Writes a shard anew from the salvaged blocks and blocks from `compute`. The file is replaced if its
    /// bytes are those that the manifest names. It is also replaced if `kernel` names another kernel than the
    /// store's, which computes: then the next snapshot names the new bytes, and the result is `true`.
    ///
    /// # Errors
    /// [`StoreError::NotRepaired`] if `compute` fails or returns other bytes. The store's file is unchanged
    /// then.
    pub fn rewrite(
        &mut self,
        shard: ShardId,
        chunks: &[Chunk],
        salvage: &Salvage,
        compute: &mut ComputeBlocks<'_>,
        kernel: Option<&str>,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, StoreError> {
        let path = self.store.paths.shard(shard);
        let not_repaired = |why| StoreError::NotRepaired { path: path.clone(), why };
        let mut shard_file =
            ShardFileWriter::create(&path, chunks, &self.store.manifest.fingerprint)?;
        for (slot, entry) in salvage.entries.iter().enumerate() {
            if let Some(file) = salvage.file_of(slot) {
                shard_file.copy(slot, entry, file)?;
            }
        }
        let mut tokens = 0;
        let batches = salvage.damaged.chunk_by(|slot, _| {
            tokens += chunks[*slot].tokens.len();
            let full = tokens >= BATCH_TOKENS;
            tokens = if full { 0 } else { tokens };
            !full
        });
        for slots in batches {
            let batch: Vec<Chunk> = slots.iter().map(|slot| chunks[*slot].clone()).collect();
            let blocks = compute(&batch).map_err(|error| not_repaired(error.into()))?;
            for (slot, block) in slots.iter().zip(&blocks) {
                shard_file.write(*slot, &chunks[*slot], block)?;
            }
        }
        let record = self.store.manifest.record(shard);
        let kv = shard_file.finish(record.shard_rows())?;
        let next = match kv == record.kv {
            true => None,
            false => {
                let kept = salvage.damaged.len() < chunks.len();
                let before = record.repaired_by.as_deref().filter(|_| kept);
                let next = self.with_bytes(shard, kv, kernel.or(before))?;
                Some(next.map_err(not_repaired)?)
            }
        };
        let partial = temporary(&path);
        let named = next.clone().unwrap_or_else(|| Arc::clone(&self.store.manifest));
        let store = Store::with_manifest(self.store.root(), named);
        if let Some(damage) =
            store.verify_shard_at(&partial, shard, buffer, &AtomicU64::new(0))?.pop()
        {
            return Err(StoreError::damaged(&partial, damage.what));
        }
        drop(store);
        shard_file.publish()?;
        if let Some(next) = &next {
            let paths = self.store.paths.clone();
            replace_manifest(&paths, next)?;
            self.store = Store::with_manifest(&paths.root, Arc::clone(next));
            // The previous manifest is no longer held.
            garbage_collect(&paths, next)?;
        }
        Ok(next.is_some())
    }

    /// Makes the next snapshot, in which a shard has these bytes, made with the help of the kernel
    /// `repaired_by`. The inner error says why there can be none.
    fn with_bytes(
        &self,
        shard: ShardId,
        kv: FileRecord,
        repaired_by: Option<&str>,
    ) -> Result<Result<Arc<Manifest>, NoRepair>, StoreError> {
        let held = &self.store.manifest;
        let Some(repaired_by) = repaired_by else { return Ok(Err(NoRepair::OtherBlocks)) };
        if !held.complete {
            return Ok(Err(NoRepair::OtherKernel));
        }
        // The manifest was read before the lock was taken.
        let now = State::sealed_manifest(&self.store.paths)?;
        if now.map(|now| now.checksum()) != Some(held.checksum()) {
            return Ok(Err(NoRepair::Changed));
        }
        let mut next = Manifest { generation: held.generation + 1, ..Manifest::clone(held) };
        for record in next.shards.iter_mut().filter(|record| record.shard == shard) {
            (record.kv, record.repaired_by) = (kv.clone(), Some(repaired_by.to_owned()));
        }
        Ok(Ok(Arc::new(next)))
    }
}
