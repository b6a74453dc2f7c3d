//! A tier with faults, for tests. In: a tier and a seed. Out: its answers, some of them wrong, cut, late or
//! absent. Each piece is delivered once, as the seam demands. It knows no format.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use hyperrag_core::{Answer, Blob, Fetch, FetchSink, Piece, Tier, TierError, TierFact, TierShape};

/// Longest delay of an answer.
const DELAY_MAX: Duration = Duration::from_millis(3);

/// Share of answers that get a fault of each kind, in thousandths.
#[derive(Clone, Copy, Debug)]
pub struct FaultRates {
    /// An error in place of the answer.
    pub error: u32,
    /// An answer that comes some milliseconds late.
    pub delay: u32,
    /// Bytes without their end.
    pub cut: u32,
    /// Bytes with one bit flipped.
    pub flip: u32,
    /// Bytes of another piece of the request.
    pub swap: u32,
    /// Bytes that were delivered to an earlier request.
    pub stale: u32,
    /// Nothing, as if the block were absent.
    pub none: u32,
}

impl FaultRates {
    /// Returns one rate for every kind, in thousandths.
    #[must_use]
    pub fn all(rate: u32) -> Self {
        Self {
            error: rate,
            delay: rate,
            cut: rate,
            flip: rate,
            swap: rate,
            stale: rate,
            none: rate,
        }
    }
}

/// Numbers of faults by kind, and of the calls that had them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Pieces that were delivered.
    pub pieces: u64,
    /// Errors in place of an answer.
    pub errors: u64,
    /// Answers that came late.
    pub delays: u64,
    /// Answers without their end.
    pub cuts: u64,
    /// Answers with a flipped bit.
    pub flips: u64,
    /// Answers with the bytes of another piece.
    pub swaps: u64,
    /// Answers with bytes of an earlier request.
    pub stales: u64,
    /// Answers that were kept back.
    pub nones: u64,
    /// Errors of `put`, `holds` and `probe`.
    pub refusals: u64,
}

impl FaultCounts {
    /// Returns the number of answers whose bytes were wrong.
    #[must_use]
    pub fn wrong(&self) -> u64 {
        self.cuts + self.flips + self.swaps + self.stales
    }
}

/// Wraps a tier and spoils its answers. The faults follow from the seed and the order of deliveries.
pub struct Faulty<T: ?Sized> {
    faults: Arc<Faults>,
    name: String,
    inner: Arc<T>,
}

impl<T: Tier + ?Sized> Faulty<T> {
    /// Wraps a tier.
    #[must_use]
    pub fn new(inner: Arc<T>, seed: u64, rates: FaultRates) -> Self {
        let faults = Faults {
            seed,
            rates,
            drawn: AtomicU64::new(0),
            counts: Mutex::default(),
            earlier: Mutex::default(),
        };
        let name = format!("{} with faults", inner.name());
        Self { faults: Arc::new(faults), name, inner }
    }

    /// Returns what was done so far.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        *self.faults.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Tier + ?Sized> Tier for Faulty<T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> TierShape {
        self.inner.shape()
    }

    fn fetch(
        &self,
        pieces: &[Piece],
        patience: Duration,
        to: Arc<dyn FetchSink>,
    ) -> Box<dyn Fetch> {
        let sink = FaultySink { faults: Arc::clone(&self.faults), last: Mutex::default(), to };
        self.inner.fetch(pieces, patience, Arc::new(sink))
    }

    fn put(&self, blob: &Blob, bytes: &Bytes) -> Result<(), TierError> {
        // An error may come before or after the block was stored.
        let after = self.faults.refuse();
        let put = self.inner.put(blob, bytes);
        after.and(put)
    }

    fn holds(&self, blobs: &[Blob]) -> Result<Vec<bool>, TierError> {
        self.faults.refuse()?;
        self.inner.holds(blobs)
    }

    fn probe(&self) -> Result<Vec<TierFact>, TierError> {
        self.faults.refuse()?;
        self.inner.probe()
    }
}

/// Kinds of faults of an answer.
#[derive(Clone, Copy)]
enum Fault {
    Error,
    Delay,
    Cut,
    Flip,
    Swap,
    Stale,
    None,
}

struct Faults {
    seed: u64,
    rates: FaultRates,
    drawn: AtomicU64,
    counts: Mutex<FaultCounts>,
    /// Bytes of an earlier delivery.
    earlier: Mutex<Option<Bytes>>,
}

