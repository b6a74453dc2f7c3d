//! A block whose parts may come from different places: layer numbers come in, checked bytes from the first
//! place that has them intact go out.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use hyperrag_core::{BlockError, BlockKey, Failover, KvBlock, KvShape, LayerSource, Presence};

use crate::local::shard_reader::PAGE_BYTES;
use crate::local::stored_block::StoredBlock;
use crate::tiered::arriving::{Arrival, Arriving, OnFault, PlaceFault};
use crate::tiered::in_use::TierInUse;
use crate::tiered::places::{Place, Places, told};
use crate::tiered::stats::RequestClock;

/// Number of times that a block is asked of one tier.
const ATTEMPTS: u32 = 2;

/// A block in one place.
#[derive(Clone)]
pub(crate) enum Source {
    /// In a shard of a folder, read when it is used.
    Stored(Arc<StoredBlock>),
    /// On its way from a tier.
    Arriving(Arc<Arriving>),
}

impl Source {
    fn tokens(&self) -> usize {
        match self {
            Self::Stored(block) => block.tokens(),
            Self::Arriving(block) => block.tokens(),
        }
    }

    fn read_layer(
        &self,
        layer: usize,
        bytes: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<Range<usize>, PlaceFault> {
        match self {
            Self::Stored(block) => Ok(block.read_layer(layer, buffer)?),
            Self::Arriving(block) => {
                if buffer.len() < bytes + PAGE_BYTES {
                    buffer.resize(bytes + PAGE_BYTES, 0);
                }
                let start = buffer.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
                block.read_layer(layer, &mut buffer[start..start + bytes])?;
                Ok(start..start + bytes)
            }
        }
    }

    fn read_hidden(&self) -> Result<Vec<f32>, PlaceFault> {
        match self {
            Self::Stored(block) => Ok(block.hidden()?.to_vec()),
            Self::Arriving(block) => block.read_hidden(),
        }
    }

    fn read_block(&self) -> Result<KvBlock, PlaceFault> {
        match self {
            Self::Stored(block) => Ok(block.read()?),
            Self::Arriving(block) => block.read_block(),
        }
    }
}

/// Progress of reading a block.
struct Reading {
    /// Place that served last. It is asked next.
    place: usize,
    source: Option<Source>,
    failovers: Vec<Failover>,
}

/// A block and the places that may have it.
pub(crate) struct TieredBlock {
    places: Arc<Places>,
    key: BlockKey,
    /// Number of bytes that a tier is asked for ahead of use.
    window: u64,
    /// Clock of the request that opened the block.
    clock: Arc<RequestClock>,
    reading: Mutex<Reading>,
    /// Blocks on their way from tiers, by place, with the number of times that the tier was asked.
    arriving: Mutex<HashMap<usize, (Arc<Arriving>, u32)>>,
    readers: Arc<AtomicUsize>,
    hidden: OnceLock<Vec<f32>>,
}

impl TieredBlock {
    /// Opens the block of `key` at the first place that has it, or may have it: what a distant tier holds is
    /// known only once it has answered, and it has not been asked yet. Returns `None` if the store has no
    /// such block.
    pub(crate) fn open(
        places: &Arc<Places>,
        key: &BlockKey,
        window: u64,
        clock: &Arc<RequestClock>,
    ) -> Result<Option<Arc<Self>>, BlockError> {
        if !places.has_shard(key.shard) {
            return Ok(None);
        }
        let block = Arc::new(Self {
            places: Arc::clone(places),
            key: key.clone(),
            window,
            clock: Arc::clone(clock),
            reading: Mutex::new(Reading { place: 0, source: None, failovers: Vec::new() }),
            arriving: Mutex::default(),
            readers: Arc::default(),
            hidden: OnceLock::new(),
        });
        let mut fault: Option<PlaceFault> = None;
        for place in 0..places.order.len() {
            match block.source_at(place) {
                Ok(source) => {
                    block.take_over(place, source, fault);
                    return Ok(Some(block));
                }
                Err(other) => fault = Some(first_of(fault, other)),
            }
        }
        Err(block.lost(fault))
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the block in the place that is asked next, and that place.
    fn current(&self) -> (usize, Source) {
        let reading = self.reading();
        let source = reading.source.clone().expect("an open block has a source");
        (reading.place, source)
    }

    /// Returns the block if it is on its way from a tier.
    pub(crate) fn arriving(&self) -> Option<(usize, Arc<Arriving>)> {
        match self.current() {
            (place, Source::Arriving(block)) => Some((place, block)),
            (_, Source::Stored(_)) => None,
        }
    }

    /// Returns the block as it is waited for: from the place that serves it, or, where that has failed, from the
    /// next that was asked in its stead. `None` if a reader has it at hand.
    fn awaited(self: &Arc<Self>) -> Option<Arc<Arriving>> {
        let (mut place, mut block) = self.arriving()?;
        while block.has_begun().is_err() {
            place += 1;
            let Place::Tier(tier) = self.places.order.get(place)? else { return None };
            let asked = self.asked(place);
            // Where the fault came just now, the next was not asked yet.
            let next = asked.map_or_else(|| self.arrival(place, tier), Ok);
            block = next.ok().filter(|_| !tier.shape.immediate)?;
        }
        Some(block)
    }

    /// Returns the block on its way from a place, if the place was asked.
    fn asked(&self, place: usize) -> Option<Arc<Arriving>> {
        let arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        arriving.get(&place).map(|(block, _)| Arc::clone(block))
    }

    /// Notes the place that serves the block from now on, in the stead of one with a fault.
    fn take_over(&self, place: usize, source: Source, fault: Option<PlaceFault>) {
        let mut reading = self.reading();
        (reading.place, reading.source) = (place, Some(source));
        if let Some(PlaceFault { error, usual: false }) = fault {
            let (what, from) = (told(&error), self.places.name(place));
            reading.failovers.push(Failover { what, from, tiered: self.places.are_tiered() });
        }
    }

    /// Returns the block in a place. A tier at hand has been asked for its first frame.
    fn source_at(self: &Arc<Self>, place: usize) -> Result<Source, PlaceFault> {
        match &self.places.order[place] {
            Place::Copy(copy) => {
                let block = self.places.copies[*copy].open_block(&self.key)?;
                let block = block.expect("the manifest names the shard");
                Ok(Source::Stored(Arc::new(block)))
            }
            Place::Tier(tier) => {
                let block = self.arrival(place, tier)?;
                if tier.shape.immediate {
                    block.ask(0..1);
                    block.has_begun()?;
                }
                Ok(Source::Arriving(block))
            }
        }
    }

    /// Returns the block as it comes from a tier. After a fault it is asked for once more.
    fn arrival(
        self: &Arc<Self>,
        place: usize,
        tier: &Arc<TierInUse>,
    ) -> Result<Arc<Arriving>, PlaceFault> {
        let attempts = {
            let arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
            match arriving.get(&place) {
                Some((block, attempts)) if *attempts == ATTEMPTS || block.has_begun().is_ok() => {
                    return Ok(Arc::clone(block));
                }
                found => found.map_or(0, |(_, attempts)| *attempts),
            }
        };
        let table = self.places.table(self.key.shard)?;
        let entry = table.entries.get(self.key.slot.0 as usize);
        let entry = entry.ok_or_else(|| BlockError::Damaged {
            place: table.place(self.key.slot.0),
            what: "there is no such block".to_owned(),
        })?;
        let this: Weak<Self> = Arc::downgrade(self);
        let block = Arriving::new(Arrival {
            place,
            state: tier,
            blob: self.places.blob(entry, &self.key),
            entry,
            key: &self.key,
            kv_shape: self.places.kv_shape(),
            window: self.window,
            clock: Arc::clone(&self.clock),
            on_fault: this,
            kept: self.places.keep(place, entry.bytes),
            readers: Arc::clone(&self.readers),
        });
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        arriving.insert(place, (Arc::clone(&block), attempts + 1));
        Ok(block)
    }

    /// Reads a part of the block where the last one came from. If that fails, asks the other places in their
    /// order.
    fn read_part<T>(
        self: &Arc<Self>,
        mut read: impl FnMut(&Source) -> Result<T, PlaceFault>,
    ) -> Result<T, BlockError> {
        let (failed, source) = self.current();
        let mut fault = match read(&source) {
            Ok(value) => return Ok(value),
            Err(fault) => fault,
        };
        for place in (0..self.places.order.len()).filter(|place| *place != failed) {
            let found = self.source_at(place).and_then(|source| Ok((read(&source)?, source)));
            match found {
                Ok((value, source)) => {
                    self.take_over(place, source, Some(fault));
                    return Ok(value);
                }
                Err(other) => fault = first_of(Some(fault), other),
            }
        }
        Err(self.lost(Some(fault)))
    }

    /// Makes the error of a block that no place has.
    fn lost(&self, fault: Option<PlaceFault>) -> BlockError {
        let nowhere = || BlockError::Damaged {
            place: self.key.chunk.to_string(),
            what: "there is no place to read blocks from".to_owned(),
        };
        self.places.lost(fault.map_or_else(nowhere, |fault| fault.error))
    }

    fn read_layer(
        self: &Arc<Self>,
        layer: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<Range<usize>, BlockError> {
        self.read_part(|source| {
            let bytes = self.places.kv_shape().layer_bytes(source.tokens());
            source.read_layer(layer, bytes, buffer)
        })
    }
}

/// Returns the fault to speak of: the first that is one.
fn first_of(first: Option<PlaceFault>, later: PlaceFault) -> PlaceFault {
    first.filter(|fault| !fault.usual).unwrap_or(later)
}

impl OnFault for TieredBlock {
    /// Asks the next tier, so that its answer is under way when a reader gets there.
    fn tier_failed(self: Arc<Self>, place: usize) {
        let Some(Place::Tier(tier)) = self.places.order.get(place + 1) else { return };
        if !tier.shape.immediate
            && let Ok(block) = self.arrival(place + 1, tier)
        {
            block.ask(block.first_frames());
        }
    }
}

/// A reader of a [`TieredBlock`], which may have others.
pub(crate) struct BlockReader(Arc<TieredBlock>);

impl BlockReader {
    pub(crate) fn new(block: Arc<TieredBlock>) -> Self {
        block.readers.fetch_add(1, Relaxed);
        Self(block)
    }
}

impl Drop for BlockReader {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Relaxed);
    }
}

impl LayerSource for BlockReader {
    fn kv_shape(&self) -> &KvShape {
        self.0.places.kv_shape()
    }

