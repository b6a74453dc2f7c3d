//! Reads whole blocks from a tier and checks those of a store. In: a store's block tables and a tier. Out: bytes, or
//! what is missing and damaged. It believes no tier.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyperrag_core::{Answer, Blob, FetchSink, Piece, ShardId, Slot, Tier, TierError};
use hyperrag_store::{Damage, Store, StoreError};

/// Times that a block is asked for.
const ATTEMPTS: u32 = 3;

/// Answers for the pieces of one block.
#[derive(Default)]
struct Arrived {
    answers: Mutex<Vec<Option<Answer>>>,
    changed: Condvar,
}

impl FetchSink for Arrived {
    fn deliver(&self, n: usize, answer: Answer) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = answers.get_mut(n) {
            *place = Some(answer);
        }
        self.changed.notify_all();
    }
}

/// Fetches a whole block, unchecked; `None` if the tier does not hold all of it.
///
/// # Errors
/// [`TierError`], after three attempts where another may help.
pub fn fetch_block(
    tier: &dyn Tier,
    blob: &Blob,
    patience: Duration,
) -> Result<Option<Vec<u8>>, TierError> {
    let mut attempt = 1;
    loop {
        match fetch_once(tier, blob, patience) {
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => attempt += 1,
            fetched => return fetched,
        }
    }
}

fn fetch_once(
    tier: &dyn Tier,
    blob: &Blob,
    patience: Duration,
) -> Result<Option<Vec<u8>>, TierError> {
    let frame_bytes = tier.shape().frame_bytes;
    let frames = blob.frames(frame_bytes);
    let pieces: Vec<Piece> = (0..frames).map(|frame| Piece { blob: *blob, frame }).collect();
    let arrived = Arc::new(Arrived::default());
    let none = vec![None; pieces.len()];
    *arrived.answers.lock().unwrap_or_else(PoisonError::into_inner) = none;
    let sink = Arc::clone(&arrived) as Arc<dyn FetchSink>;
    let request = tier.fetch(&pieces, patience, sink);
    request.allow(pieces.len());
    // Each frame may take as long as the tier may wait for it, and a queue before it once more.
    let end = Instant::now() + patience.saturating_mul(frames.saturating_add(1).min(60));
    let mut answers = arrived.answers.lock().unwrap_or_else(PoisonError::into_inner);
    while answers.iter().any(Option::is_none) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(TierError::Timeout(patience));
        }
        let waited = arrived.changed.wait_timeout(answers, left);
        answers = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    let mut block = Vec::with_capacity(blob.bytes as usize);
    for answer in answers.drain(..).flatten() {
        match answer? {
            Some(bytes) => block.extend_from_slice(&bytes),
            None => return Ok(None),
        }
    }
    Ok(Some(block))
}

/// State of a block in a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InTier {
    /// All bytes are as they were written.
    Whole,
    /// The tier does not hold it, or not all of it.
    Absent,
    /// Other bytes, with the fault.
    Damaged(String),
}

/// Reads every block of a shard from a tier, one at a time, and tells those that are not as they were written.
/// `chosen` says which blocks are read. `bytes_read` counts along.
///
/// # Errors
/// [`TierFailure`] if the shard's block table or the tier cannot be read.
pub(crate) fn check_shard(
    store: &Store,
    shard: ShardId,
    (tier, patience): (&dyn Tier, Duration),
    chosen: impl Fn(&Blob) -> bool,
    bytes_read: &AtomicU64,
) -> Result<Vec<(Slot, InTier)>, TierFailure> {
    let blobs = store.blobs(shard)?;
    let mut faults = Vec::new();
    for slot in (0..blobs.count()).map(Slot) {
        let blob = blobs.blob(slot);
        if !chosen(&blob) {
            continue;
        }
        let state = match fetch_block(tier, &blob, patience)? {
            None => InTier::Absent,
            Some(bytes) => match blobs.check(slot, &bytes) {
                Ok(()) => InTier::Whole,
                Err(fault) => InTier::Damaged(fault.to_string()),
            },
        };
        bytes_read.fetch_add(blob.bytes, Ordering::Relaxed);
        if state != InTier::Whole {
            faults.push((slot, state));
        }
    }
    Ok(faults)
}

/// Reason why blocks in a tier were not checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TierFailure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Tier(#[from] TierError),
}

/// Makes the damage of a block in a tier.
pub(crate) fn damage(
    store: &Store,
    shard: ShardId,
    slot: Slot,
    tier: &str,
    state: &InTier,
) -> Damage {
    let what = match state {
        InTier::Whole => "it is whole".to_owned(),
        InTier::Absent => format!("it is not in {tier}"),
        InTier::Damaged(fault) => format!("in {tier}: {fault}"),
    };
    store.block_damage(shard, slot, what)
}