impl Faults {
    /// Returns the next number of the seed's sequence (splitmix64).
    fn draw(&self) -> u64 {
        let step = self.drawn.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut number = self.seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn count(&self, count: impl FnOnce(&mut FaultCounts)) {
        count(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Chooses the fault of an answer, if it gets one.
    fn choose(&self) -> Option<Fault> {
        let rates = &self.rates;
        let mut number = self.draw() % 1000;
        for (fault, rate) in [
            (Fault::Error, rates.error),
            (Fault::Delay, rates.delay),
            (Fault::Cut, rates.cut),
            (Fault::Flip, rates.flip),
            (Fault::Swap, rates.swap),
            (Fault::Stale, rates.stale),
            (Fault::None, rates.none),
        ] {
            match number.checked_sub(u64::from(rate)) {
                Some(left) => number = left,
                None => return Some(fault),
            }
        }
        None
    }

    fn refuse(&self) -> Result<(), TierError> {
        if self.draw() % 1000 >= u64::from(self.rates.error) {
            return Ok(());
        }
        self.count(|counts| counts.refusals += 1);
        Err(self.error())
    }

    fn error(&self) -> TierError {
        match self.draw() % 4 {
            0 => TierError::Timeout(Duration::from_millis(1)),
            1 => TierError::Unreachable("a fault of the test".to_owned()),
            2 => TierError::Protocol("a fault of the test".to_owned()),
            _ => TierError::Refused("a fault of the test".to_owned()),
        }
    }

    /// Returns a number below `end`, 0 if that is 0.
    fn below(&self, end: usize) -> usize {
        usize::try_from(self.draw() % (end.max(1) as u64)).unwrap_or(0)
    }

    fn spoil(&self, bytes: Bytes, fault: Fault, other: Option<Bytes>) -> Answer {
        let stale = self.earlier.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Bytes of another piece may be these bytes.
        let differing = |other: Option<Bytes>| other.filter(|other| *other != bytes);
        match fault {
            Fault::Error => {
                self.count(|counts| counts.errors += 1);
                return Err(self.error());
            }
            Fault::None => {
                self.count(|counts| counts.nones += 1);
                return Ok(None);
            }
            Fault::Delay => {
                self.count(|counts| counts.delays += 1);
                thread::sleep(DELAY_MAX.mul_f64(self.below(1000) as f64 / 1000.0));
            }
            Fault::Cut if !bytes.is_empty() => {
                self.count(|counts| counts.cuts += 1);
                return Ok(Some(bytes.slice(..self.below(bytes.len()))));
            }
            Fault::Flip if !bytes.is_empty() => {
                self.count(|counts| counts.flips += 1);
                let (mut flipped, bit) = (bytes.to_vec(), self.below(bytes.len() * 8));
                flipped[bit / 8] ^= 1 << (bit % 8);
                return Ok(Some(flipped.into()));
            }
            Fault::Swap => {
                if let Some(other) = differing(other) {
                    self.count(|counts| counts.swaps += 1);
                    return Ok(Some(other));
                }
            }
            Fault::Stale => {
                if let Some(stale) = differing(stale) {
                    self.count(|counts| counts.stales += 1);
                    return Ok(Some(stale));
                }
            }
            Fault::Cut | Fault::Flip => {}
        }
        Ok(Some(bytes))
    }
}

/// Sink that spoils what goes through it.
struct FaultySink {
    faults: Arc<Faults>,
    /// Right bytes of the piece that was delivered before.
    last: Mutex<Option<Bytes>>,
    to: Arc<dyn FetchSink>,
}

impl FetchSink for FaultySink {
    fn deliver(&self, n: usize, answer: Answer) {
        self.faults.count(|counts| counts.pieces += 1);
        let (Some(fault), Ok(Some(bytes))) = (self.faults.choose(), &answer) else {
            self.keep(&answer);
            return self.to.deliver(n, answer);
        };
        let other = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let spoiled = self.faults.spoil(bytes.clone(), fault, other);
        self.keep(&answer);
        self.to.deliver(n, spoiled);
    }
}

impl FaultySink {
    /// Keeps right bytes, for later pieces of this request and of other requests.
    fn keep(&self, answer: &Answer) {
        let Ok(Some(bytes)) = answer else { return };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes.clone());
        if self.faults.draw().is_multiple_of(8) {
            let mut earlier = self.faults.earlier.lock().unwrap_or_else(PoisonError::into_inner);
            *earlier = Some(bytes.clone());
        }
    }
}
