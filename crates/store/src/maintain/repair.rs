//! Repairs shards and chunk files of a store with an intact manifest: from a replica, or, for a shard, from
//! its own intact blocks and others computed again. Intact files are not written.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hyperrag_core::{Calibration, Chunk, Digest, KvBlock, ShardId};
use hyperrag_files::temporary;

use crate::error::StoreError;
use crate::format::block_table::{ENTRY_BYTES, Entry, HEADER_BYTES, Header, decode_table};
use crate::format::manifest::{FileRecord, Manifest};
use crate::local::open::open_plain;
use crate::local::paths::{Files, check_own_folder, make_own_folder};
use crate::local::pin::{collect, replace_manifest};
use crate::local::reader::Store;
use crate::local::shard_reader::check_block;
use crate::local::shard_writer::{ShardFileWriter, place, top};
use crate::local::state::State;
use crate::local::writer::lock;
use crate::maintain::replicate::{copy_chunk_file, copy_shard};

/// Number of positions computed at a time.
const BATCH_TOKENS: usize = 1024;

/// Function that computes the blocks of chunks again, or says why it cannot.
pub type ComputeBlocks<'a> = dyn FnMut(&[Chunk]) -> Result<Vec<KvBlock>, String> + 'a;

/// A store under repair. While it lives, no other process writes.
pub struct Repair {
    store: Store,
    _lock: Option<File>,
}

/// Intact blocks of a shard, and the slots of the damaged ones.
pub struct Salvage {
    file: Option<File>,
    entries: Vec<Entry>,
    damaged: Vec<usize>,
}

impl Salvage {
    /// Number of blocks that must be computed again.
    #[must_use]
    pub fn damaged(&self) -> usize {
        self.damaged.len()
    }
}

/// Keeps other processes from writing the store at `root` until it is dropped.
pub(crate) fn writer_lock(root: &Path) -> Result<File, StoreError> {
    lock(&Files { root: root.to_owned() })
}

