//! The writer of a store: inputs of shards and their blocks come in, sealed shards and snapshots go out, under a
//! lock. It knows neither the model nor the index.

use std::fs::{self, File};
use std::io::{self};
use std::path::{Path, PathBuf};

use hyperrag_core::{Calibration, Chunk, Fingerprint, KvBlock, ShardId, Slot};
use hyperrag_files::temporary;

use crate::error::StoreError;
use crate::format::chunk_file::ShardChunks;
use crate::format::journal::JournalLine;
use crate::format::manifest::Manifest;
use crate::format::notes::StoreNotes;
use crate::format::paths::{StorePaths, is_build};
use crate::format::records::{ShardRecord, ShardRows, Tombstones};
use crate::format::shard_header::BLOCKS_PER_SHARD_MAX;
use crate::format::shard_input::{COLUMN_BYTES_MAX, ShardInput};
use crate::local::calibration;
use crate::local::chunk_file::{read_chunks, write_chunks};
use crate::local::durable::{
    check_own_folder, make_folder, make_own_folder, publish, sync_folder, sync_parent,
};
use crate::local::garbage::{garbage_collect, replace_manifest};
use crate::local::generation::publish_manifest;
use crate::local::journal::{append, remove_other_journals, settle};
use crate::local::lock::lock;
use crate::local::notes;
use crate::local::shard_writer::ShardFileWriter;
use crate::local::state::State;

/// The only writer of a store. The lock file is locked while it lives.
pub struct StoreWriter {
    pub(crate) paths: StorePaths,
    pub(crate) manifest: Manifest,
    _lock: File,
}

