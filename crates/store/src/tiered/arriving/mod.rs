//! A block that comes from a tier in frames: layer numbers come in, checked bytes go out. Frames are asked for
//! in the order of use, no further ahead than a window, and dropped once they were used.

pub(crate) mod requests;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperrag_core::{
    Blob, BlockError, BlockKey, Fetch, KvBlock, KvShape, Presence, TierError, TierRole,
};

use crate::block_check::BlockCheck;
use crate::format::block_table::BlockEntry;
use crate::tiered::in_use::TierInUse;
use crate::tiered::promotion::Kept;
use crate::tiered::stats::RequestClock;

/// Time after the tier's own patience after which a reader gives up waiting, if the tier has answered nothing
/// at all meanwhile.
const GRACE: Duration = Duration::from_secs(1);

/// Reason why a tier does not serve a block.
#[derive(Clone, Debug)]
enum TierFault {
    Absent,
    Failed(TierError),
    Damaged(String),
}

/// Fault of a place, for the block as a whole.
pub(crate) struct PlaceFault {
    pub(crate) error: BlockError,
    /// Whether it is no fault: a cache that does not hold the block.
    pub(crate) usual: bool,
}

impl From<BlockError> for PlaceFault {
    fn from(error: BlockError) -> Self {
        Self { error, usual: false }
    }
}

/// State of a frame.
enum Frame {
    /// Not asked for, or dropped after its use.
    Away,
    Asked(Instant),
    Here(Bytes),
}

/// Frames of a block, and the requests for them.
struct Frames {
    frames: Vec<Frame>,
    fault: Option<TierFault>,
    /// Requests under way. Dropping the last holder of one cancels it.
    requests: Vec<Arc<dyn Fetch>>,
    stream: Option<Stream>,
    /// Whether the block has been counted as served by the tier.
    counted: bool,
    /// Number of readers that have passed each layer, and the hidden state.
    passed: Vec<usize>,
    /// Time of the last arrival.
    came: Instant,
}

/// Request of a tier that streams.
struct Stream {
    request: Box<dyn Fetch>,
    first: u32,
    /// End of the frames that it may deliver.
    end: u32,
}

/// Receiver of a tier's first fault, so that the next tier can be asked before anyone waits.
pub(crate) trait OnFault: Send + Sync {
    fn tier_failed(self: Arc<Self>, place: usize);
}

/// A block that a tier serves.
pub(crate) struct Arriving {
    place: usize,
    state: Arc<TierInUse>,
    blob: Blob,
    entry: BlockEntry,
    key: BlockKey,
    kv_shape: KvShape,
    window: u64,
    clock: Arc<RequestClock>,
    frames: Mutex<Frames>,
    ready: Condvar,
    check: OnceLock<BlockCheck>,
    on_fault: Weak<dyn OnFault>,
    kept: Option<Kept>,
    readers: Arc<AtomicUsize>,
}

/// Block that is to arrive: which, and from where.
pub(crate) struct Arrival<'a> {
    pub(crate) place: usize,
    pub(crate) state: &'a Arc<TierInUse>,
    pub(crate) blob: Blob,
    pub(crate) entry: &'a BlockEntry,
    pub(crate) key: &'a BlockKey,
    pub(crate) kv_shape: &'a KvShape,
    /// Number of bytes asked for ahead of use.
    pub(crate) window: u64,
    /// Clock of the request for the block.
    pub(crate) clock: Arc<RequestClock>,
    pub(crate) on_fault: Weak<dyn OnFault>,
    /// Leave to keep the frames for faster tiers.
    pub(crate) kept: Option<Kept>,
    /// Number of readers of the block. Frames are kept until all have passed them.
    pub(crate) readers: Arc<AtomicUsize>,
}

impl Arriving {
    /// Makes a block of which nothing has been asked for yet.
    pub(crate) fn new(arrival: Arrival<'_>) -> Arc<Self> {
        let Arrival { place, state, blob, entry, key, kv_shape, window, clock, on_fault, .. } =
            arrival;
        let frame_bytes = state.shape.frame_bytes;
        // A connection that streams holds about as much again. Whole frames, so that no more than one frame
        // beyond them is held.
        let window = if state.shape.streams { window / 2 } else { window };
        let window = (window / frame_bytes).max(1).saturating_mul(frame_bytes);
        let frames = blob.frames(frame_bytes);
        let frames = Frames {
            frames: std::iter::repeat_with(|| Frame::Away).take(frames as usize).collect(),
            fault: None,
            requests: Vec::new(),
            stream: None,
            counted: false,
            passed: vec![0; kv_shape.layers as usize + 1],
            came: Instant::now(),
        };
        let (kept, readers) = (arrival.kept, arrival.readers);
        Arc::new(Self {
            place,
            state: Arc::clone(state),
            blob,
            entry: entry.clone(),
            key: key.clone(),
            kv_shape: *kv_shape,
            window,
            clock,
            frames: Mutex::new(frames),
            ready: Condvar::new(),
            check: OnceLock::new(),
            on_fault,
            kept,
            readers,
        })
    }

