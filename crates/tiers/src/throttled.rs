//! A tier behind a link of some rate and latency, for tests and experiments. In: a tier that answers at once, a rate
//! and a latency. Out: its answers, one after the other, each when the link could have carried it. It knows no format.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyperrag_core::{Answer, Blob, Fetch, FetchSink, Piece, Tier, TierError, TierFact, TierShape};

/// Shortest time that the link sleeps. Less is made up by later answers.
const SLEEP_MIN: Duration = Duration::from_micros(200);

/// Wraps a tier that answers at once, such as a folder. Its answers come over a link that carries so many bytes a
/// second, in the order in which they were asked for.
pub struct Throttled<T: ?Sized> {
    name: String,
    rate: Arc<AtomicU64>,
    latency: Duration,
    jobs: Mutex<Sender<Job>>,
    inner: Arc<T>,
}

/// A request that waits for the link.
struct Job {
    pieces: Vec<Piece>,
    patience: Duration,
    to: Arc<dyn FetchSink>,
    dropped: Arc<AtomicBool>,
    /// Earliest time at which the link may carry the first byte.
    ready: Instant,
}

/// A request that runs. Dropping it cancels what the link has not carried.
struct Running(Arc<AtomicBool>);

impl Fetch for Running {}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl<T: Tier + ?Sized + 'static> Throttled<T> {
    /// Wraps a tier. The link carries `rate` bytes a second; any number if that is 0.
    #[must_use]
    pub fn new(inner: Arc<T>, rate: u64) -> Self {
        let (jobs, received) = channel();
        let (rate, name) =
            (Arc::new(AtomicU64::new(rate)), format!("{} over a link", inner.name()));
        let (link, tier) = (Arc::clone(&rate), Arc::clone(&inner));
        thread::spawn(move || carry(&*tier, &link, &received));
        Self { name, rate, latency: Duration::ZERO, jobs: Mutex::new(jobs), inner }
    }

    /// Has each request wait so long before the link carries the first byte of its answer.
    #[must_use]
    pub fn with_latency(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }

    /// Gives the link another rate, in bytes a second.
    pub fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Relaxed);
    }
}

/// Answers requests until there can be none any more.
fn carry<T: Tier + ?Sized>(tier: &T, rate: &AtomicU64, jobs: &Receiver<Job>) {
    let mut free = Instant::now();
    for Job { pieces, patience, to, dropped, ready } in jobs {
        if dropped.load(Relaxed) {
            continue;
        }
        free = free.max(ready);
        for (n, answer) in read(tier, &pieces, patience).into_iter().enumerate() {
            if dropped.load(Relaxed) {
                break;
            }
            let bytes = answer.as_ref().map_or(0, |bytes| bytes.as_ref().map_or(0, Bytes::len));
            match rate.load(Relaxed) {
                0 => free = free.max(Instant::now()),
                rate => free += Duration::from_secs_f64(bytes as f64 / rate as f64),
            }
            let early = free.saturating_duration_since(Instant::now());
            if early > SLEEP_MIN {
                thread::sleep(early);
            }
            if !dropped.load(Relaxed) {
                to.deliver(n, answer);
            }
        }
    }
}

/// Receiver of the pieces of a request.
struct Gathered(Mutex<Vec<Answer>>);

impl FetchSink for Gathered {
    fn deliver(&self, n: usize, answer: Answer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[n] = answer;
    }
}

/// Reads pieces from a tier that answers at once.
fn read<T: Tier + ?Sized>(tier: &T, pieces: &[Piece], patience: Duration) -> Vec<Answer> {
    let none = vec![Err(TierError::Timeout(patience)); pieces.len()];
    let gathered = Arc::new(Gathered(Mutex::new(none)));
    drop(tier.fetch(pieces, patience, Arc::clone(&gathered) as _));
    std::mem::take(&mut gathered.0.lock().unwrap_or_else(PoisonError::into_inner))
}

impl<T: Tier + ?Sized> Tier for Throttled<T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> TierShape {
        TierShape { immediate: false, ..self.inner.shape() }
    }

    fn fetch(
        &self,
        pieces: &[Piece],
        patience: Duration,
        to: Arc<dyn FetchSink>,
    ) -> Box<dyn Fetch> {
        let dropped = Arc::new(AtomicBool::new(false));
        let running = Running(Arc::clone(&dropped));
        let (pieces, ready) = (pieces.to_vec(), Instant::now() + self.latency);
        let job = Job { pieces, patience, to, dropped, ready };
        let sent = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).send(job);
        if let Err(lost) = sent {
            let ended = TierError::Unreachable("the link has ended".to_owned());
            let Job { pieces, to, .. } = lost.0;
            (0..pieces.len()).for_each(|n| to.deliver(n, Err(ended.clone())));
        }
        Box::new(running)
    }

    fn put(&self, blob: &Blob, bytes: &Bytes) -> Result<(), TierError> {
        self.inner.put(blob, bytes)
    }

    fn holds(&self, blobs: &[Blob]) -> Result<Vec<bool>, TierError> {
        self.inner.holds(blobs)
    }

    fn probe(&self) -> Result<Vec<TierFact>, TierError> {
        self.inner.probe()
    }
}
