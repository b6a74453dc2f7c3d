//! A store with its replicas and tiers: block keys come in, blocks and chunks from the first place that has them
//! intact go out, with notes on failed reads. Repairs nothing.
//!
//! A folder's blocks are read when they are used. A tier's blocks are asked for ahead, in frames, in the order
//! of use. One code checks the bytes of both (see `block_check`).

mod arriving;
mod block;
mod in_use;
mod open_blocks;
mod places;
mod promotion;
pub(crate) mod stats;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyperrag_core::{
    BlockError, BlockKey, BlockRead, Calibration, Chunk, ChunkRead, Failover, Hint, KvBlock,
    KvShape, LayerSource, Opened, Tier, Warning,
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
use crate::tiered::arriving::Arriving;
use crate::tiered::arriving::requests::ask_together;
use crate::tiered::block::{BlockReader, TieredBlock};
use crate::tiered::in_use::TierInUse;
use crate::tiered::open_blocks::OpenBlocks;
use crate::tiered::places::{Place, Places, told};
use crate::tiered::stats::{RequestClock, TierWork};

/// Number of bytes that are under way from tiers at once, for the blocks of one request.
const WINDOW_BYTES: u64 = 128 << 20;

/// A place in the order in which blocks are asked for.
#[derive(Clone)]
pub enum TierChoice {
    /// The store's folder, then its replicas.
    Store,
    /// A tier.
    Tier {
        /// The tier.
        tier: Arc<dyn Tier>,
        /// Longest time to wait for bytes, after which the next place is asked.
        patience: Duration,
    },
}

/// A store with its replicas and tiers. Bytes that are damaged or unreachable in one are read from the next.
///
/// All files are checked against the store's own manifest, so a replica that is behind, or of another store,
/// serves nothing wrong.
pub struct Tiered {
    places: Arc<Places>,
    open: OpenBlocks,
    /// Reads from replicas while the store was opened.
    opening: Mutex<Vec<Failover>>,
    warnings: Vec<Warning>,
    doubt: Option<Warning>,
}

impl Tiered {
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
                opening.push(Failover { what: error.to_string(), from, tiered: false });
                Store::new(root, Arc::new(found.state.manifest), found.state.pin)
            }
            Err(error) => return Err(error),
        };
        let manifest = Arc::clone(&own.manifest);
        let others = listed.iter().map(|root| Store::with_manifest(root, Arc::clone(&manifest)));
        let open_files = Arc::clone(&own.open_files);
        let others = others.map(|copy| copy.sharing(&open_files));
        let copies = std::iter::once(own).chain(others).collect();
        let places = Arc::new(Places::of_copies(copies));
        let open = OpenBlocks::default();
        Ok(Self { places, open, opening: Mutex::new(opening), warnings, doubt })
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
        let found = self.places.copies.iter().find_map(|copy| {
            let found = notes(copy.root()).ok().flatten()?;
            Some((found, copy.root()))
        });
        let warning = notes(self.places.copies[0].root()).err().map(|error| {
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
        self.places.copies[0].manifest()
    }

    /// Shape of the blocks.
    #[must_use]
    pub fn kv_shape(&self) -> &KvShape {
        self.places.copies[0].kv_shape()
    }

    /// Reads the calibration, if the element type needs one.
    ///
    /// # Errors
    /// See [`Store::calibration`], if no replica helps.
    pub fn calibration(&self) -> Result<Option<Calibration>, StoreError> {
        let own = self.places.copies[0].calibration();
        let Err(error) = &own else { return own };
        for copy in &self.places.copies[1..] {
            if let Ok(found) = copy.calibration() {
                let (what, from) = (error.to_string(), copy.root().to_owned());
                self.note(Failover { what, from, tiered: false });
                return Ok(found);
            }
        }
        own
    }

    /// Lists the folders of the store and of its reachable replicas, in the order in which they are asked.
    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        self.places.copies.iter().map(Store::root)
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

    /// Returns the store with another order of places. A store without [`TierChoice::Store`] in it reads no
    /// block from its folder or a replica.
    #[must_use]
    pub fn with_tiers(mut self, choices: Vec<TierChoice>) -> Self {
        let order = choices.into_iter().flat_map(|choice| match choice {
            TierChoice::Store => (0..self.places.copies.len()).map(Place::Copy).collect(),
            TierChoice::Tier { tier, patience } => {
                vec![Place::Tier(Arc::new(TierInUse::new(tier, patience)))]
            }
        });
        let order = order.collect();
        let places = Arc::get_mut(&mut self.places).expect("no block of a new store is open");
        places.order = order;
        self
    }

    /// Returns the work of each tier since the store was opened, in the order in which they are asked.
    #[must_use]
    pub fn tier_work(&self) -> Vec<TierWork> {
        self.places.work()
    }

    /// Returns the name of a place by its number in the order in which places are asked.
    ///
    /// # Panics
    /// If there is no such place.
    #[must_use]
    pub fn place_name(&self, place: usize) -> String {
        self.places.name(place).display().to_string()
    }

    /// Opens blocks, each to ask a distant tier for `window` bytes ahead of use.
    fn open_blocks(
        &self,
        keys: &[BlockKey],
        window: u64,
    ) -> Vec<Result<Option<Arc<TieredBlock>>, BlockError>> {
        let clock = Arc::new(RequestClock::start(self.places.order.len()));
        let open = |key| TieredBlock::open(&self.places, key, window, &clock);
        keys.par_iter().map(|key| self.open.block(key, || open(key))).collect()
    }

    /// Opens blocks, and asks distant tiers for the first frames of those that they may have: first frames
    /// first, because a pass over many blocks uses one layer of each at a time.
    fn open_ahead(&self, keys: &[BlockKey]) -> Vec<Result<Option<Arc<TieredBlock>>, BlockError>> {
        let opened = self.open_blocks(keys, WINDOW_BYTES / keys.len().max(1) as u64);
        for (place, tier) in self.places.distant() {
            let blocks =
                opened.iter().filter_map(|block| block.as_ref().ok()?.as_ref()?.arriving());
            let blocks = blocks.filter(|(from, _)| *from == place).map(|(_, block)| block);
            // A pass that comes later announces its blocks itself.
            let mut left = WINDOW_BYTES;
            let fits = |block: &Arc<Arriving>| {
                let fits = left > 0;
                left = left.saturating_sub(block.first_bytes());
                fits
            };
            ask_first_frames(tier, &blocks.take_while(fits).collect::<Vec<_>>());
        }
        opened
    }
}