/// A shard that is being written. If dropped before [`ShardWriter::seal`], it leaves nothing behind.
pub struct ShardWriter<'a> {
    store: &'a mut StoreWriter,
    input: &'a ShardInput,
    shard_file: ShardFileWriter,
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
        Self::open_from(root, fingerprint, calibration, State::sealed_manifest)
    }

    /// Opens the store like [`StoreWriter::open`], and forgets what an unfinished append sealed. The journal of
    /// the append may be damaged.
    ///
    /// # Errors
    /// See [`StoreWriter::open`].
    pub fn open_without_append(
        root: &Path,
        fingerprint: &Fingerprint,
        calibration: Option<&Calibration>,
    ) -> Result<Self, StoreError> {
        Self::open_from(root, fingerprint, calibration, State::manifest_without_append)
    }

    fn open_from(
        root: &Path,
        fingerprint: &Fingerprint,
        calibration: Option<&Calibration>,
        read_manifest: fn(&StorePaths) -> Result<Option<Manifest>, StoreError>,
    ) -> Result<Self, StoreError> {
        let digest = calibration.map(Calibration::digest);
        assert_eq!(digest, fingerprint.calibration, "the calibration of the fingerprint");
        let paths = StorePaths::new(root);
        let mut entries = fs::read_dir(root).into_iter().flatten().flatten();
        let others = entries.any(|entry| !is_build(&entry.file_name()));
        if others && !paths.manifest().exists() && !paths.lock().exists() {
            return Err(StoreError::NotAStore { path: root.to_owned() });
        }
        State::refuse_unknown(&paths)?;
        make_folder(root)?;
        // An earlier build may have been killed before it synced.
        sync_parent(root)?;
        // Taken first, so that a folder left by a crash is recognised as a store.
        let lock = lock(&paths)?;
        make_own_folder(&paths.shards())?;
        make_own_folder(&paths.chunks())?;
        let manifest = match read_manifest(&paths)? {
            Some(manifest) => {
                if let Some(mismatch) = manifest.fingerprint.mismatch(fingerprint) {
                    return Err(StoreError::mismatch(root, mismatch));
                }
                manifest
            }
            None => {
                let manifest = Manifest::first(fingerprint.clone());
                if let Some(calibration) = calibration {
                    calibration::write(&paths.calibration(), calibration)?;
                }
                publish_manifest(&paths, &manifest)?;
                manifest
            }
        };
        Self::with_manifest(paths, manifest, lock)
    }

    /// Opens the complete store at `root` to delete documents or rewrite shards.
    ///
    /// # Errors
    /// [`StoreError::Absent`] if nothing was built, [`StoreError::Unfinished`] if an input is only partly in,
    /// [`StoreError::Locked`] while another process writes.
    pub fn open_complete(root: &Path) -> Result<Self, StoreError> {
        let paths = StorePaths::new(root);
        let is_there =
            |path: PathBuf| path.try_exists().map_err(StoreError::io(&path, "cannot be read"));
        if !is_there(paths.manifest())? && !is_there(paths.shards())? {
            return Err(StoreError::Absent { path: root.to_owned() });
        }
        State::refuse_unknown(&paths)?;
        let lock = lock(&paths)?;
        let manifest = State::sealed_manifest(&paths)?
            .ok_or_else(|| StoreError::Absent { path: root.to_owned() })?;
        if !manifest.complete {
            return Err(StoreError::Unfinished { path: root.to_owned() });
        }
        Self::with_manifest(paths, manifest, lock)
    }

    pub(crate) fn with_manifest(
        paths: StorePaths,
        manifest: Manifest,
        lock: File,
    ) -> Result<Self, StoreError> {
        let index = paths.root.join(manifest.index_folder());
        for folder in [paths.shards(), paths.chunks(), paths.tables(), index] {
            check_own_folder(&folder)?;
        }
        let writer = Self { paths, manifest, _lock: lock };
        // Nothing of a complete store is sealed in a journal alone.
        match writer.manifest.complete {
            true => remove_journal(&writer.journal())?,
            false => settle(&writer.journal())?,
        }
        // A killed writer may not have synced the snapshot that is seen here. Until it is durable, the files
        // it replaced may be needed again. Nor may a loss of power bring back a journal without its shards.
        sync_folder(&writer.paths.root)?;
        // Files left by a crash take room.
        garbage_collect(&writer.paths, &writer.manifest)?;
        remove_other_journals(&writer.paths, Some(&writer.journal()))?;
        Ok(writer)
    }

    /// Path of the last snapshot's journal.
    pub(crate) fn journal(&self) -> PathBuf {
        self.paths.journal(self.manifest.generation)
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
        read_chunks(&self.paths, &self.manifest, shard)
    }

    /// Starts the shard of `input`, which must be the next one of a store that is not complete. No chunk may
    /// be empty or longer than the fingerprint's `chunk_tokens`.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be made.
    pub fn begin<'a>(&'a mut self, input: &'a ShardInput) -> Result<ShardWriter<'a>, StoreError> {
        assert!(!self.manifest.complete, "a complete store takes no more shards");
        assert_eq!(input.shard, self.manifest.next_shard(), "shards are sealed in order");
        let chunks = &input.contents.chunks;
        let lengths = 1..=self.manifest.fingerprint.chunk_tokens as usize;
        let fits = |chunk: &Chunk| lengths.contains(&chunk.tokens.len());
        assert!(chunks.iter().all(fits), "chunks have {lengths:?} positions");
        if chunks.len() > BLOCKS_PER_SHARD_MAX {
            let (shard, chunks, max) = (input.shard, chunks.len(), BLOCKS_PER_SHARD_MAX);
            return Err(StoreError::TooManyChunks { shard, chunks, max });
        }
        let bytes = input.text_bytes();
        if bytes > COLUMN_BYTES_MAX {
            let (shard, max) = (input.shard, COLUMN_BYTES_MAX);
            return Err(StoreError::TooMuchText { shard, bytes, max });
        }
        let path = self.paths.shard(input.shard);
        let shard_file = ShardFileWriter::create(&path, chunks, &self.manifest.fingerprint)?;
        Ok(ShardWriter { store: self, input, shard_file, sealed: false })
    }

    /// Notes what the store is made with.
    ///
    /// # Errors
    /// [`StoreError`] if the notes cannot be written.
    pub fn note(&self, now: &StoreNotes) -> Result<(), StoreError> {
        notes::write(&self.paths.root, now)
    }

    /// Starts to add an input to a complete store. Readers see it when it is finished.
    pub fn begin_append(&mut self) {
        assert!(self.manifest.complete, "the input added last is all in");
        self.manifest.begin_append();
    }

    /// Marks the store as complete, in a new snapshot.
    ///
    /// # Errors
    /// [`StoreError`] if the snapshot cannot be written.
    pub fn finish(&mut self) -> Result<(), StoreError> {
        self.finish_without(&[])
    }

    /// Finishes the input like [`StoreWriter::finish`]. From then on the `deleted` documents, whose new rows
    /// have no text, count as deleted.
    ///
    /// # Errors
    /// See [`StoreWriter::finish`].
    pub fn finish_without(&mut self, deleted: &[Tombstones]) -> Result<(), StoreError> {
        assert!(!self.manifest.complete, "an input is finished once");
        let mut manifest = Manifest { complete: true, ..self.manifest.clone() };
        manifest.mark_deleted(deleted);
        self.replace(manifest).map(drop)
    }

    /// Deletes documents at once and for good. Their blocks stay until the store is compacted.
    ///
    /// # Errors
    /// [`StoreError`] if the snapshot cannot be written.
    pub fn delete(&mut self, deleted: &[Tombstones]) -> Result<(), StoreError> {
        assert!(self.manifest.complete, "only a complete store is changed");
        let mut manifest = self.manifest.clone();
        manifest.mark_deleted(deleted);
        self.replace(manifest).map(drop)
    }

    /// Publishes the next snapshot and returns the bytes freed.
    pub(crate) fn replace(&mut self, manifest: Manifest) -> Result<u64, StoreError> {
        let journal = self.journal();
        let manifest = Manifest { generation: self.manifest.generation + 1, ..manifest };
        let freed = replace_manifest(&self.paths, &manifest)?;
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
        self.shard_file.write(slot, &self.input.contents.chunks[slot], block)
    }

    /// Publishes the shard and its chunks and enters them in the journal. Once this returns, no crash undoes
    /// it.
    ///
    /// # Errors
    /// [`StoreError`]. The shard is not part of the store then.
    pub fn seal(mut self) -> Result<ShardRecord, StoreError> {
        let ShardInput { shard, rows, rows_digest, contents, replaces } = self.input;
        let shard_rows = ShardRows { shard: *shard, rows: *rows, rows_digest: *rows_digest };
        let kv = self.shard_file.finish(shard_rows)?;
        let chunk_path = self.store.paths.chunk_file(self.input.shard);
        let chunk_file = write_chunks(&chunk_path, &self.input.contents)?;
        self.shard_file.publish()?;
        publish(&chunk_path)?;
        let record = ShardRecord::new(shard_rows, contents, kv, chunk_file);
        let line = JournalLine { record: record.clone(), replaces: replaces.clone() };
        append(&self.store.journal(), &line)?;
        self.store.manifest.add(line.record, &line.replaces);
        self.sealed = true;
        Ok(record)
    }
}

impl Drop for ShardWriter<'_> {
    fn drop(&mut self) {
        if !self.sealed {
            // Best effort: a later build overwrites it.
            let _ = fs::remove_file(temporary(&self.store.paths.chunk_file(self.input.shard)));
        }
    }
}
