//! The writer of a store: units and their blocks come in, sealed shards and snapshots go out, under a lock.
//! Knows neither the model nor the index.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hyperrag_core::{
    Calibration, Chunk, Digest, Document, Fingerprint, KvBlock, KvShape, ShardId, Slot,
};
use hyperrag_files::temporary;

use crate::error::StoreError;
use crate::format::block_table::BLOCKS_PER_SHARD_MAX;
use crate::format::chunk_file::ShardChunks;
use crate::format::manifest::{FileRecord, Manifest, Origin, ShardRecord, Tombstones};
use crate::format::{block_table, chunk_file};
use crate::local::calibration;
use crate::local::journal::{Sealed, append, remove_other_journals, settle};
use crate::local::open::{create_temporary, open_or_create};
use crate::local::paths::{
    Files, check_own_folder, make_folder, make_own_folder, publish, sync_folder, sync_parent,
};
use crate::local::pin::{collect, replace_manifest};
use crate::local::shard_writer::ShardFileWriter;
use crate::local::state::State;
use crate::read_error::ReadError;

/// The only writer of a store. The lock file is locked while it lives.
pub struct StoreWriter {
    pub(crate) files: Files,
    pub(crate) manifest: Manifest,
    _lock: File,
}

/// A unit of the corpus, cut into chunks. Its blocks are not yet computed.
#[derive(Clone, Debug)]
pub struct ShardInput {
    /// Shard that the unit becomes.
    pub shard: ShardId,
    /// Number of input rows.
    pub rows: u64,
    /// Digest of the input rows.
    pub rows_digest: Digest,
    /// Chunks and documents of the unit.
    pub contents: ShardChunks,
    /// Documents that the unit's documents replace.
    pub replaces: Vec<Tombstones>,
}

/// Largest size of titles, texts and token ids (4 bytes each) of a unit with several rows, in bytes. The unit
/// ends before the row that would exceed it.
pub const UNIT_BYTES: u64 = 64 << 20;

/// Number and digest of input rows. Of each part its length (8 bytes) and its bytes are hashed.
#[derive(Clone, Debug, Default)]
pub struct RowsHasher {
    hasher: blake3::Hasher,
    rows: u64,
}

impl RowsHasher {
    /// Adds a row.
    pub fn add(&mut self, row: &Document) {
        for part in [row.id.as_str(), &row.title, &row.text] {
            self.hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        self.rows += 1;
    }

    /// Number of rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Number and digest of the rows.
    #[must_use]
    pub fn finish(&self) -> (u64, Digest) {
        (self.rows, Digest(*self.hasher.finalize().as_bytes()))
    }
}

/// Returns the digest of input rows, see [`RowsHasher`].
#[must_use]
pub fn rows_digest<'a>(rows: impl IntoIterator<Item = &'a Document>) -> Digest {
    let mut hasher = RowsHasher::default();
    rows.into_iter().for_each(|row| hasher.add(row));
    hasher.finish().1
}

/// Largest size of the titles or the texts of a chunk file, in bytes: their ends are written as i32. Token
/// ids are fewer, because a shard has at most 2^20 chunks.
const COLUMN_BYTES_MAX: u64 = i32::MAX as u64;

/// Largest size of a chunk file without the columns' values, in bytes: schema, footer, pages, statistics.
const CHUNK_FILE_BYTES: u64 = 16 << 10;

impl ShardInput {
    /// Returns the size of the unit's shard and chunk file, in bytes. The shard's is exact, the chunk file's
    /// an upper limit.
    #[must_use]
    pub fn bytes_max(&self, kv_shape: &KvShape) -> u64 {
        let chunks = self.contents.chunks.iter();
        let id_bytes = |chunk: &Chunk| chunk.id.document.as_str().len();
        let sizes = chunks.clone().map(|chunk| (id_bytes(chunk), chunk.tokens.len()));
        let columns = chunks.map(|chunk| (id_bytes(chunk) + 4 * chunk.tokens.len() + 64) as u64);
        let columns = columns.sum::<u64>() + self.text_bytes() + CHUNK_FILE_BYTES;
        // Data that does not compress grows a little.
        block_table::file_bytes_of(kv_shape, sizes) + columns + columns / 64
    }

