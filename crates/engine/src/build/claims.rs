//! Claims on spans: each is a small file that is made once. In: a place, a span. Out: whether this worker builds it,
//! another does, or it is done. It knows no shard.
//!
//! `spans/S.E` claims span S for the E-th time. Its owner changes `spans/S.E.beat` from time to time. A worker that
//! sees no change for the plan's patience, by its own steady clock, makes `spans/S.E+1` and takes the span over. No
//! clock is compared with another one. An owner that wakes up later does no harm, because both build the same
//! bytes: `done/S` is made once, and whoever comes second only compares.

use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use crate::build::build_place::{BuildPlace, Created};
use crate::build::nonce::nonce;
use crate::build::partition_error::PartitionError;
use crate::shared::error::ShareError;

/// Beats of a claim within the patience of the others.
const BEATS: u32 = 4;
/// Last beat of an owner that gives a span back.
const GIVEN_BACK: &[u8] = b"given back\n";
/// Writers of one file in the test of a place.
const WRITERS: usize = 8;

/// Claims of one worker.
pub struct Claims<'a> {
    place: &'a BuildPlace,
    /// Name that no other worker has.
    worker: String,
    patience: Duration,
    spans: Vec<Seen>,
}

/// Observations of a span by this worker.
#[derive(Clone, Debug, Default)]
struct Seen {
    is_done: bool,
    epoch: u32,
    /// Moment since which the claim of this epoch shows no change, and its beat; `None` if no claim was seen.
    since: Option<(Instant, Option<Vec<u8>>)>,
}

/// State of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Shards of the span are there.
    Done,
    /// Another worker builds it.
    Busy,
    /// This worker is to build it.
    Own(OwnSpan),
}

/// A span that this worker is to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnSpan {
    /// Number of the span.
    pub span: u32,
    /// Number of the claim.
    pub epoch: u32,
}

impl<'a> Claims<'a> {
    /// Starts without a claim on any of `spans` spans.
    #[must_use]
    pub fn new(place: &'a BuildPlace, spans: u32, patience: Duration) -> Self {
        let spans = vec![Seen::default(); spans as usize];
        Self { place, worker: nonce(), patience, spans }
    }

