use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyperrag_kv::{
    BlockError, BlockKey, BlockRead, Calibration, Chunk, ChunkRead, Geometry, KvBlock, KvLayers,
    Opened,
};
use rayon::prelude::*;

use crate::stored::StoredBlock;
use crate::{Manifest, Store, StoreError, replicas};

/// A store and its replicas: what is damaged or unreachable in one is read from the next.
///
/// Every replica's files are checked against the store's own manifest, so a replica that is behind,
/// or of another store, serves nothing wrong.
pub struct Replicated {
    /// The store itself first.
    copies: Vec<Store>,
    failovers: Mutex<Vec<Failover>>,
    notices: Vec<String>,
}

/// Something that was read from a replica because the store's own is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// File, and what is wrong with it.
    pub what: String,
    /// Folder of the replica that served it.
    pub from: PathBuf,
}

impl Replicated {
    /// Opens the store at `root` with the replicas that it remembers. Where its manifest is damaged,
    /// the first replica's that is whole counts.
    ///
    /// # Errors
    /// As [`Store::open`], where no replica helps.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let mut notices = Vec::new();
        let mut listed = replicas(root).unwrap_or_else(|error| {
            notices.push(format!(
                "{error}; reading goes on without replicas, name them again with `hyperrag replicate`"
            ));
            Vec::new()
        });
        listed.retain(|replica| {
            let reached = replica.join("shards").is_dir();
            if !reached {
                notices.push(format!(
                    "{}: the replica cannot be reached; reading goes on without it",
                    replica.display()
                ));
            }
            reached
        });
        let mut failovers = Vec::new();
        let own = match Store::open(root) {
            Ok(store) => store,
            Err(error) if error.is_refusal() => return Err(error),
            Err(error @ (StoreError::Damaged { .. } | StoreError::Io { .. })) => {
                let open = |from: &PathBuf| Some((Store::open(from).ok()?.manifest, from.clone()));
                let Some((manifest, from)) = listed.iter().find_map(open) else {
                    return Err(error);
                };
                failovers.push(Failover { what: error.to_string(), from });
                Store::with_manifest(root, manifest)
            }
            Err(error) => return Err(error),
        };
        let manifest = Arc::clone(&own.manifest);
        let others = listed.iter().map(|root| Store::with_manifest(root, Arc::clone(&manifest)));
        let open_files = Arc::clone(&own.open_files);
        let others = others.map(|copy| copy.sharing(&open_files));
        let copies = std::iter::once(own).chain(others).collect();
        Ok(Self { copies, failovers: Mutex::new(failovers), notices })
    }

    /// What the store holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.copies[0].manifest()
    }

    /// Sizes of its blocks.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        self.copies[0].geometry()
    }

    /// The calibration that the store's elements need, if they do.
    ///
    /// # Errors
    /// As [`Store::calibration`], where no replica helps.
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

    /// The folders of the store and of its replicas that can be reached, in the order in which they
    /// are asked.
    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        self.copies.iter().map(Store::root)
    }

    /// What a user should know about replicas that are of no use, one sentence each.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Notes that something else of the store, its index, was read from a replica.
    pub fn note(&self, failover: Failover) {
        self.failovers.lock().unwrap_or_else(PoisonError::into_inner).push(failover);
    }

    /// What was read from replicas since the last call.
    #[must_use]
    pub fn take_failovers(&self) -> Vec<Failover> {
        std::mem::take(&mut self.failovers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the first copy gives that has it intact, and which one that is, or the store's own error.
    fn first<T>(
        &self,
        mut read: impl FnMut(&Store) -> Result<Option<T>, BlockError>,
    ) -> Result<Option<(T, usize)>, BlockError> {
        match read(&self.copies[0]) {
            Ok(found) => Ok(found.map(|found| (found, 0))),
            Err(error) => self.other(0, error, read).map(Some),
        }
    }

    /// The same of the copies but `failed`, which gave `error`.
    fn other<T>(
        &self,
        failed: usize,
        error: BlockError,
        mut read: impl FnMut(&Store) -> Result<Option<T>, BlockError>,
    ) -> Result<(T, usize), BlockError> {
        for (i, copy) in self.copies.iter().enumerate().filter(|(i, _)| *i != failed) {
            if let Ok(Some(found)) = read(copy) {
                let what = match &error {
                    BlockError::Io { source, .. } => format!("{error} ({source})"),
                    error => error.to_string(),
                };
                self.note(Failover { what, from: copy.root().to_owned() });
                return Ok((found, i));
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
        let Some((block, copy)) = self.first(|copy| copy.open_block(key))? else { return Ok(None) };
        let (first, key) = (Arc::new(block), key.clone());
        let current = Mutex::new((Arc::clone(&first), copy));
        Ok(Some(CopiedBlock { store: self, key, first, current }))
    }
}

impl BlockRead for Replicated {
    fn get_many(&self, keys: &[BlockKey]) -> Vec<Result<Option<KvBlock>, BlockError>> {
        let get = |key| Ok(self.first(|copy| copy.get(key))?.map(|(block, _)| block));
        keys.par_iter().map(get).collect()
    }

    fn open_many(&self, keys: &[BlockKey]) -> Vec<Opened<'_>> {
        let open = |key| Ok(self.open_block(key)?.map(|block| Box::new(block) as _));
        keys.par_iter().map(open).collect()
    }
}

/// A block, each of whose layers may come from another copy.
struct CopiedBlock<'s> {
    store: &'s Replicated,
    key: BlockKey,
    first: Arc<StoredBlock>,
    /// The copy that served last, which is asked next.
    current: Mutex<(Arc<StoredBlock>, usize)>,
}

impl CopiedBlock<'_> {
    fn current(&self) -> MutexGuard<'_, (Arc<StoredBlock>, usize)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_layer(&self, layer: usize, buffer: &mut Vec<u8>) -> Result<Range<usize>, BlockError> {
        let (block, copy) = self.current().clone();
        let error = match block.read_layer(layer, buffer) {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        let ((read, block), copy) = self.store.other(copy, error, |copy| {
            let Some(block) = copy.open_block(&self.key)? else { return Ok(None) };
            Ok(Some((block.read_layer(layer, buffer)?, block)))
        })?;
        *self.current() = (Arc::new(block), copy);
        Ok(read)
    }

    /// All of it, where no copy may have all of it intact.
    fn read_by_layers(&self) -> Result<KvBlock, BlockError> {
        let (geometry, tokens) = (self.first.geometry(), self.first.tokens());
        let mut kv = KvBlock::memory(tokens * geometry.token_bytes());
        let mut buffer = Vec::new();
        for (layer, bytes) in kv.chunks_exact_mut(geometry.layer_bytes(tokens)).enumerate() {
            let read = self.read_layer(layer, &mut buffer)?;
            bytes.copy_from_slice(&buffer[read]);
        }
        Ok(KvBlock::new(*geometry, tokens, kv, self.first.hidden().to_vec()))
    }
}

impl KvLayers for CopiedBlock<'_> {
    fn geometry(&self) -> &Geometry {
        self.first.geometry()
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

    fn expect(&self, layer: usize) {
        self.current().0.expect(layer);
    }

    fn read(&self) -> Result<KvBlock, BlockError> {
        let (block, _) = self.current().clone();
        block.read().or_else(|_| self.read_by_layers())
    }
}

impl ChunkRead for Replicated {
    fn chunk(&self, key: &BlockKey) -> Result<Chunk, BlockError> {
        let found = self.first(|copy| copy.chunk(key).map(Some))?;
        let (chunk, _) = found.expect("a store that has no chunk says why");
        Ok(chunk)
    }
}