    /// Returns the size of all titles and texts, in bytes.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        let documents = self.contents.documents.iter().map(|indexed| &indexed.document);
        documents.map(|document| (document.title.len() + document.text.len()) as u64).sum()
    }
}

/// A shard that is being written. If dropped before [`ShardWriter::seal`], it leaves nothing behind.
pub struct ShardWriter<'a> {
    store: &'a mut StoreWriter,
    unit: &'a ShardInput,
    draft: ShardFileWriter,
    sealed: bool,
}

impl StoreWriter {
    /// Opens or makes the store at `root`. `calibration` is the one that the fingerprint names, if it names
    /// one.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process writes, [`StoreError::Mismatch`] if the store was made
    /// with another fingerprint, [`StoreError::NotAStore`] for a folder of other things.
    pub fn open(
        root: &Path,
        fingerprint: &Fingerprint,
        calibration: Option<&Calibration>,
    ) -> Result<Self, StoreError> {
        let digest = calibration.map(Calibration::digest);
        assert_eq!(digest, fingerprint.calibration, "the calibration of the fingerprint");
        let files = Files { root: root.to_owned() };
        let others =
            fs::read_dir(root).map(|mut entries| entries.next().is_some()).unwrap_or(false);
        if others && !files.manifest().exists() && !files.lock().exists() {
            return Err(StoreError::NotAStore { path: root.to_owned() });
        }
        State::refuse_unknown(&files)?;
        make_folder(root)?;
        // An earlier build may have been killed before it synced.
        sync_parent(root)?;
        // Taken first, so that a folder left by a crash is recognised as a store.
        let lock = lock(&files)?;
        make_own_folder(&files.shards())?;
        make_own_folder(&files.chunks())?;
        let manifest = match Manifest::sealed(&files)? {
            Some(manifest) => {
                if let Some(mismatch) = manifest.fingerprint.mismatch(fingerprint) {
                    let (path, mismatch) = (root.to_owned(), Box::new(mismatch));
                    return Err(StoreError::Mismatch { path, mismatch });
                }
                manifest
            }
            None => {
                let manifest = Manifest::first(fingerprint.clone());
                if let Some(calibration) = calibration {
                    calibration::write(&files.calibration(), calibration)?;
                }
                manifest.publish(&files)?;
                manifest
            }
        };
        Self::with_manifest(files, manifest, lock)
    }

    /// Opens the complete store at `root` to delete documents or rewrite shards.
    ///
    /// # Errors
    /// [`StoreError::Absent`] if nothing was built, [`StoreError::Unfinished`] if an input is only partly in,
    /// [`StoreError::Locked`] while another process writes.
    pub fn open_complete(root: &Path) -> Result<Self, StoreError> {
        let files = Files { root: root.to_owned() };
        if !files.manifest().exists() && !files.shards().exists() {
            return Err(StoreError::Absent { path: root.to_owned() });
        }
        State::refuse_unknown(&files)?;
        let lock = lock(&files)?;
        let manifest = Manifest::sealed(&files)?
            .ok_or_else(|| StoreError::Absent { path: root.to_owned() })?;
        if !manifest.complete {
            return Err(StoreError::Unfinished { path: root.to_owned() });
        }
        Self::with_manifest(files, manifest, lock)
    }

    fn with_manifest(files: Files, manifest: Manifest, lock: File) -> Result<Self, StoreError> {
        for folder in [files.shards(), files.chunks(), files.root.join(manifest.index_folder())] {
            check_own_folder(&folder)?;
        }
        let writer = Self { files, manifest, _lock: lock };
        // A killed writer may not have synced the snapshot that is seen here. Until it is durable, the files
        // it replaced may be needed again.
        settle(&writer.journal())?;
        sync_folder(&writer.files.root)?;
        // Files left by a crash take room.
        collect(&writer.files, &writer.manifest)?;
        remove_other_journals(&writer.files, Some(&writer.journal()))?;
        Ok(writer)
    }