    fn tokens(&self) -> usize {
        self.0.current().1.tokens()
    }

    fn presence(&self) -> Presence {
        self.0.awaited().map_or(Presence::AtHand, |block| block.presence())
    }

    fn came_bytes(&self) -> u64 {
        self.0.awaited().map_or(0, |block| block.held_bytes())
    }

    fn request(&self) {
        if let Some(block) = self.0.awaited() {
            block.ask_all();
        }
    }

    fn hidden(&self) -> Result<&[f32], BlockError> {
        if let Some(hidden) = self.0.hidden.get() {
            return Ok(hidden);
        }
        let hidden = self.0.read_part(Source::read_hidden)?;
        Ok(self.0.hidden.get_or_init(|| hidden))
    }

    fn layer<'a>(&'a self, layer: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], BlockError> {
        let read = self.0.read_layer(layer, buffer)?;
        Ok(&buffer[read])
    }

    fn prefetch(&self, layer: usize) {
        match self.0.current().1 {
            Source::Stored(block) => block.prefetch(layer),
            Source::Arriving(block) => block.prefetch(layer),
        }
    }

    fn failovers(&self) -> Vec<Failover> {
        self.0.reading().failovers.clone()
    }

    fn read(&self) -> Result<KvBlock, BlockError> {
        if let Ok(block) = self.0.current().1.read_block() {
            return Ok(block);
        }
        // No place may have all of it intact.
        let (kv_shape, tokens) = (self.kv_shape(), self.tokens());
        let mut kv = KvBlock::memory(tokens * kv_shape.token_bytes());
        let mut buffer = Vec::new();
        for (layer, bytes) in kv.chunks_exact_mut(kv_shape.layer_bytes(tokens)).enumerate() {
            let read = self.0.read_layer(layer, &mut buffer)?;
            bytes.copy_from_slice(&buffer[read]);
        }
        Ok(KvBlock::new(*kv_shape, tokens, kv, self.hidden()?.to_vec()))
    }
}