/// Returns a reader of an open block.
fn reader<'a>(opened: Result<Option<Arc<TieredBlock>>, BlockError>) -> Opened<'a> {
    let reader = |block| Box::new(BlockReader::new(block)) as Box<dyn LayerSource>;
    Ok(opened?.map(reader))
}

impl BlockRead for Tiered {
    fn get_many(&self, keys: &[BlockKey]) -> Vec<Result<Option<KvBlock>, BlockError>> {
        let read = |opened: Result<Option<Arc<TieredBlock>>, BlockError>| {
            opened?.map(|block| BlockReader::new(block).read()).transpose()
        };
        self.open_ahead(keys).into_par_iter().map(read).collect()
    }

    fn open_many(&self, keys: &[BlockKey]) -> Vec<Opened<'_>> {
        self.open_ahead(keys).into_iter().map(reader).collect()
    }

    fn open_idle(&self, keys: &[BlockKey]) -> Vec<Opened<'_>> {
        self.open_blocks(keys, u64::MAX).into_iter().map(reader).collect()
    }
}

impl ChunkRead for Tiered {
    fn chunk(&self, key: &BlockKey, failovers: &mut Vec<Failover>) -> Result<Chunk, BlockError> {
        let mut copies = self.places.copies.iter();
        let own = copies.next().expect("a store has a folder").chunk(key, &mut Vec::new());
        own.or_else(|error| {
            let found =
                copies.find_map(|copy| Some((copy.chunk(key, &mut Vec::new()).ok()?, copy.root())));
            let Some((chunk, from)) = found else { return Err(self.places.lost(error)) };
            failovers.push(Failover { what: told(&error), from: from.to_owned(), tiered: false });
            Ok(chunk)
        })
    }
}

/// Asks a tier for the first frames of blocks, the first of all before the second of any.
fn ask_first_frames(tier: &TierInUse, blocks: &[Arc<Arriving>]) {
    if tier.shape.streams {
        return blocks.iter().for_each(|block| block.ask(block.first_frames()));
    }
    let frames = blocks.iter().map(|block| block.first_frames().end).max().unwrap_or(0);
    let mut wanted = Vec::new();
    for frame in 0..frames {
        let asked = blocks.iter().filter(|block| frame < block.first_frames().end);
        let asked = asked.filter(|block| !block.mark(frame..frame + 1).is_empty());
        wanted.extend(asked.map(|block| (Arc::clone(block), frame)));
    }
    if !wanted.is_empty() {
        ask_together(tier, wanted);
    }
}