    /// Checks that the place lets one of several writers make a file.
    ///
    /// # Errors
    /// [`PartitionError::ManyWinners`] if it lets more than one.
    pub fn check_place(&self) -> Result<(), PartitionError> {
        let name = format!("probe/{}", self.worker);
        let make = |writer: usize| self.place.create(&name, format!("{writer}\n").as_bytes());
        let created = thread::scope(|scope| {
            let make = &make;
            let start = |writer| thread::Builder::new().spawn_scoped(scope, move || make(writer));
            let writers: Vec<_> = (1..WRITERS).map(start).collect();
            let mut created = vec![make(0)];
            for writer in writers {
                // Where the system gives no more threads, fewer writers test the place.
                let Ok(writer) = writer else { continue };
                created
                    .push(writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            created
        });
        let (writers, mut winners) = (created.len(), 0);
        for created in created {
            winners += usize::from(created? == Created::Own);
        }
        match winners {
            1 => Ok(()),
            _ => {
                let place = self.place.name.clone();
                Err(PartitionError::ManyWinners { place, winners, writers })
            }
        }
    }

    /// Claims a span, unless it is done or another worker shows signs of life.
    ///
    /// # Errors
    /// [`ShareError`] if the place does not answer.
    pub fn claim(&mut self, span: u32) -> Result<Claim, ShareError> {
        let place = self.place;
        let seen = &mut self.spans[span as usize];
        if seen.is_done || place.read(&done_name(span))?.is_some() {
            seen.is_done = true;
            return Ok(Claim::Done);
        }
        loop {
            let epoch = seen.epoch;
            let Some((since, before)) = &mut seen.since else {
                let claim = format!("{} {span} {epoch}\n", self.worker);
                match place.create(&claim_name(span, epoch), claim.as_bytes())? {
                    Created::Own => return Ok(Claim::Own(OwnSpan { span, epoch })),
                    Created::Other(_) => seen.since = Some((Instant::now(), None)),
                }
                continue;
            };
            let beat = place.read(&beat_name(span, epoch))?;
            if beat != *before {
                (*since, *before) = (Instant::now(), beat);
            }
            if since.elapsed() < self.patience && before.as_deref() != Some(GIVEN_BACK) {
                return Ok(Claim::Busy);
            }
            (seen.epoch, seen.since) = (epoch.saturating_add(1), None);
        }
    }

    /// Does `work` on a span of this worker while a thread shows signs of life. Gives the span back if it fails.
    ///
    /// # Errors
    /// The errors of `work`.
    pub fn build<T, E>(&self, own: OwnSpan, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let (end, ended) = mpsc::channel::<()>();
        let mut beats = Beats { name: beat_name(own.span, own.epoch), count: 0, last: None };
        let interval = self.patience / BEATS;
        thread::scope(|scope| {
            let beating = move || {
                while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(interval) {
                    beats.beat(self.place, &self.worker);
                }
                beats
            };
            let beating = thread::Builder::new().spawn_scoped(scope, beating);
            let done = work();
            drop(end);
            // Without a thread another worker may take the span over, which costs time only.
            if let Ok(beating) = beating {
                let beats = beating.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                if done.is_err() {
                    beats.give_back(self.place);
                }
            }
            done
        })
    }

    /// Says that a span is done, and what came of it. If another worker has said so, both must say the same.
    ///
    /// # Errors
    /// [`PartitionError::Different`] if they do not.
    pub fn finish(&mut self, span: u32, result: &[u8]) -> Result<(), PartitionError> {
        match self.place.create(&done_name(span), result)? {
            Created::Own => {}
            Created::Other(_) => {
                let place = self.place.name.clone();
                return Err(PartitionError::Different { place, span });
            }
        }
        self.spans[span as usize].is_done = true;
        Ok(())
    }
}

/// Reads what came of a span; `None` if it is not done.
///
/// # Errors
/// [`ShareError`] if the place does not answer.
pub fn result_of(place: &BuildPlace, span: u32) -> Result<Option<Vec<u8>>, ShareError> {
    place.read(&done_name(span))
}

fn claim_name(span: u32, epoch: u32) -> String {
    format!("spans/{span:06}.{epoch}")
}

fn beat_name(span: u32, epoch: u32) -> String {
    format!("spans/{span:06}.{epoch}.beat")
}

fn done_name(span: u32) -> String {
    format!("done/{span:06}")
}

/// Signs of life of a claim.
struct Beats {
    name: String,
    count: u64,
    last: Option<Vec<u8>>,
}

impl Beats {
    /// Changes the beat. Where that fails, the next one is soon enough.
    fn beat(&mut self, place: &BuildPlace, worker: &str) {
        self.count += 1;
        let beat = format!("{worker} {}\n", self.count).into_bytes();
        match place.swap(&self.name, self.last.as_deref(), &beat) {
            Ok(true) => self.last = Some(beat),
            // An earlier one landed though its answer was lost.
            Ok(false) => self.last = place.read(&self.name).ok().flatten(),
            Err(_) => {}
        }
    }

    /// Tells other workers that they need not wait. Where that fails, they do.
    fn give_back(&self, place: &BuildPlace) {
        let _ = place.swap(&self.name, self.last.as_deref(), GIVEN_BACK);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use bytes::Bytes;
    use hyperrag_core::{FileTier, Swapped, TierError};
    use hyperrag_tiers::FolderTier;

    use super::*;

    /// Longer than any test takes.
    const FOR_EVER: Duration = Duration::from_secs(86_400);

    fn place(folder: &Path) -> BuildPlace {
        BuildPlace::of(Arc::new(FolderTier::new(folder)), "a folder")
    }

    /// A folder that answers as an object store does at its worst, by seed: an error though the file is there,
    /// a conflict or an error though it is not, no answer at all.
    struct Lying {
        files: FolderTier,
        state: AtomicU64,
        /// Requests to one wrong answer.
        one_in: u64,
        lies: AtomicU32,
    }

    impl Lying {
        fn new(folder: &Path, one_in: u64) -> Self {
            let (state, lies) = (AtomicU64::new(11), AtomicU32::new(0));
            Self { files: FolderTier::new(folder), state, one_in, lies }
        }

        /// Returns the way to lie, if this request is to be answered wrongly.
        fn lie(&self) -> Option<u64> {
            let mut z = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            let lies = z.is_multiple_of(self.one_in);
            self.lies.fetch_add(u32::from(lies), Ordering::Relaxed);
            lies.then_some((z >> 32) % 4)
        }
    }

    impl FileTier for Lying {
        fn name(&self) -> &str {
            "lying"
        }

        fn put_file(&self, name: &str, from: &Path) -> Result<(), TierError> {
            self.files.put_file(name, from)
        }

        fn get_file(&self, name: &str, max: u64, to: &mut File) -> Result<Option<u64>, TierError> {
            self.files.get_file(name, max, to)
        }

        fn file_bytes(&self, name: &str) -> Result<Option<u64>, TierError> {
            self.files.file_bytes(name)
        }

        fn read_small(&self, name: &str, max: u64) -> Result<Option<Bytes>, TierError> {
            match self.lie() {
                Some(_) => Err(TierError::Timeout(Duration::ZERO)),
                None => self.files.read_small(name, max),
            }
        }

        fn swap_small(
            &self,
            name: &str,
            old: Option<&[u8]>,
            new: &[u8],
        ) -> Result<Swapped, TierError> {
            let swap = || self.files.swap_small(name, old, new);
            match self.lie() {
                None => swap(),
                // Nothing landed: a conflict that is none, and a lost request.
                Some(0) => Ok(Swapped::Changed),
                Some(1) => Err(TierError::Unreachable("cut off".to_owned())),
                // It landed: an error of the server, and a lost answer.
                Some(2) => swap().and(Err(TierError::Protocol("500".to_owned()))),
                Some(_) => swap().and(Err(TierError::Timeout(Duration::ZERO))),
            }
        }
    }

    /// Has many workers claim all spans, and returns how often each was built.
    fn built(place: &BuildPlace, workers: u64, spans: u32) -> Vec<u32> {
        let counts: Vec<AtomicU32> = (0..spans).map(|_| AtomicU32::new(0)).collect();
        thread::scope(|scope| {
            for worker in 0..workers {
                let counts = &counts;
                scope.spawn(move || {
                    let mut claims = Claims::new(place, spans, FOR_EVER);
                    let first = (worker * 619 % u64::from(spans)) as u32;
                    let mut left = 1;
                    while left > 0 {
                        left = 0;
                        for span in (first..spans).chain(0..first) {
                            match claims.claim(span).unwrap() {
                                Claim::Done => {}
                                Claim::Busy => left += 1,
                                Claim::Own(own) => {
                                    let count =
                                        || counts[span as usize].fetch_add(1, Ordering::SeqCst);
                                    claims.build(own, || Ok::<u32, ()>(count())).unwrap();
                                    claims.finish(span, format!("{span}").as_bytes()).unwrap();
                                }
                            }
                        }
                    }
                });
            }
        });
        counts.into_iter().map(AtomicU32::into_inner).collect()
    }

    #[test]
    fn many_workers_build_each_span_once() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(built(&place(folder.path()), 64, 1000), vec![1; 1000]);
    }

    #[test]
    fn many_workers_build_each_span_once_though_the_place_lies() {
        let folder = tempfile::tempdir().unwrap();
        let lying = Arc::new(Lying::new(folder.path(), 10));
        let place = BuildPlace::of(Arc::clone(&lying) as Arc<dyn FileTier>, "lies");
        assert_eq!(built(&place, 16, 200), vec![1; 200]);
        assert!(lying.lies.load(Ordering::Relaxed) > 100);
    }

    #[test]
    fn a_silent_owner_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let mut dead = Claims::new(&place, 2, Duration::ZERO);
        let mut other = Claims::new(&place, 2, Duration::ZERO);
        assert_eq!(dead.claim(1).unwrap(), Claim::Own(OwnSpan { span: 1, epoch: 0 }));
        // Without any patience a claim is taken over as soon as it is seen.
        let taken = other.claim(1).unwrap();
        assert_eq!(taken, Claim::Own(OwnSpan { span: 1, epoch: 1 }));
        other.finish(1, b"result").unwrap();
        // The former owner wakes up and finishes too.
        dead.finish(1, b"result").unwrap();
        assert_eq!(dead.claim(1).unwrap(), Claim::Done);
        assert_eq!(result_of(&place, 1).unwrap().as_deref(), Some(&b"result"[..]));
        assert_eq!(result_of(&place, 0).unwrap(), None);
        let error = dead.finish(1, b"another result").unwrap_err();
        assert!(matches!(error, PartitionError::Different { span: 1, .. }), "{error}");
        let mut patient = Claims::new(&place, 2, FOR_EVER);
        assert!(matches!(dead.claim(0).unwrap(), Claim::Own(_)));
        assert_eq!(patient.claim(0).unwrap(), Claim::Busy);
        assert_eq!(patient.claim(0).unwrap(), Claim::Busy);
    }

    #[test]
    fn signs_of_life_keep_a_span() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let patience = Duration::from_secs(2);
        let mut owner = Claims::new(&place, 1, patience);
        let mut other = Claims::new(&place, 1, patience);
        let Claim::Own(own) = owner.claim(0).unwrap() else { panic!("nobody has it") };
        let start = Instant::now();
        // More than twice the patience.
        let seen: Result<Vec<Claim>, ()> = owner.build(own, || {
            let mut seen = Vec::new();
            while start.elapsed() < patience * 5 / 2 {
                seen.push(other.claim(0).unwrap());
                thread::sleep(Duration::from_millis(20));
            }
            Ok(seen)
        });
        assert!(seen.unwrap().iter().all(|claim| *claim == Claim::Busy));
        owner.finish(0, b"").unwrap();
        assert_eq!(other.claim(0).unwrap(), Claim::Done);
    }

