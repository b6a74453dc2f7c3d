//! A store open for reading: block keys come in, checked blocks and chunks go out. Keeps block tables, chunk
//! files and open files. Knows nothing of replicas.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use hyperrag_core::{
    BlockError, BlockKey, BlockRead, Chunk, ChunkRead, Digest, Failover, KvBlock, KvShape,
    LayerSource, Opened, ShardId,
};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rayon::prelude::*;

use crate::damage::Damage;
use crate::error::StoreError;
use crate::format::chunk_file::ShardChunks;
use crate::format::manifest::Manifest;
use crate::format::paths::{StorePaths, index_folder, is_index};
use crate::local::chunk_file::read_chunks;
use crate::local::generation;
use crate::local::open::open_plain;
use crate::local::open_files::OpenFiles;
use crate::local::pin::Pin;
use crate::local::shard_reader::OpenShard;
use crate::local::state::State;
use crate::local::stored_block::StoredBlock;
use crate::read_error::ReadError;

/// Size of the block tables kept in memory, in bytes: two million blocks.
const TABLES_BYTES_MAX: u64 = 128 << 20;
/// Number of chunk files kept in memory.
const CHUNK_FILES_MAX: usize = 256;

/// Weight of a shard within [`TABLES_BYTES_MAX`]: its table and its own size.
#[derive(Clone)]
struct ShardBytes;

impl Weighter<ShardId, Arc<OpenShard>> for ShardBytes {
    fn weight(&self, _: &ShardId, shard: &Arc<OpenShard>) -> u64 {
        (size_of::<OpenShard>() + size_of_val(&shard.entries[..])) as u64
    }
}

/// A store open for reading, at the generation that it had when it was opened.
pub struct Store {
    pub(crate) paths: StorePaths,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) fingerprint: Digest,
    shards: Cache<ShardId, Arc<OpenShard>, ShardBytes>,
    /// Block tables that are kept without their shards.
    tables: Cache<ShardId, Arc<OpenShard>, ShardBytes>,
    chunks: Cache<ShardId, Arc<ShardChunks>>,
    pub(crate) open_files: Arc<OpenFiles>,
    _pin: Option<Pin>,
    generation_damage: Option<Damage>,
}

impl Store {
    /// Whether there is a manifest at `root`.
    #[must_use]
    pub fn exists(root: &Path) -> bool {
        StorePaths::new(root).manifest().exists()
    }

    /// Whether no process that is known here has the store at `root` open.
    #[must_use]
    pub fn is_unread(root: &Path) -> bool {
        let manifest = open_plain(&StorePaths::new(root).manifest());
        manifest.is_ok_and(|file| file.try_lock().is_ok())
    }