    /// Path of the last snapshot's journal.
    fn journal(&self) -> PathBuf {
        self.files.journal(self.manifest.generation)
    }

    /// Manifest of the store.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads the chunks and documents of a sealed shard.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the file is not what was written.
    pub fn chunks(&self, shard: ShardId) -> Result<ShardChunks, StoreError> {
        crate::local::reader::read_chunks(&self.files, &self.manifest, shard)
    }

    /// Starts the shard of `unit`, which must be the next one of a store that is not complete. No chunk may
    /// be empty or longer than the fingerprint's `chunk_tokens`.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be made.
    pub fn begin<'a>(&'a mut self, unit: &'a ShardInput) -> Result<ShardWriter<'a>, StoreError> {
        assert!(!self.manifest.complete, "a complete store takes no more units");
        assert_eq!(unit.shard, self.manifest.next_shard(), "units are sealed in order");
        let chunks = &unit.contents.chunks;
        let lengths = 1..=self.manifest.fingerprint.chunk_tokens as usize;
        let fits = |chunk: &Chunk| lengths.contains(&chunk.tokens.len());
        assert!(chunks.iter().all(fits), "chunks have {lengths:?} positions");
        if chunks.len() > BLOCKS_PER_SHARD_MAX {
            let (shard, chunks, max) = (unit.shard, chunks.len(), BLOCKS_PER_SHARD_MAX);
            return Err(StoreError::TooManyChunks { shard, chunks, max });
        }
        let bytes = unit.text_bytes();
        if bytes > COLUMN_BYTES_MAX {
            let (shard, max) = (unit.shard, COLUMN_BYTES_MAX);
            return Err(StoreError::TooMuchText { shard, bytes, max });
        }
        let path = self.files.shard(unit.shard);
        let draft = ShardFileWriter::create(&path, chunks, &self.manifest.fingerprint)?;
        Ok(ShardWriter { store: self, unit, draft, sealed: false })
    }

    /// Starts to add an input to a complete store. Readers see it when it is finished.
    pub fn begin_append(&mut self) {
        assert!(self.manifest.complete, "the input added last is all in");
        self.manifest.begin_append();
    }

    /// Drops the units sealed of an input that is being added to a complete store.
    ///
    /// # Errors
    /// [`StoreError`] if the journal cannot be removed.
    pub fn discard_batch(&mut self) -> Result<(), StoreError> {
        let snapshot = State::snapshot(&self.files)?.map(|state| state.manifest);
        if let Some(manifest) = snapshot.filter(|manifest| manifest.complete) {
            self.manifest = manifest;
            remove_journal(&self.journal())?;
            // A loss of power must not bring the journal back without its shards.
            sync_folder(&self.files.root)?;
            collect(&self.files, &self.manifest)?;
        }
        Ok(())
    }

    /// Marks the store as complete, in a new snapshot.
    ///
    /// # Errors
    /// [`StoreError`] if the snapshot cannot be written.
    pub fn finish(&mut self) -> Result<(), StoreError> {
        self.finish_without(&[])
    }

    /// Finishes the input like [`StoreWriter::finish`]. From then on the `dead` documents, whose new rows
    /// have no text, count as deleted.
    ///
    /// # Errors
    /// See [`StoreWriter::finish`].
    pub fn finish_without(&mut self, dead: &[Tombstones]) -> Result<(), StoreError> {
        assert!(!self.manifest.complete, "an input is finished once");
        let mut manifest = Manifest { complete: true, ..self.manifest.clone() };
        manifest.mark_deleted(dead);
        self.replace(manifest).map(drop)
    }

    /// Deletes documents at once and for good. Their blocks stay until the store is compacted.
    ///
    /// # Errors
    /// [`StoreError`] if the snapshot cannot be written.
    pub fn delete(&mut self, dead: &[Tombstones]) -> Result<(), StoreError> {
        assert!(self.manifest.complete, "only a complete store is changed");
        let mut manifest = self.manifest.clone();
        manifest.mark_deleted(dead);
        self.replace(manifest).map(drop)
    }

