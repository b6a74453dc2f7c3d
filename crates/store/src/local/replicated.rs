//! A store with its replicas: block keys come in, blocks and chunks from the first copy that has them intact
//! go out, with notes on failed reads. Repairs nothing.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyperrag_core::{
    BlockError, BlockKey, BlockRead, Calibration, Chunk, ChunkRead, Failover, Hint, KvBlock,
    KvShape, LayerSource, Opened, Warning,
};
use rayon::prelude::*;

use crate::error::StoreError;
use crate::format::manifest::Manifest;
use crate::format::notes::StoreNotes;
use crate::format::paths::StorePaths;
use crate::local::latest::{Traces, latest};
use crate::local::notes::notes;
use crate::local::reader::Store;
use crate::local::replica_list::replicas;
use crate::local::stored_block::StoredBlock;

/// A store and its replicas. Bytes that are damaged or unreachable in one are read from the next.
///
/// All files are checked against the store's own manifest, so a replica that is behind, or of another store,
/// serves nothing wrong.
pub struct Replicated {
    /// The store itself, then its replicas.
    copies: Vec<Store>,
    /// Reads from replicas while the store was opened.
    opening: Mutex<Vec<Failover>>,
    warnings: Vec<Warning>,
    doubt: Option<Warning>,
}

/// A value read from a copy.
struct Found<T> {
    value: T,
    copy: usize,
    /// Fault of the copy asked before, if it was unusable.
    failover: Option<Failover>,
}

