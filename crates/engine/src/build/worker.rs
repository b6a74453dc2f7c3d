//! A worker of a build that many processes share: it makes or checks the plan, claims spans and builds them until
//! every span is done. In: an input and a place. Out: a report. It knows no index.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use hyperrag_core::{Digest, LanguageModel};
use hyperrag_store::{
    BUILD, BuildPlan, InputObjects, Store, StoreError, StoreNotes, UnitsDigest, calibration_object,
    encode_span,
};
use serde::Serialize;

use crate::build::build_place::BuildPlace;
use crate::build::claims::{Claim, Claims};
use crate::build::nonce::nonce;
use crate::build::partition_error::PartitionError;
use crate::build::plan::BuildInput;
use crate::build::read::check_not_empty;
use crate::build::span::SpanBuilder;
use crate::build::unit_list::UnitList;
use crate::error::EngineError;
use crate::progress::BuildProgress;
use crate::shared::error::ShareError;

/// Units of a span.
pub const SPAN_UNITS: u32 = 16;
/// Shortest and longest wait before the spans of others are looked at again.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(5)];
/// The next wait is this share of the time waited so far, so that no worker waits much longer than it must.
const IDLE_SHARE: u32 = 16;
/// Longest list of units that is fetched, in bytes; a longer one is counted. It is that of 26 million units.
const UNITS_BYTES_MAX: u64 = 1 << 30;
/// Longest wait within which a signal to stop is heeded.
const HEED: Duration = Duration::from_millis(50);

/// Span at which a worker begins. It goes round from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// The `part`-th of `of` equal shares, from 1.
    Part {
        /// Number of the share.
        part: u32,
        /// Number of shares.
        of: u32,
    },
    /// The share of the worker with this number, from 0, of a number of workers that nobody knows.
    Worker(u64),
}

impl Share {
    /// Returns the first span. Workers of an unknown number are spread by the golden ratio, which keeps any
    /// number of points on a circle apart.
    #[must_use]
    pub fn first_span(self, spans: u32) -> u32 {
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let first = match self {
            Self::Part { part, of } => {
                let before = u64::from(part.saturating_sub(1));
                before * u64::from(spans) / u64::from(of.max(1))
            }
            Self::Worker(worker) => {
                let share = (worker as f64 * GOLDEN).fract();
                (share * f64::from(spans)) as u64
            }
        };
        u32::try_from(first).unwrap_or(0).min(spans.saturating_sub(1))
    }
}

/// Settings of a worker.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSettings<'a> {
    /// Share of the spans with which it begins.
    pub share: Share,
    /// Whether it waits until the spans of others are done, to take over those that are not.
    pub wait: bool,
    /// Time without a sign of life after which a span is taken over, if this worker makes the plan.
    pub patience: Duration,
    /// Folder of this machine for shards that are not yet at the place.
    pub scratch: &'a Path,
}

/// Report of a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WorkerReport {
    /// Name of the place.
    pub place: String,
    /// Whether every span is done.
    pub finished: bool,
    /// Spans of the input.
    pub spans: u32,
    /// Spans built by this worker.
    pub spans_built: u32,
    /// Units of the input, each of which becomes a shard.
    pub units: u32,
    /// Shards built by this worker.
    pub shards_built: u32,
    /// Rows of the input.
    pub rows: u64,
    /// Rows without any text.
    pub empty_rows: u64,
    /// Rows left out because they cannot be read.
    pub bad_rows: u64,
    /// Rows in which half a surrogate pair was replaced by U+FFFD.
    pub lossy_rows: u64,
    /// Positions computed by this worker.
    pub tokens_computed: u64,
    /// Seconds taken.
    pub seconds: f64,
}