impl Repair {
    /// Starts to repair the store at `root`, whose manifest is `manifest`. With `plan` it takes no lock and
    /// must not write.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process writes.
    pub fn open(root: &Path, manifest: Arc<Manifest>, plan: bool) -> Result<Self, StoreError> {
        let lock = if plan { None } else { Some(writer_lock(root)?) };
        let store = Store::with_manifest(root, manifest);
        for folder in [store.files.shards(), store.files.chunks()].iter().filter(|_| !plan) {
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
    /// [`StoreError::NotMended`] if it is another one.
    pub fn write_calibration(&self, calibration: &Calibration) -> Result<(), StoreError> {
        let path = self.store.files.calibration();
        if Some(calibration.digest()) != self.store.manifest.fingerprint.calibration {
            let why = "the calibration computed again is not the one that the fingerprint names";
            return Err(StoreError::NotMended { path, why: why.to_owned() });
        }
        crate::local::calibration::write(&path, calibration)
    }

    /// Writes the file `generation` anew from the manifest.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    pub fn write_generation(&self) -> Result<(), StoreError> {
        let files = &self.store.files;
        State::snapshot(files)?.map_or(Ok(()), |snapshot| snapshot.announce(files, None))
    }

    /// Finds the intact blocks of a damaged shard. A damaged table is made again from the chunks and the
    /// blocks' own heads; the manifest's digest tells whether it is the one written.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system refuses the file.
    pub fn salvage(
        &self,
        shard: ShardId,
        chunks: &[Chunk],
        buffer: &mut Vec<u8>,
    ) -> Result<Salvage, StoreError> {
        let path = self.store.files.shard(shard);
        let file = match open_plain(&path) {
            Err(fault) if fault.is_refusal() => return Err(fault.of_file(&path)),
            opened => opened.ok(),
        };
        let entries = file.as_ref().and_then(|file| {
            self.stored_table(shard, file).or_else(|| self.table_of_heads(shard, file, chunks))
        });
        let (Some(file), Some(entries)) = (file, entries) else {
            let entries = Vec::new();
            return Ok(Salvage { file: None, entries, damaged: (0..chunks.len()).collect() });
        };
        let kv_shape = self.store.kv_shape();
        let blocks = entries.iter().enumerate();
        let damaged = blocks
            .filter(|(_, entry)| check_block(&file, entry, kv_shape, buffer).is_err())
            .map(|(slot, _)| slot)
            .collect();
        Ok(Salvage { file: Some(file), entries, damaged })
    }

    /// Reads the table in the file if it is intact, whatever follows it.
    fn stored_table(&self, shard: ShardId, file: &File) -> Option<Vec<Entry>> {
        let record = self.store.manifest.record(shard);
        let bytes =
            (HEADER_BYTES as u64).checked_add(record.chunks.checked_mul(ENTRY_BYTES as u64)?)?;
        if bytes > file.metadata().ok()?.len() {
            return None;
        }
        let mut top = vec![0; bytes as usize];
        file.read_exact_at(&mut top, 0).ok()?;
        if Digest::of(&top) != record.kv.digest {
            return None;
        }
        let header = Header::decode(top.first_chunk()?).ok()?;
        let fingerprint = &self.store.manifest.fingerprint;
        let (kv_shape, tokens_max) = (&fingerprint.kv_shape, fingerprint.chunk_tokens);
        decode_table(&top[HEADER_BYTES..], &header, kv_shape, tokens_max).ok()
    }

    fn table_of_heads(&self, shard: ShardId, file: &File, chunks: &[Chunk]) -> Option<Vec<Entry>> {
        let fingerprint = &self.store.manifest.fingerprint;
        let mut entries = place(chunks, fingerprint);
        for entry in &mut entries {
            let mut head = vec![0; entry.head_bytes as usize];
            file.read_exact_at(&mut head, entry.offset).ok()?;
            entry.head_crc = crc32fast::hash(&head);
        }
        let record = self.store.manifest.record(shard);
        let digest = Digest::of(&top(record.origin(), &entries, fingerprint));
        (digest == record.kv.digest).then_some(entries)
    }

    /// Writes a shard anew from the salvaged blocks and blocks from `compute`. The file is replaced if its
    /// bytes are those that the manifest names. It is also replaced if `kernel` names another kernel than the
    /// store's, which computes: then the next snapshot names the new bytes, and the result is `true`.
    ///
    /// # Errors
    /// [`StoreError::NotMended`] if `compute` fails or returns other bytes. The store's file is unchanged
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
        let path = self.store.files.shard(shard);
        let not_mended = |why| StoreError::NotMended { path: path.clone(), why };
        let mut draft = ShardFileWriter::create(&path, chunks, &self.store.manifest.fingerprint)?;
        if let Some(file) = &salvage.file {
            for (slot, entry) in salvage.entries.iter().enumerate() {
                if salvage.damaged.binary_search(&slot).is_err() {
                    draft.copy(slot, entry, file)?;
                }
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
            let blocks = compute(&batch).map_err(not_mended)?;
            for (slot, block) in slots.iter().zip(&blocks) {
                draft.write(*slot, &chunks[*slot], block)?;
            }
        }
        let record = self.store.manifest.record(shard);
        let kv = draft.finish(record.origin())?;
        let next = match kv == record.kv {
            true => None,
            false => {
                let kept = salvage.damaged.len() < chunks.len();
                let before = record.mended_by.as_deref().filter(|_| kept);
                let next = self.with_bytes(shard, kv, kernel.or(before))?;
                Some(next.map_err(not_mended)?)
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
        draft.publish()?;
        if let Some(next) = &next {
            let files = self.store.files.clone();
            replace_manifest(&files, next)?;
            self.store = Store::with_manifest(&files.root, Arc::clone(next));
            // The former manifest is no longer held.
            collect(&files, next)?;
        }
        Ok(next.is_some())
    }

    /// Makes the next snapshot, in which a shard has these bytes, made with the help of the kernel
    /// `mended_by`. The inner error says why there can be none.
    fn with_bytes(
        &self,
        shard: ShardId,
        kv: FileRecord,
        mended_by: Option<&str>,
    ) -> Result<Result<Arc<Manifest>, String>, StoreError> {
        let held = &self.store.manifest;
        let Some(mended_by) = mended_by else {
            let why = "the blocks computed again are not those that the manifest names";
            return Ok(Err(why.to_owned()));
        };
        if !held.complete {
            let why = "another kernel than the store's may mend it when the build is finished; run \
                       the same `hyperrag build` to its end first";
            return Ok(Err(why.to_owned()));
        }
        // The manifest was read before the lock was taken.
        let now = Manifest::sealed(&self.store.files)?;
        if now.map(|now| now.checksum()) != Some(held.checksum()) {
            return Ok(Err("the store was changed meanwhile; repair it again".to_owned()));
        }
        let mut next = Manifest { generation: held.generation + 1, ..Manifest::clone(held) };
        for record in next.shards.iter_mut().filter(|record| record.shard == shard) {
            (record.kv, record.mended_by) = (kv.clone(), Some(mended_by.to_owned()));
        }
        Ok(Ok(Arc::new(next)))
    }
}