impl Replicated {
    /// Opens the store at `root` with the replicas that it remembers. If its manifest is unusable, the proved
    /// or latest manifest of a replica is taken.
    ///
    /// # Errors
    /// See [`Store::open`], if no replica helps.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let mut warnings = Vec::new();
        let mut listed = replicas(root).unwrap_or_else(|error| {
            let what = format!("{error}; reading goes on without replicas");
            warnings.push(Warning { what, hint: Some(Hint::NameReplicas) });
            Vec::new()
        });
        listed.retain(|replica| {
            let reached = StorePaths::new(replica).shards().is_dir();
            if !reached {
                let what = format!(
                    "{}: the replica cannot be reached; reading goes on without it",
                    replica.display()
                );
                warnings.push(Warning { what, hint: Some(Hint::ForgetReplica) });
            }
            reached
        });
        let (mut opening, mut doubt) = (Vec::new(), None);
        let own = match Store::open(root) {
            Ok(store) => store,
            Err(error) if error.is_refusal() => return Err(error),
            Err(error @ (StoreError::Damaged { .. } | StoreError::Io { .. })) => {
                let paths = StorePaths::new(root);
                let traces = Traces::of(&paths);
                let Some(found) = latest(&paths, &traces, &listed, false) else {
                    return Err(error);
                };
                let (from, generation) = (found.from, found.state.manifest.generation);
                doubt = (!found.proved).then(|| {
                    let what = format!(
                        "the replica {} {}: what was deleted, added or replaced since is not seen",
                        from.display(),
                        traces.doubt(generation)
                    );
                    Warning { what, hint: Some(Hint::AcceptOlder) }
                });
                opening.push(Failover { what: error.to_string(), from });
                Store::new(root, Arc::new(found.state.manifest), found.state.pin)
            }
            Err(error) => return Err(error),
        };
        let manifest = Arc::clone(&own.manifest);
        let others = listed.iter().map(|root| Store::with_manifest(root, Arc::clone(&manifest)));
        let open_files = Arc::clone(&own.open_files);
        let others = others.map(|copy| copy.sharing(&open_files));
        let copies = std::iter::once(own).chain(others).collect();
        Ok(Self { copies, opening: Mutex::new(opening), warnings, doubt })
    }

    /// Says why these may not be the store's last contents; `None` if they are.
    #[must_use]
    pub fn doubt(&self) -> Option<&Warning> {
        self.doubt.as_ref()
    }

    /// Reads what the store was made with, from the first copy that has whole notes, else nothing. Returns a
    /// warning too if its own are damaged.
    #[must_use]
    pub fn notes(&self) -> (StoreNotes, Option<Warning>) {
        let found = self.copies.iter().find_map(|copy| {
            let found = notes(copy.root()).ok().flatten()?;
            Some((found, copy.root()))
        });
        let warning = notes(self.copies[0].root()).err().map(|error| {
            let what = match &found {
                Some((_, from)) => {
                    format!("{error}; the notes were read from the replica {}", from.display())
                }
                None => format!("{error}; reading goes on without them"),
            };
            Warning { what, hint: Some(Hint::Repair) }
        });
        (found.map(|(found, _)| found).unwrap_or_default(), warning)
    }

    /// Manifest of the store.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.copies[0].manifest()
    }

    /// Shape of the blocks.
    #[must_use]
    pub fn kv_shape(&self) -> &KvShape {
        self.copies[0].kv_shape()
    }

    /// Reads the calibration, if the element type needs one.
    ///
    /// # Errors
    /// See [`Store::calibration`], if no replica helps.
    pub fn calibration(&self) -> Result<Option<Calibration>, StoreError> {
        let own = self.copies[0].calibration();
        let Err(error) = &own else { return own };
        for copy in &self.copies[1..] {
            if let Ok(found) = copy.calibration() {
                let (what, from) = (error.to_string(), copy.root().to_owned());
                self.note(Failover { what, from });
                return Ok(found);
            }
        }
        own
    }

    /// Lists the folders of the store and of its reachable replicas, in the order in which they are asked.
    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        self.copies.iter().map(Store::root)
    }

    /// Warnings about unusable replicas.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Notes a failover of another part of opening, such as the index.
    pub fn note(&self, failover: Failover) {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner).push(failover);
    }

    /// Returns the reads from replicas while the store was opened, each once. Blocks and chunks report their
    /// own.
    #[must_use]
    pub fn take_failovers(&self) -> Vec<Failover> {
        std::mem::take(&mut self.opening.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks one copy after the other until one has it intact. If none has, returns the store's own error.
    fn first<T>(
        &self,
        mut read: impl FnMut(&Store) -> Result<Option<T>, BlockError>,
    ) -> Result<Option<Found<T>>, BlockError> {
        match read(&self.copies[0]) {
            Ok(found) => Ok(found.map(|value| Found { value, copy: 0, failover: None })),
            Err(error) => self.other(0, error, read).map(Some),
        }
    }

    /// Asks all copies but `failed`, which returned `error`.
    fn other<T>(
        &self,
        failed: usize,
        error: BlockError,
        mut read: impl FnMut(&Store) -> Result<Option<T>, BlockError>,
    ) -> Result<Found<T>, BlockError> {
        for (i, copy) in self.copies.iter().enumerate().filter(|(i, _)| *i != failed) {
            if let Ok(Some(value)) = read(copy) {
                let what = match &error {
                    BlockError::Io { source, .. } => format!("{error} ({source})"),
                    error => error.to_string(),
                };
                let failover = Some(Failover { what, from: copy.root().to_owned() });
                return Ok(Found { value, copy: i, failover });
            }
        }
        Err(match error {
            BlockError::Damaged { place, what } if self.copies.len() > 1 => {
                BlockError::Damaged { place, what: format!("{what}, and no replica has it intact") }
            }
            error => error,
        })
    }

    fn open_block(&self, key: &BlockKey) -> Result<Option<CopiedBlock<'_>>, BlockError> {
        let Some(found) = self.first(|copy| copy.open_block(key))? else { return Ok(None) };
        let (first, key) = (Arc::new(found.value), key.clone());
        let reading = Mutex::new(Reading {
            block: Arc::clone(&first),
            copy: found.copy,
            failovers: found.failover.into_iter().collect(),
        });
        Ok(Some(CopiedBlock { store: self, key, first, reading }))
    }
}