    pub(crate) fn tokens(&self) -> usize {
        self.entry.tokens as usize
    }

    fn lock(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn frame_bytes(&self) -> u64 {
        self.state.shape.frame_bytes
    }

    /// Returns the frames that hold a range of the block.
    fn frames_of(&self, range: &Range<u64>) -> Range<u32> {
        let end = range.end.min(self.blob.bytes).div_ceil(self.frame_bytes());
        (range.start / self.frame_bytes()) as u32..end as u32
    }

    /// Returns the frames for a request of many blocks together: those of the first window. Of a tier that
    /// streams, those of the first layer, for the streams of all blocks share its bandwidth.
    pub(crate) fn first_frames(&self) -> Range<u32> {
        let layer = self.layer_range(0).end;
        let end = if self.state.shape.streams { layer.min(self.window) } else { self.window };
        self.frames_of(&(0..end))
    }

    /// Returns the number of bytes of the first window.
    pub(crate) fn first_bytes(&self) -> u64 {
        self.window.min(self.blob.bytes)
    }

    /// Returns the range of a layer within the block, in bytes.
    fn layer_range(&self, layer: usize) -> Range<u64> {
        let bytes = self.kv_shape.layer_bytes(self.tokens()) as u64;
        let start = u64::from(self.entry.header_bytes) + layer as u64 * bytes;
        start..start + bytes
    }

    /// Says whether the whole block is here. A fault is at hand.
    pub(crate) fn presence(&self) -> Presence {
        let held = self.lock();
        match self.state.shape.immediate || held.fault.is_some() {
            true => Presence::AtHand,
            false if held.frames.iter().all(|frame| matches!(frame, Frame::Here(_))) => {
                Presence::Came { place: self.place, when: held.came }
            }
            false => Presence::Away { place: self.place },
        }
    }

    /// Returns the bytes of the frames that are here.
    pub(crate) fn held_bytes(&self) -> u64 {
        let bytes = |frame: &Frame| match frame {
            Frame::Here(bytes) => bytes.len() as u64,
            Frame::Away | Frame::Asked(_) => 0,
        };
        self.lock().frames.iter().map(bytes).sum()
    }

    /// Notes the first fault.
    fn fail(&self, held: &mut Frames, fault: TierFault) {
        if held.fault.is_some() {
            return;
        }
        let stats = &self.state.stats;
        let count =
            if matches!(fault, TierFault::Absent) { &stats.misses } else { &stats.failures };
        count.fetch_add(1, Relaxed);
        held.fault = Some(fault);
    }

    fn damaged(&self, what: String) -> PlaceFault {
        let fault = TierFault::Damaged(what);
        self.fail(&mut self.lock(), fault.clone());
        self.place_fault(&fault)
    }

    fn place_fault(&self, fault: &TierFault) -> PlaceFault {
        let name = self.state.tier.name();
        let usual = matches!(fault, TierFault::Absent) && self.state.shape.role == TierRole::Cache;
        let block = format!("{name}: block {} of shard {}", self.blob.key.slot.0, self.blob.shard);
        let (place, what) = match fault {
            TierFault::Absent => (block, "it does not hold the block".to_owned()),
            // The tier as a whole: it is told once for all blocks.
            TierFault::Failed(error) => (name.to_owned(), error.to_string()),
            TierFault::Damaged(what) => (block, what.clone()),
        };
        PlaceFault { error: BlockError::Damaged { place, what }, usual }
    }

    /// Waits for a frame, and asks for it if it is away.
    fn wait(self: &Arc<Self>, frame: u32) -> Result<Bytes, PlaceFault> {
        let mut held = self.lock();
        loop {
            match (&held.frames[frame as usize], &held.fault) {
                (Frame::Here(bytes), _) => return Ok(bytes.clone()),
                (_, Some(fault)) => return Err(self.place_fault(fault)),
                (Frame::Away, None) => {
                    drop(held);
                    self.ask(frame..frame + 1);
                    held = self.lock();
                }
                (Frame::Asked(_), None) => {
                    let answers = self.state.stats.answers.load(Relaxed);
                    let (wait, start) = (self.state.patience + GRACE, Instant::now());
                    let waited = self.ready.wait_timeout(held, wait);
                    self.state.stats.waited(start.elapsed());
                    let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    held = guard;
                    let still = self.state.stats.answers.load(Relaxed) == answers;
                    if timeout.timed_out() && still {
                        self.fail(&mut held, TierFault::Failed(TierError::Timeout(wait)));
                    }
                }
            }
        }
    }

    /// Whether frame 0 has come.
    pub(crate) fn has_begun(&self) -> Result<(), PlaceFault> {
        let held = self.lock();
        match &held.fault {
            Some(fault) => Err(self.place_fault(fault)),
            None => Ok(()),
        }
    }

    /// Copies a range of the block to `out`.
    fn copy(self: &Arc<Self>, range: Range<u64>, out: &mut [u8]) -> Result<(), PlaceFault> {
        for frame in self.frames_of(&range) {
            let bytes = self.wait(frame)?;
            let held = self.blob.frame(frame, self.frame_bytes());
            let (start, end) = (range.start.max(held.start), range.end.min(held.end));
            let from = &bytes[(start - held.start) as usize..(end - held.start) as usize];
            out[(start - range.start) as usize..(end - range.start) as usize].copy_from_slice(from);
        }
        Ok(())
    }

    /// Returns the block's checksums, from its head.
    fn check(self: &Arc<Self>) -> Result<&BlockCheck, PlaceFault> {
        if let Some(check) = self.check.get() {
            return Ok(check);
        }
        let mut head = vec![0; self.entry.header_bytes as usize];
        self.copy(0..head.len() as u64, &mut head)?;
        let check = BlockCheck::of_head(&head, &self.entry, &self.kv_shape, &self.key);
        let check = check.map_err(|what| self.damaged(what))?;
        let mut held = self.lock();
        if !std::mem::replace(&mut held.counted, true) {
            self.state.stats.hits.fetch_add(1, Relaxed);
        }
        drop(held);
        Ok(self.check.get_or_init(|| check))
    }

    /// Reads a layer into `out`, which has its length, and drops the frames before the layer's end.
    pub(crate) fn read_layer(
        self: &Arc<Self>,
        layer: usize,
        out: &mut [u8],
    ) -> Result<(), PlaceFault> {
        let range = self.layer_range(layer);
        let check = self.check()?;
        self.copy(range.clone(), out)?;
        check.layer(layer, out).map_err(|what| self.damaged(what))?;
        self.state.stats.layer(&self.clock, self.place);
        if let Some(kept) = &self.kept {
            kept.checked(layer);
        }
        self.advance(layer, range.end);
        Ok(())
    }

    /// Reads and checks the hidden state.
    pub(crate) fn read_hidden(self: &Arc<Self>) -> Result<Vec<f32>, PlaceFault> {
        let mut bytes = vec![0; self.kv_shape.hidden_bytes()];
        let check = self.check()?;
        self.copy(self.blob.bytes - bytes.len() as u64..self.blob.bytes, &mut bytes)?;
        let hidden = check.hidden(&self.kv_shape, &bytes).map_err(|what| self.damaged(what))?;
        if let Some(kept) = &self.kept
            && kept.is_whole()
        {
            // Handed over, not shared: their room is counted until the caches have them.
            let mut held = self.lock();
            let all = held.frames.iter().all(|frame| matches!(frame, Frame::Here(_)));
            if all {
                let taken =
                    held.frames.iter_mut().map(|frame| std::mem::replace(frame, Frame::Away));
                let frames: Vec<Bytes> = taken
                    .filter_map(|frame| match frame {
                        Frame::Here(bytes) => Some(bytes),
                        Frame::Away | Frame::Asked(_) => None,
                    })
                    .collect();
                drop(held);
                kept.promote(self.blob, frames);
                return Ok(hidden);
            }
        }
        self.advance(self.kv_shape.layers as usize, self.blob.bytes);
        Ok(hidden)
    }

    /// Reads the whole block.
    pub(crate) fn read_block(self: &Arc<Self>) -> Result<KvBlock, PlaceFault> {
        let mut kv = KvBlock::memory(self.tokens() * self.kv_shape.token_bytes());
        for (layer, out) in
            kv.chunks_exact_mut(self.kv_shape.layer_bytes(self.tokens())).enumerate()
        {
            self.read_layer(layer, out)?;
        }
        let hidden = self.read_hidden()?;
        Ok(KvBlock::new(self.kv_shape, self.tokens(), kv, hidden))
    }

    /// Notes that a reader has passed a layer, which ends at `offset`. Drops the frames before that if it was
    /// the last one, and asks for those of the window after it.
    fn advance(self: &Arc<Self>, layer: usize, offset: u64) {
        let mut held = self.lock();
        held.passed[layer] += 1;
        if self.kept.is_none() && held.passed[layer] >= self.readers.load(Relaxed) {
            let used = (offset / self.frame_bytes()) as usize;
            for frame in held.frames.iter_mut().take(used) {
                if matches!(frame, Frame::Here(_)) {
                    *frame = Frame::Away;
                }
            }
        }
        drop(held);
        self.ask(self.frames_of(&(offset..offset.saturating_add(self.window))));
    }

    /// Asks for a layer that will be read soon.
    pub(crate) fn prefetch(self: &Arc<Self>, layer: usize) {
        if layer < self.kv_shape.layers as usize && !self.state.shape.immediate {
            self.ask(self.frames_of(&self.layer_range(layer)));
        }
    }
}
