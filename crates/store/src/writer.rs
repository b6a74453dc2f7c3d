use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

use hyperrag_kv::{Chunk, Digest, Fingerprint, Geometry, KvBlock, ShardId, Slot};

use crate::draft::Draft;
use crate::files::{Files, publish, sync_folder, temporary};
use crate::layout::{self, BLOCKS_PER_SHARD_MAX};
use crate::manifest::{append, trim};
use crate::{FileRecord, Manifest, ShardChunks, ShardRecord, StoreError, chunks};

/// The one writer of a store: while it lives, the lock file is locked.
pub struct StoreWriter {
    files: Files,
    manifest: Manifest,
    digest: Digest,
    _lock: File,
}

/// One unit of the corpus, cut into chunks, its blocks not yet computed.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The shard it becomes.
    pub shard: ShardId,
    /// Input rows in it.
    pub rows: u64,
    /// Digest of those rows.
    pub rows_digest: Digest,
    /// Chunks and documents.
    pub contents: ShardChunks,
}

/// Bytes of a chunk file beside the columns' values, at most: schema, footer, pages, statistics.
const CHUNK_FILE_BYTES: u64 = 16 << 10;

impl Unit {
    /// Bytes that its shard and chunk file will take: the shard to the byte, the chunk file at most.
    #[must_use]
    pub fn bytes_max(&self, geometry: &Geometry) -> u64 {
        let chunks = self.contents.chunks.iter();
        let id_bytes = |chunk: &Chunk| chunk.id.document.as_str().len();
        let sizes = chunks.clone().map(|chunk| (id_bytes(chunk), chunk.tokens.len()));
        let columns = chunks.map(|chunk| (id_bytes(chunk) + 4 * chunk.tokens.len() + 64) as u64);
        let columns = columns.sum::<u64>() + self.text_bytes() + CHUNK_FILE_BYTES;
        // What does not compress grows a little.
        layout::file_bytes_of(geometry, sizes) + columns + columns / 64
    }

    /// Bytes of all titles and texts.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        let documents = self.contents.documents.iter().map(|indexed| &indexed.document);
        documents.map(|document| (document.title.len() + document.text.len()) as u64).sum()
    }
}

/// A shard being written. Dropped before [`UnitWriter::seal`], it leaves nothing behind.
pub struct UnitWriter<'a> {
    store: &'a mut StoreWriter,
    unit: &'a Unit,
    draft: Draft,
    sealed: bool,
}

impl StoreWriter {
    /// Opens the store at `root`, or makes it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process writes, [`StoreError::Mismatch`] where the
    /// store was made with another fingerprint, [`StoreError::NotAStore`] for a folder of other
    /// things.
    pub fn open(root: &Path, fingerprint: &Fingerprint) -> Result<Self, StoreError> {
        let files = Files { root: root.to_owned() };
        let others =
            fs::read_dir(root).map(|mut entries| entries.next().is_some()).unwrap_or(false);
        if others && !files.manifest().exists() && !files.lock().exists() {
            return Err(StoreError::NotAStore { path: root.to_owned() });
        }
        let make = |folder: &Path| {
            fs::create_dir_all(folder).map_err(StoreError::io(folder, "the folder cannot be made"))
        };
        make(root)?;
        // First of all, so that a folder left by a crash is known for a store.
        let lock = lock(&files)?;
        make(&files.shards())?;
        make(&files.chunks())?;
        let manifest = match Manifest::read(&files)? {
            Some(manifest) => {
                if let Some(mismatch) = manifest.fingerprint.mismatch(fingerprint) {
                    let (path, mismatch) = (root.to_owned(), Box::new(mismatch));
                    return Err(StoreError::Mismatch { path, mismatch });
                }
                trim(&files.journal(manifest.generation))?;
                manifest
            }
            None => {
                let fingerprint = fingerprint.clone();
                let manifest =
                    Manifest { generation: 1, fingerprint, complete: false, shards: Vec::new() };
                sync_folder(root)?;
                manifest.publish(&files)?;
                manifest
            }
        };
        let digest = fingerprint.digest();
        Ok(Self { files, manifest, digest, _lock: lock })
    }

    /// What the store holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Chunks and documents of a sealed shard.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the file is not what was written.
    pub fn chunks(&self, shard: ShardId) -> Result<ShardChunks, StoreError> {
        crate::reader::read_chunks(&self.files, &self.manifest, shard)
    }