    /// Publishes the next snapshot and returns the bytes freed.
    pub(crate) fn replace(&mut self, manifest: Manifest) -> Result<u64, StoreError> {
        let journal = self.journal();
        let manifest = Manifest { generation: self.manifest.generation + 1, ..manifest };
        let freed = replace_manifest(&self.files, &manifest)?;
        self.manifest = manifest;
        remove_journal(&journal)?;
        Ok(freed)
    }
}

fn remove_journal(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io(path, "cannot be removed")(error))
        }
        _ => Ok(()),
    }
}

impl ShardWriter<'_> {
    /// Writes the block of `slot` to its place. Every slot is written once, in any order.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be written.
    pub fn write(&mut self, slot: Slot, block: &KvBlock) -> Result<(), StoreError> {
        let slot = slot.0 as usize;
        self.draft.write(slot, &self.unit.contents.chunks[slot], block)
    }

    /// Publishes the shard and its chunks and enters them in the journal. Once this returns, no crash undoes
    /// it.
    ///
    /// # Errors
    /// [`StoreError`]. The unit is not part of the store then.
    pub fn seal(mut self) -> Result<ShardRecord, StoreError> {
        let ShardInput { shard, rows, rows_digest, contents, replaces } = self.unit;
        let origin = Origin { shard: *shard, rows: *rows, rows_digest: *rows_digest };
        let kv = self.draft.finish(origin)?;
        let chunk_path = self.store.files.chunk_file(self.unit.shard);
        let chunk_file = write_chunks(&chunk_path, &self.unit.contents)?;
        self.draft.publish()?;
        publish(&chunk_path)?;
        let record = record(origin, contents, kv, chunk_file);
        let sealed = Sealed { record: record.clone(), replaces: replaces.clone() };
        append(&self.store.journal(), &sealed)?;
        self.store.manifest.shards.push(sealed.record);
        self.store.manifest.mark_deleted(&sealed.replaces);
        self.sealed = true;
        Ok(record)
    }
}

impl Drop for ShardWriter<'_> {
    fn drop(&mut self) {
        if !self.sealed {
            // Best effort: a later build overwrites it.
            let _ = fs::remove_file(temporary(&self.store.files.chunk_file(self.unit.shard)));
        }
    }
}

/// Makes the record of a shard with these contents.
pub(crate) fn record(
    origin: Origin,
    contents: &ShardChunks,
    kv: FileRecord,
    chunk_file: FileRecord,
) -> ShardRecord {
    let Origin { shard, rows, rows_digest } = origin;
    ShardRecord {
        shard,
        rows,
        rows_digest,
        documents: contents.documents.len() as u64,
        chunks: contents.chunks.len() as u64,
        tokens: contents.chunks.iter().map(|chunk| chunk.tokens.len() as u64).sum(),
        kv,
        chunk_file,
        mended_by: None,
    }
}

pub(crate) fn write_chunks(path: &Path, contents: &ShardChunks) -> Result<FileRecord, StoreError> {
    let partial = temporary(path);
    let file = create_temporary(path)?;
    chunk_file::write(&file, contents).map_err(StoreError::io(&partial, "cannot be written"))?;
    let bytes = fs::read(&partial).map_err(StoreError::io(&partial, "cannot be read"))?;
    Ok(FileRecord { bytes: bytes.len() as u64, digest: Digest::of(&bytes) })
}

/// Takes the operating system's lock on the lock file, which ends with the process. The text in the file is
/// for messages only.
pub(crate) fn lock(files: &Files) -> Result<File, StoreError> {
    let path = files.lock();
    let opened = open_or_create(&path, File::options().read(true).write(true));
    let mut file = opened.map_err(|fault| match fault {
        ReadError::Io(error) => StoreError::io(&path, "cannot be made")(error),
        other => StoreError::Foreign { path: path.clone(), what: format!("{other}: remove it") },
    })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Best effort: without it the message says less.
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
    let noted = file.metadata().and_then(|found| match found.nlink() {
        1 => file.set_len(0).and_then(|()| file.write_all(holder.as_bytes())),
        // Under its other name it may be any file.
        _ => Ok(()),
    });
    noted.map_err(StoreError::io(&path, "cannot be written"))?;
    Ok(file)
}