    /// Returns the name of the last index in a store's folder, for one whose manifest is lost.
    #[must_use]
    pub fn last_index(root: &Path) -> String {
        let names = fs::read_dir(root).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| is_index(name)).max().unwrap_or_else(|| index_folder(0))
    }

    /// Opens the store at `root`. As long as it is open, compaction does not remove its files.
    ///
    /// # Errors
    /// [`StoreError::Absent`] if nothing was built, [`StoreError::Damaged`] if manifest or journal is not
    /// what was written.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let state = State::read(&StorePaths::new(root))?;
        let state = state.ok_or_else(|| StoreError::Absent { path: root.to_owned() })?;
        Ok(Self::of_state(root, state))
    }

    /// Opens the store like [`Store::open`], with the shards sealed of an input that is being added, as a
    /// writer continues it.
    ///
    /// # Errors
    /// See [`Store::open`].
    pub fn open_sealed(root: &Path) -> Result<Self, StoreError> {
        let state = State::sealed(&StorePaths::new(root))?;
        let state = state.ok_or_else(|| StoreError::Absent { path: root.to_owned() })?;
        Ok(Self::of_state(root, state))
    }

    /// Opens the files at `root` by `manifest`, whatever the manifest there. The files of a replica are
    /// checked so against the store's own manifest.
    #[must_use]
    pub fn with_manifest(root: &Path, manifest: Arc<Manifest>) -> Self {
        let pin = Pin::read(&StorePaths::new(root).manifest());
        Self::new(root, manifest, pin.ok().map(|(pin, _)| pin))
    }

    fn of_state(root: &Path, state: State) -> Self {
        let generation_damage = state.generation_damage;
        Self { generation_damage, ..Self::new(root, Arc::new(state.manifest), state.pin) }
    }

    pub(crate) fn new(root: &Path, manifest: Arc<Manifest>, pin: Option<Pin>) -> Self {
        let fingerprint = manifest.fingerprint.digest();
        let count = manifest.shards.len().max(1);
        let tables = || Cache::with_weighter(count, TABLES_BYTES_MAX, ShardBytes);
        let (shards, tables) = (tables(), tables());
        let chunks = Cache::new(CHUNK_FILES_MAX);
        let paths = StorePaths::new(root);
        let open_files = Arc::new(OpenFiles::new());
        Self {
            paths,
            manifest,
            fingerprint,
            shards,
            tables,
            chunks,
            open_files,
            _pin: pin,
            generation_damage: None,
        }
    }

    /// Lets the store share the open files of another.
    pub(crate) fn sharing(self, open_files: &Arc<OpenFiles>) -> Self {
        Self { open_files: Arc::clone(open_files), ..self }
    }

    /// Checks the file `generation` of the store at `root`.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system refuses it.
    pub fn generation_damage_at(root: &Path) -> Result<Option<Damage>, StoreError> {
        Ok(generation::read_if_whole(&StorePaths::new(root))?.1)
    }

    /// Damage of the file `generation`, found when the store was opened.
    #[must_use]
    pub fn generation_damage(&self) -> Option<&Damage> {
        self.generation_damage.as_ref()
    }

    /// Folder of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.paths.root
    }

    /// Manifest of the store.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Shape of the blocks.
    #[must_use]
    pub fn kv_shape(&self) -> &KvShape {
        &self.manifest.fingerprint.kv_shape
    }

    /// Reads the chunks and documents of a shard of the manifest.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the file is not what was written.
    pub fn chunks(&self, shard: ShardId) -> Result<ShardChunks, StoreError> {
        read_chunks(&self.paths, &self.manifest, shard)
    }

    pub(crate) fn get(&self, key: &BlockKey) -> Result<Option<KvBlock>, BlockError> {
        self.open_block(key)?.map(|block| block.read()).transpose()
    }

    /// Opens a shard of the manifest.
    fn open_shard(&self, shard: ShardId) -> Result<Arc<OpenShard>, BlockError> {
        let path = self.paths.shard(shard);
        let read = || {
            let file = self.open_files.get(&path, self.manifest.record(shard).kv.bytes)?;
            let read = OpenShard::read(&path, &file, &self.manifest, &self.fingerprint, shard);
            // A damaged file may be repaired before it is asked for again.
            read.map(Arc::new).inspect_err(|_| self.open_files.close(&path))
        };
        let opened = self.shards.get_or_insert_with(&shard, read);
        opened.map_err(|fault: ReadError| fault.at_block(path.display().to_string()))
    }

    /// Reads the block table of a shard of the manifest: the table by itself if there is one, else that of
    /// the shard.
    pub(crate) fn table(&self, shard: ShardId) -> Result<Arc<OpenShard>, BlockError> {
        let path = self.paths.table(shard);
        let read = || {
            let table = OpenShard::read_table(&path, &self.manifest, &self.fingerprint, shard);
            table.map(Arc::new)
        };
        match self.tables.get_or_insert_with(&shard, read) {
            Ok(table) => Ok(table),
            Err(ReadError::Missing) => self.open_shard(shard),
            Err(fault) => {
                self.open_shard(shard).map_err(|_| fault.at_block(path.display().to_string()))
            }
        }
    }

    pub(crate) fn open_block(&self, key: &BlockKey) -> Result<Option<StoredBlock>, BlockError> {
        if self.manifest.shard(key.shard).is_none() {
            return Ok(None);
        }
        let shard = self.open_shard(key.shard)?;
        let paths = Arc::clone(&self.open_files);
        let opened = StoredBlock::open(Arc::clone(&shard), paths, self.kv_shape(), key);
        opened.map(Some).map_err(|fault| fault.at_block(shard.place(key.slot.0)))
    }
}

impl BlockRead for Store {
    fn get_many(&self, keys: &[BlockKey]) -> Vec<Result<Option<KvBlock>, BlockError>> {
        // In parallel: one thread copies from the page cache far slower than a device computes.
        keys.par_iter().map(|key| self.get(key)).collect()
    }

    fn open_many(&self, keys: &[BlockKey]) -> Vec<Opened<'_>> {
        let open = |key| Ok(self.open_block(key)?.map(|block| Box::new(block) as _));
        keys.par_iter().map(open).collect()
    }
}

impl ChunkRead for Store {
    fn chunk(&self, key: &BlockKey, _: &mut Vec<Failover>) -> Result<Chunk, BlockError> {
        let read = || read_chunks(&self.paths, &self.manifest, key.shard).map(Arc::new);
        let chunks =
            self.chunks.get_or_insert_with(&key.shard, read).map_err(|error| match error {
                StoreError::Io { path, source, .. } => {
                    BlockError::Io { place: path.display().to_string(), source }
                }
                StoreError::Damaged { path, what } => {
                    BlockError::Damaged { place: path.display().to_string(), what }
                }
                error => BlockError::Damaged {
                    place: self.paths.root.display().to_string(),
                    what: error.to_string(),
                },
            })?;
        match chunks.chunks.get(key.slot.0 as usize) {
            Some(chunk) if chunk.id == key.chunk => Ok(chunk.clone()),
            _ => {
                let place = self.paths.chunk_file(key.shard).display().to_string();
                Err(BlockError::Damaged {
                    place,
                    what: format!("slot {} is not {}", key.slot.0, key.chunk),
                })
            }
        }
    }
}