/// Builds spans of the store at `place` until every span is done, together with any number of other workers.
///
/// # Errors
/// [`EngineError::Partition`] if the place has the plan of another store or of another input. Shards that are at
/// the place stay there.
pub fn work<M: LanguageModel>(
    input: &BuildInput<'_, M>,
    place: &BuildPlace,
    settings: WorkerSettings<'_>,
) -> Result<WorkerReport, EngineError> {
    let start = Instant::now();
    let objects = objects_of(input);
    let units = match known_units(place, objects.as_ref())? {
        Some(units) => units,
        None => {
            check_not_empty(input)?;
            UnitList::of(input)?
        }
    };
    let counted = units.digest();
    let mut report = WorkerReport {
        place: place.name.clone(),
        units: counted.units,
        rows: counted.rows,
        spans: counted.units.div_ceil(SPAN_UNITS),
        empty_rows: units.empty_rows,
        bad_rows: units.bad_rows,
        lossy_rows: units.lossy_rows,
        ..WorkerReport::default()
    };
    if is_merged(input, place, counted)? {
        report.finished = true;
        report.seconds = start.elapsed().as_secs_f64();
        return Ok(report);
    }
    let scratch = Scratch::take(settings.scratch)?;
    let plan = agree(input, place, &units, objects, settings.patience, &scratch.folder)?;
    let mut claims =
        Claims::new(place, plan.spans(), Duration::from_secs(plan.patience_seconds.max(1)));
    claims.check_place()?;
    let passed = BuildProgress::default();
    let mut builder = SpanBuilder::new(input, &units, place, scratch.folder.join("span"), &passed);
    report.spans = plan.spans();
    let round = Round { plan: &plan, settings, stop: input.stop };
    report.finished = round.run(&mut claims, &mut builder, &mut report)?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Whether the folder has the whole store already. Another store in it is refused.
fn is_merged<M>(
    input: &BuildInput<'_, M>,
    place: &BuildPlace,
    counted: UnitsDigest,
) -> Result<bool, EngineError> {
    let Some(folder) = &place.folder else { return Ok(false) };
    let store = match Store::open(folder) {
        Err(StoreError::Absent { .. }) => {
            // The merge would refuse a folder of other things, when all is built.
            let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
            return match entries.any(|entry| entry.file_name() != BUILD) {
                true => Err(StoreError::NotAStore { path: folder.clone() }.into()),
                false => Ok(false),
            };
        }
        opened => opened?,
    };
    let manifest = store.manifest();
    if !manifest.complete {
        return Ok(false);
    }
    check_fingerprint(input, place, &manifest.fingerprint)?;
    let theirs = UnitsDigest::of(&manifest.shards);
    match theirs == counted {
        true => Ok(true),
        false => {
            let place = place.name.clone();
            Err(PartitionError::OtherInput { place, ours: counted, theirs }.into())
        }
    }
}

/// Returns the objects of an input that lies outside this machine as a whole; `None` for others.
fn objects_of<M>(input: &BuildInput<'_, M>) -> Option<InputObjects> {
    let versions = input.corpus.versions();
    let settings = format!("{} {:?}", input.corpus.reading(), input.limit);
    let all = versions.len() == input.corpus.files().len();
    InputObjects::of(&versions, Digest::of(settings.as_bytes())).filter(|_| all)
}

/// Refuses objects that have changed since the plan was made.
fn check_objects(
    place: &BuildPlace,
    ours: Option<&InputObjects>,
    plan: &BuildPlan,
) -> Result<(), PartitionError> {
    match (ours, &plan.objects) {
        (Some(ours), Some(theirs)) if ours.digest != theirs.digest => {
            let object = ours.difference(theirs).map(|object| object.name.clone());
            Err(PartitionError::OtherObject { place: place.name.clone(), object })
        }
        _ => Ok(()),
    }
}

/// Returns the name of the units' list.
fn units_object(counted: &UnitsDigest) -> String {
    format!("units/{}", counted.digest)
}

/// Fetches the units that another worker has counted; `None` if none has, or if its rows may be others. The same
/// versions of objects, read with the same settings, have the same rows.
fn known_units(
    place: &BuildPlace,
    objects: Option<&InputObjects>,
) -> Result<Option<UnitList>, EngineError> {
    let Some(objects) = objects else { return Ok(None) };
    let Some(plan) = place.plan()? else { return Ok(None) };
    check_objects(place, Some(objects), &plan)?;
    if plan.objects.as_ref() != Some(objects) {
        return Ok(None);
    }
    let bytes_max = UnitList::bytes_of(plan.input.units).min(UNITS_BYTES_MAX);
    let found = place.read_up_to(&units_object(&plan.input), bytes_max)?;
    Ok(found.and_then(|bytes| UnitList::parse(&bytes, &plan.input)))
}

/// Stores a file of a worker's own, which the plan refers to.
fn store_own(
    place: &BuildPlace,
    object: &str,
    bytes: &[u8],
    path: &Path,
) -> Result<(), EngineError> {
    let written =
        fs::write(path, bytes).and_then(|()| File::open(path).and_then(|file| file.sync_all()));
    written.map_err(ShareError::io(path, "cannot be written"))?;
    Ok(place.take_own(object, path)?)
}

/// Makes the plan, or checks that the one that is there is this worker's.
fn agree<M>(
    input: &BuildInput<'_, M>,
    place: &BuildPlace,
    units: &UnitList,
    objects: Option<InputObjects>,
    patience: Duration,
    scratch: &Path,
) -> Result<BuildPlan, EngineError> {
    let counted = units.digest();
    if place.plan()?.is_none() && place.exported()?.is_some() {
        return Err(PartitionError::Occupied { place: place.name.clone() }.into());
    }
    if let Some(calibration) = input.calibration {
        let object = calibration_object(&calibration.digest());
        store_own(place, &object, &calibration.to_bytes(), &scratch.join("calibration"))?;
    }
    if objects.is_some() {
        let path = scratch.join("units");
        store_own(place, &units_object(&counted), &units.to_bytes(), &path)?;
    }
    let ours = objects.clone();
    let plan = place.make_plan(BuildPlan {
        fingerprint: input.fingerprint.clone(),
        input: counted,
        span_units: SPAN_UNITS,
        patience_seconds: patience.as_secs().max(1),
        notes: input.notes.cloned().unwrap_or_else(StoreNotes::default),
        objects,
    })?;
    check_fingerprint(input, place, &plan.fingerprint)?;
    check_objects(place, ours.as_ref(), &plan)?;
    match plan.input == counted {
        true => Ok(plan),
        false => {
            let (place, theirs) = (place.name.clone(), plan.input);
            Err(PartitionError::OtherInput { place, ours: counted, theirs }.into())
        }
    }
}

fn check_fingerprint<M>(
    input: &BuildInput<'_, M>,
    place: &BuildPlace,
    theirs: &hyperrag_core::Fingerprint,
) -> Result<(), EngineError> {
    match theirs.mismatch(input.fingerprint) {
        None => Ok(()),
        Some(mismatch) => Err(StoreError::mismatch(Path::new(&place.name), mismatch).into()),
    }
}

/// A worker's way round the spans.
struct Round<'a> {
    plan: &'a BuildPlan,
    settings: WorkerSettings<'a>,
    stop: &'a std::sync::atomic::AtomicBool,
}