    /// Starts the shard of `unit`, which must be the next one of a store that is not complete. No
    /// chunk may be empty or longer than the fingerprint's `chunk_tokens`.
    ///
    /// # Errors
    /// [`StoreError`] where the file can not be made.
    pub fn begin<'a>(&'a mut self, unit: &'a Unit) -> Result<UnitWriter<'a>, StoreError> {
        assert!(!self.manifest.complete, "a complete store takes no more units");
        assert_eq!(unit.shard.0 as usize, self.manifest.shards.len(), "units are sealed in order");
        let chunks = &unit.contents.chunks;
        let lengths = 1..=self.manifest.fingerprint.chunk_tokens as usize;
        let fits = |chunk: &Chunk| lengths.contains(&chunk.tokens.len());
        assert!(chunks.iter().all(fits), "chunks have {lengths:?} positions");
        if chunks.len() > BLOCKS_PER_SHARD_MAX {
            let (shard, chunks, max) = (unit.shard, chunks.len(), BLOCKS_PER_SHARD_MAX);
            return Err(StoreError::TooManyChunks { shard, chunks, max });
        }
        let geometry = self.manifest.fingerprint.geometry;
        let draft = Draft::create(&self.files.shard(unit.shard), chunks, geometry, self.digest)?;
        Ok(UnitWriter { store: self, unit, draft, sealed: false })
    }

    /// Marks the store as holding all of the corpus, once, in a snapshot of its own.
    ///
    /// # Errors
    /// [`StoreError`] where the snapshot can not be written.
    pub fn finish(&mut self) -> Result<(), StoreError> {
        assert!(!self.manifest.complete, "a store is finished once");
        let journal = self.files.journal(self.manifest.generation);
        let generation = self.manifest.generation + 1;
        let manifest = Manifest { generation, complete: true, ..self.manifest.clone() };
        manifest.publish(&self.files)?;
        self.manifest = manifest;
        match fs::remove_file(&journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io(&journal, "cannot be removed")(error))
            }
            _ => Ok(()),
        }
    }
}

impl UnitWriter<'_> {
    /// Writes the block of `slot` to its place. Every slot is written once, in any order.
    ///
    /// # Errors
    /// [`StoreError`] where the file can not be written.
    pub fn write(&mut self, slot: Slot, block: &KvBlock) -> Result<(), StoreError> {
        let slot = slot.0 as usize;
        self.draft.write(slot, &self.unit.contents.chunks[slot], block)
    }

    /// Publishes the shard and its chunks, and enters them in the journal. Once this returns, no
    /// crash undoes it.
    ///
    /// # Errors
    /// [`StoreError`]; the unit is then not part of the store.
    pub fn seal(mut self) -> Result<ShardRecord, StoreError> {
        let kv = self.draft.finish(self.unit.shard)?;
        let chunk_path = self.store.files.chunk_file(self.unit.shard);
        let chunk_file = write_chunks(&chunk_path, &self.unit.contents)?;
        self.draft.publish()?;
        publish(&chunk_path)?;
        let Unit { shard, rows, rows_digest, contents } = self.unit;
        let record = ShardRecord {
            shard: *shard,
            rows: *rows,
            rows_digest: *rows_digest,
            documents: contents.documents.len() as u64,
            chunks: contents.chunks.len() as u64,
            tokens: contents.chunks.iter().map(|chunk| chunk.tokens.len() as u64).sum(),
            kv,
            chunk_file,
        };
        append(&self.store.files.journal(self.store.manifest.generation), &record)?;
        self.store.manifest.shards.push(record.clone());
        self.sealed = true;
        Ok(record)
    }
}

impl Drop for UnitWriter<'_> {
    fn drop(&mut self) {
        if !self.sealed {
            // Best effort: a later build writes over what stays.
            let _ = fs::remove_file(temporary(&self.store.files.chunk_file(self.unit.shard)));
        }
    }
}

fn write_chunks(path: &Path, contents: &ShardChunks) -> Result<FileRecord, StoreError> {
    let partial = temporary(path);
    let written = File::create(&partial).and_then(|file| chunks::write(&file, contents));
    written.map_err(StoreError::io(&partial, "cannot be written"))?;
    let bytes = fs::read(&partial).map_err(StoreError::io(&partial, "cannot be read"))?;
    Ok(FileRecord { bytes: bytes.len() as u64, digest: Digest::of(&bytes) })
}

/// Takes the operating system's lock on the lock file, which ends with the process. What stands
/// in the file is for the message only.
pub(crate) fn lock(files: &Files) -> Result<File, StoreError> {
    let path = files.lock();
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(StoreError::io(&path, "cannot be made"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Without it the message says less.
            let _ = (&mut file).take(200).read_to_string(&mut holder);
            return Err(StoreError::Locked {
                path: files.root.clone(),
                holder: holder.trim().to_owned(),
            });
        }
        Err(TryLockError::Error(error)) => {
            return Err(StoreError::io(&path, "cannot be locked")(error));
        }
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let holder = format!("process {} on {}\n", std::process::id(), host.trim());
    let noted = file.set_len(0).and_then(|()| file.write_all(holder.as_bytes()));
    noted.map_err(StoreError::io(&path, "cannot be written"))?;
    Ok(file)
}
