//! Reads under way: a request of several pieces, and each piece as a task that is answered exactly once.
//!
//! In: pieces and who takes them. Out: answers to the taker, also if a task is lost. It knows no connection.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperrag_core::{Answer, Blob, Fetch, FetchSink, Piece, TierError};

use super::frames::{FRAME_BYTES, FrameName, HASH_FRAMES, frame_count, hash_key};
use super::slots::{Address, slot_of};

/// A request: who takes its pieces, and for how long a wait may last.
pub(super) struct Request {
    to: Arc<dyn FetchSink>,
    dropped: AtomicBool,
    pub(super) patience: Duration,
}

impl Request {
    pub(super) fn new(to: Arc<dyn FetchSink>, patience: Duration) -> Arc<Self> {
        Arc::new(Self { to, dropped: AtomicBool::new(false), patience })
    }
}

/// The handle of a request: dropping it cancels what is queued.
pub(super) struct Ticket(pub(super) Arc<Request>);

impl Fetch for Ticket {}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.dropped.store(true, Ordering::Relaxed);
    }
}

/// A piece on its way. A task that is dropped unanswered is answered by an error.
pub(super) struct Task {
    request: Arc<Request>,
    n: usize,
    answered: bool,
    name: FrameName,
    bytes: u64,
    /// Key of the hash, its slot, and field.
    pub(super) key: String,
    pub(super) slot: u16,
    /// Time after which no further attempt is made, counted from the first.
    pub(super) deadline: Option<Instant>,
    /// Nodes that failed at this piece, and nodes that do not hold it.
    pub(super) failed_at: BTreeSet<Address>,
    pub(super) absent_at: BTreeSet<Address>,
    pub(super) fault: Option<TierError>,
    /// Whether the next node is to be told `ASKING`; whether another node named it.
    pub(super) asking: bool,
    pub(super) sent_on: bool,
    pub(super) hops: u32,
    /// Times that the copies were asked anew.
    pub(super) rounds: u32,
    /// Whether the map was read anew because no copy could be asked.
    pub(super) last_round: bool,
}

impl Task {
    /// Makes the task of a piece; answers it at once and returns `None` if there cannot be such a piece.
    pub(super) fn new(
        request: &Arc<Request>,
        n: usize,
        piece: &Piece,
        prefix: &str,
    ) -> Option<Self> {
        let blob: &Blob = &piece.blob;
        let frames = match frame_count(blob) {
            Ok(frames) if piece.frame < frames => frames,
            // Behind the end there is nothing.
            Ok(_) => {
                request.to.deliver(n, Ok(None));
                return None;
            }
            Err(error) => {
                request.to.deliver(n, Err(error));
                return None;
            }
        };
        let range = blob.frame(piece.frame, FRAME_BYTES);
        let key = hash_key(prefix, &blob.key, frames, piece.frame / HASH_FRAMES);
        Some(Self {
            request: request.clone(),
            n,
            answered: false,
            // Frame numbers are below 65,536: `frame_count` saw to it.
            name: FrameName { key: blob.key, frame: piece.frame as u16 },
            bytes: range.end - range.start,
            slot: slot_of(key.as_bytes()),
            key,
            deadline: None,
            failed_at: BTreeSet::new(),
            absent_at: BTreeSet::new(),
            fault: None,
            asking: false,
            sent_on: false,
            hops: 0,
            rounds: 0,
            last_round: false,
        })
    }

    /// Whether nobody waits for the piece any more.
    pub(super) fn cancelled(&self) -> bool {
        self.request.dropped.load(Ordering::Relaxed)
    }

    /// Returns the command that reads the piece.
    pub(super) fn command(&self) -> redis::Cmd {
        let mut command = redis::cmd("HGET");
        command.arg(&self.key).arg(self.name.frame);
        command
    }

    /// Returns the time left; the clock starts with the first call.
    pub(super) fn left(&mut self) -> Duration {
        let patience = self.request.patience;
        let now = Instant::now();
        self.deadline.get_or_insert(now + patience).saturating_duration_since(now)
    }

    /// Checks a field.
    pub(super) fn check(&self, field: Vec<u8>) -> Result<Bytes, TierError> {
        self.name.payload(field, self.bytes)
    }

    /// Answers.
    pub(super) fn answer(mut self, answer: Answer) {
        self.give(answer);
    }

    /// Answers with the last fault.
    pub(super) fn give_up(mut self) {
        let patience = self.request.patience;
        let fault = self.fault.take().unwrap_or(TierError::Timeout(patience));
        self.give(Err(fault));
    }

    fn give(&mut self, answer: Answer) {
        if !std::mem::replace(&mut self.answered, true) && !self.cancelled() {
            self.request.to.deliver(self.n, answer);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let closed = TierError::Unreachable("the connections to Redis were closed".to_owned());
        // A taker that panics, while tasks are dropped because another did, would end the process.
        drop(catch_unwind(AssertUnwindSafe(|| self.give(Err(closed)))));
    }
}
