//! Blocks on their way to faster tiers: checked frames come in, and a thread puts whole blocks into the caches
//! that did not hold them. It is never waited for while queries run; what does not fit is dropped.

use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use hyperrag_core::Blob;

use crate::tiered::in_use::TierInUse;

/// Size of the blocks kept for faster tiers at once, in bytes.
const KEPT_BYTES_MAX: u64 = 256 << 20;

struct Job {
    blob: Blob,
    frames: Vec<Bytes>,
    to: Vec<Arc<TierInUse>>,
    room: Room,
}

/// Share of [`KEPT_BYTES_MAX`], given back when dropped.
struct Room {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, AcqRel);
    }
}

/// The thread that fills caches.
#[derive(Default)]
pub(crate) struct Promoter {
    used: Arc<AtomicU64>,
    running: Arc<Mutex<Option<Running>>>,
}

struct Running {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl Promoter {
    /// Reserves room to keep a block for these caches; `None` if there is none left, or no cache.
    pub(crate) fn keep(&self, bytes: u64, layers: u32, to: Vec<Arc<TierInUse>>) -> Option<Kept> {
        let fits = |used: u64| Some(used + bytes).filter(|used| *used <= KEPT_BYTES_MAX);
        if to.is_empty() || self.used.fetch_update(AcqRel, Acquire, fits).is_err() {
            return None;
        }
        let layers = std::iter::repeat_with(|| AtomicBool::new(false)).take(layers as usize);
        let room = Room { used: Arc::clone(&self.used), bytes };
        Some(Kept {
            layers: layers.collect(),
            room: Mutex::new(Some((room, to))),
            running: Arc::clone(&self.running),
        })
    }
}

impl Drop for Promoter {
    /// Waits until every cache has its blocks: a command that ends leaves them to the next.
    fn drop(&mut self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { jobs, thread }) = running {
            drop(jobs);
            // A panic of the thread cost a promotion, no more.
            let _ = thread.join();
        }
    }
}

/// Leave to keep the frames of a block until all were checked.
pub(crate) struct Kept {
    layers: Vec<AtomicBool>,
    room: Mutex<Option<(Room, Vec<Arc<TierInUse>>)>>,
    running: Arc<Mutex<Option<Running>>>,
}

impl Kept {
    /// Notes that a layer was checked.
    pub(crate) fn checked(&self, layer: usize) {
        self.layers[layer].store(true, Relaxed);
    }

    /// Whether all layers were checked.
    pub(crate) fn is_whole(&self) -> bool {
        self.layers.iter().all(|layer| layer.load(Relaxed))
    }

    /// Hands the frames of the whole block to the thread, once.
    pub(crate) fn promote(&self, blob: Blob, frames: Vec<Bytes>) {
        let room = self.room.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((room, to)) = room else { return };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            let (jobs, received) = channel();
            let thread = std::thread::Builder::new().name("promote".to_owned());
            let Ok(thread) = thread.spawn(move || work(&received)) else { return };
            *running = Some(Running { jobs, thread });
        }
        if let Some(running) = &*running {
            // A thread that ended takes nothing more.
            let _ = running.jobs.send(Job { blob, frames, to, room });
        }
    }
}

fn work(jobs: &Receiver<Job>) {
    for Job { blob, frames, to, room } in jobs {
        let block = match <[Bytes; 1]>::try_from(frames) {
            Ok([whole]) => whole,
            Err(frames) => {
                let mut whole = BytesMut::with_capacity(blob.bytes as usize);
                frames.iter().for_each(|frame| whole.extend_from_slice(frame));
                whole.freeze()
            }
        };
        for cache in to {
            if cache.tier.put(&blob, &block).is_err() {
                cache.stats.refused.fetch_add(1, Relaxed);
            }
        }
        drop(room);
    }
}