impl BlockRead for Replicated {
    fn get_many(&self, keys: &[BlockKey]) -> Vec<Result<Option<KvBlock>, BlockError>> {
        let get = |key| Ok(self.first(|copy| copy.get(key))?.map(|found| found.value));
        keys.par_iter().map(get).collect()
    }

    fn open_many(&self, keys: &[BlockKey]) -> Vec<Opened<'_>> {
        let open = |key| Ok(self.open_block(key)?.map(|block| Box::new(block) as _));
        keys.par_iter().map(open).collect()
    }
}

/// A block whose layers may come from different copies.
struct CopiedBlock<'s> {
    store: &'s Replicated,
    key: BlockKey,
    first: Arc<StoredBlock>,
    reading: Mutex<Reading>,
}

/// Progress of reading a block.
struct Reading {
    /// Block in the copy that served last. It is asked next.
    block: Arc<StoredBlock>,
    copy: usize,
    failovers: Vec<Failover>,
}

impl CopiedBlock<'_> {
    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the block in the copy that is asked next, and the number of that copy.
    fn current(&self) -> (Arc<StoredBlock>, usize) {
        let reading = self.reading();
        (Arc::clone(&reading.block), reading.copy)
    }

    fn read_layer(&self, layer: usize, buffer: &mut Vec<u8>) -> Result<Range<usize>, BlockError> {
        let (block, copy) = self.current();
        let error = match block.read_layer(layer, buffer) {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        let found = self.store.other(copy, error, |copy| {
            let Some(block) = copy.open_block(&self.key)? else { return Ok(None) };
            Ok(Some((block.read_layer(layer, buffer)?, block)))
        })?;
        let (read, block) = found.value;
        let mut reading = self.reading();
        (reading.block, reading.copy) = (Arc::new(block), found.copy);
        reading.failovers.extend(found.failover);
        Ok(read)
    }

    /// Reads the whole block layer by layer, in case no copy has all of it intact.
    fn read_by_layers(&self) -> Result<KvBlock, BlockError> {
        let (kv_shape, tokens) = (self.first.kv_shape(), self.first.tokens());
        let mut kv = KvBlock::memory(tokens * kv_shape.token_bytes());
        let mut buffer = Vec::new();
        for (layer, bytes) in kv.chunks_exact_mut(kv_shape.layer_bytes(tokens)).enumerate() {
            let read = self.read_layer(layer, &mut buffer)?;
            bytes.copy_from_slice(&buffer[read]);
        }
        Ok(KvBlock::new(*kv_shape, tokens, kv, self.first.hidden().to_vec()))
    }
}

impl LayerSource for CopiedBlock<'_> {
    fn kv_shape(&self) -> &KvShape {
        self.first.kv_shape()
    }

    fn tokens(&self) -> usize {
        self.first.tokens()
    }

    fn hidden(&self) -> &[f32] {
        self.first.hidden()
    }

    fn layer<'a>(&'a self, layer: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], BlockError> {
        let read = self.read_layer(layer, buffer)?;
        Ok(&buffer[read])
    }

    fn prefetch(&self, layer: usize) {
        self.current().0.prefetch(layer);
    }

    fn failovers(&self) -> Vec<Failover> {
        self.reading().failovers.clone()
    }

    fn read(&self) -> Result<KvBlock, BlockError> {
        let (block, _) = self.current();
        block.read().or_else(|_| self.read_by_layers())
    }
}

impl ChunkRead for Replicated {
    fn chunk(&self, key: &BlockKey, failovers: &mut Vec<Failover>) -> Result<Chunk, BlockError> {
        let found = self.first(|copy| copy.chunk(key, &mut Vec::new()).map(Some))?;
        let found = found.expect("a store that has no chunk says why");
        failovers.extend(found.failover);
        Ok(found.value)
    }
}