    #[test]
    fn a_span_whose_work_fails_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let mut owner = Claims::new(&place, 1, FOR_EVER);
        let mut other = Claims::new(&place, 1, FOR_EVER);
        let Claim::Own(own) = owner.claim(0).unwrap() else { panic!("nobody has it") };
        assert_eq!(other.claim(0).unwrap(), Claim::Busy);
        assert_eq!(owner.build(own, || Err::<(), &str>("it fails")), Err("it fails"));
        assert_eq!(other.claim(0).unwrap(), Claim::Own(OwnSpan { span: 0, epoch: 1 }));
    }

    #[test]
    fn a_place_where_several_writers_win_is_refused() {
        /// A place that lets everybody make a file.
        struct Careless(FolderTier);

        impl FileTier for Careless {
            fn name(&self) -> &str {
                "careless"
            }
            fn put_file(&self, name: &str, from: &Path) -> Result<(), TierError> {
                self.0.put_file(name, from)
            }
            fn get_file(
                &self,
                name: &str,
                max: u64,
                to: &mut File,
            ) -> Result<Option<u64>, TierError> {
                self.0.get_file(name, max, to)
            }
            fn file_bytes(&self, name: &str) -> Result<Option<u64>, TierError> {
                self.0.file_bytes(name)
            }
            fn read_small(&self, name: &str, max: u64) -> Result<Option<Bytes>, TierError> {
                self.0.read_small(name, max)
            }
            fn swap_small(
                &self,
                _: &str,
                _: Option<&[u8]>,
                _: &[u8],
            ) -> Result<Swapped, TierError> {
                Ok(Swapped::Done)
            }
        }

        let folder = tempfile::tempdir().unwrap();
        let good = place(folder.path());
        Claims::new(&good, 1, FOR_EVER).check_place().unwrap();
        let careless = BuildPlace::of(Arc::new(Careless(FolderTier::new(folder.path()))), "p");
        let error = Claims::new(&careless, 1, FOR_EVER).check_place().unwrap_err();
        assert!(matches!(error, PartitionError::ManyWinners { winners: 8, .. }), "{error}");
    }
}