impl Round<'_> {
    /// Goes round until every span is done, or nothing is left to claim. Tells whether every span is.
    fn run<M: LanguageModel>(
        &self,
        claims: &mut Claims<'_>,
        builder: &mut SpanBuilder<'_, M>,
        report: &mut WorkerReport,
    ) -> Result<bool, EngineError> {
        let spans = self.plan.spans();
        let first = self.settings.share.first_span(spans);
        let mut idle_since = Instant::now();
        loop {
            let (mut busy, mut built) = (0_u32, 0_u32);
            for span in (first..spans).chain(0..first) {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(EngineError::Interrupted);
                }
                match claims.claim(span)? {
                    Claim::Done => {}
                    Claim::Busy => busy += 1,
                    Claim::Own(own) => {
                        let units = self.plan.units_of(span);
                        let done = claims.build(own, || builder.build(units))?;
                        claims.finish(span, &encode_span(&done.shards))?;
                        built += 1;
                        report.spans_built += 1;
                        report.shards_built += done.shards.len() as u32;
                        report.tokens_computed += done.tokens;
                    }
                }
            }
            match (busy, built) {
                (0, _) => return Ok(true),
                (_, 0) if !self.settings.wait => return Ok(false),
                (_, 0) => self.pause(idle_since.elapsed())?,
                _ => idle_since = Instant::now(),
            }
        }
    }

    /// Waits before the spans of others are looked at again, longer the longer this worker has been `idle`.
    fn pause(&self, idle: Duration) -> Result<(), EngineError> {
        let [shortest, longest] = LOOK_AGAIN;
        let patience = Duration::from_secs(self.plan.patience_seconds.max(1));
        let wait = (idle / IDLE_SHARE).clamp(shortest, longest.min(patience / 8));
        let end = Instant::now() + wait;
        while Instant::now() < end {
            if self.stop.load(Ordering::Relaxed) {
                return Err(EngineError::Interrupted);
            }
            thread::sleep(HEED);
        }
        Ok(())
    }
}

/// A folder of this worker's own, which is removed in the end. That of a worker that was killed is used again.
struct Scratch {
    folder: PathBuf,
    lock: Option<(File, PathBuf)>,
}

/// Folders that workers on one machine may have at one time, before the next gets a name of its own.
const SCRATCH_FOLDERS: u32 = 64;

impl Scratch {
    fn take(home: &Path) -> Result<Self, EngineError> {
        const MADE: &str = "cannot be made";
        fs::create_dir_all(home).map_err(ShareError::io(home, MADE))?;
        let mut taken = None;
        for number in 0..SCRATCH_FOLDERS {
            let path = home.join(format!("{number}.lock"));
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            let lock = options.open(&path).map_err(ShareError::io(&path, MADE))?;
            match lock.try_lock() {
                Ok(()) => {
                    taken = Some((home.join(number.to_string()), Some((lock, path))));
                    break;
                }
                Err(fs::TryLockError::WouldBlock) => {}
                // The system locks no file here.
                Err(fs::TryLockError::Error(_)) => break,
            }
        }
        let (folder, lock) = taken.unwrap_or_else(|| (home.join(nonce()), None));
        fs::create_dir_all(&folder).map_err(ShareError::io(&folder, MADE))?;
        Ok(Self { folder, lock })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: the next worker that uses it empties it. The lock file stays, as another may hold it.
        let _ = fs::remove_dir_all(&self.folder);
        drop(self.lock.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_begin_apart() {
        let parts = (1..=4).map(|part| Share::Part { part, of: 4 }.first_span(10));
        assert_eq!(parts.collect::<Vec<_>>(), [0, 2, 5, 7]);
        let mut firsts: Vec<u32> =
            (0..8).map(|worker| Share::Worker(worker).first_span(1000)).collect();
        firsts.sort_unstable();
        let least = firsts.windows(2).map(|pair| pair[1] - pair[0]).min();
        assert!(least >= Some(50), "{firsts:?}");
        for share in [Share::Worker(u64::MAX), Share::Part { part: 9, of: 3 }] {
            assert!(share.first_span(1) == 0 && share.first_span(0) == 0);
            assert!(share.first_span(5) < 5);
        }
    }
}
