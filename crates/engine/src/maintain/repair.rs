//! Mends what is damaged in a store: from replicas, else from what the store itself holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use hyperrag_core::{
    Blob, BoxedError, CALIBRATION_CHUNKS, Chunk, Classified, Hint, SCORE_TOLERANCE_MEAN_LOGPROB,
    ShardId, counted, sentence,
};
use hyperrag_retrieval::copy_index;
use hyperrag_store::{
    Damage, FileKind, Manifest, Repair, Salvage, ShardChunks, Store, StoreError, notes,
    rebuild_manifest, replicas,
};
use serde::Serialize;

use crate::error::EngineError;
use crate::index;
use crate::maintain::from_tier::fetch_block;
use crate::maintain::repair_model::{Recompute, RecomputeError};
use crate::maintain::verify::{VerifySettings, damages};
use crate::progress::ByteProgress;
use crate::shared::place::SharedPlace;

/// Times that a place may fail to answer before the other blocks of a shard are computed again.
const FAILURES_MAX: u32 = 3;

/// Settings of a repair.
#[derive(Clone, Copy, Debug, Default)]
pub struct RepairSettings {
    /// Whether only the plan is made and nothing written.
    pub dry_run: bool,
    /// Whether a lost manifest may be replaced by one that is not proved to be the last.
    pub accept_older: bool,
    /// Threads that look for damage; 0 is one a core.
    pub threads: usize,
}

/// A place that the store was exported to, and a folder with all of it but the shards.
#[derive(Clone, Copy, Debug)]
pub struct RepairSource<'a> {
    /// Folder of the fetched files.
    pub root: &'a Path,
    /// The place, for blocks.
    pub place: &'a SharedPlace,
}

/// One damaged file, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileRepair {
    /// The file, relative to the store's folder; the folder of the index as a whole.
    pub file: PathBuf,
    /// The damage.
    pub what: String,
    /// Remedy that was or would be taken, or the reason why there is none; empty where the hint says all.
    pub how: String,
    /// Step for the user to take: in place of the remedy, or after it.
    #[serde(skip)]
    pub hint: Option<Hint>,
    /// Whether it is mended; in a plan, whether it could be.
    pub mended: bool,
}

/// Report of a repair, or its plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RepairReport {
    /// Whether this is only a plan.
    pub dry_run: bool,
    /// One for every damaged file.
    pub mends: Vec<FileRepair>,
    /// Blocks computed again.
    pub blocks_computed: usize,
    /// Damaged files that are left.
    pub left: usize,
    /// Seconds taken.
    pub seconds: f64,
}

/// Finds what is damaged in the store at `root` and mends it: from replicas, else from what the
/// store itself holds. Intact files are not written.
///
/// # Errors
/// [`EngineError`] where there is no store, or another process writes it. What cannot be mended
/// is no error; the report says so.
pub fn repair(
    root: &Path,
    settings: RepairSettings,
    model: &mut dyn Recompute,
    progress: &ByteProgress,
) -> Result<RepairReport, EngineError> {
    repair_from(root, settings, None, model, progress)
}

/// Mends a store like [`repair`]. The files and blocks of the exported store in `from` count as a replica's.
///
/// # Errors
/// See [`repair`].
pub fn repair_from(
    root: &Path,
    settings: RepairSettings,
    from: Option<RepairSource<'_>>,
    model: &mut dyn Recompute,
    progress: &ByteProgress,
) -> Result<RepairReport, EngineError> {
    let start = Instant::now();
    let mut report = RepairReport { dry_run: settings.dry_run, ..RepairReport::default() };
    let listed = match replicas(root) {
        Err(error) if error.is_refusal() => return Err(error.into()),
        Err(error) => {
            let unmended = Unmended { why: String::new(), hint: Some(Hint::NameReplicas) };
            report.mends.push(mend(Damage::from_error(root, &error), Err(unmended)));
            Vec::new()
        }
        Ok(listed) => listed,
    };
    let listed: Vec<PathBuf> =
        listed.into_iter().chain(from.map(|from| from.root.to_owned())).collect();
    if let Some(manifest) = manifest(root, (&listed, from), settings, model, &mut report)? {
        let mending = Repair::open(root, manifest, settings.dry_run)?;
        let verify = VerifySettings { deep: false, threads: settings.threads };
        let found = damages(root, Some(mending.store()), verify, None, progress)?;
        let replicas = listed.iter().map(|replica| mending.replica(replica)).collect();
        let mut job = Job { mending, replicas, from, settings, model, report: &mut report };
        job.run(root, found)?;
    }
    report.left = report.mends.iter().filter(|mend| !mend.mended).count();
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Reason why a file is not mended.
struct Unmended {
    why: String,
    hint: Option<Hint>,
}

impl Unmended {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), hint: None }
    }
}

impl From<StoreError> for Unmended {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotRepaired { why, .. } => Self { why: sentence(&why), hint: why.hint() },
            error => Self::new(sentence(&error)),
        }
    }
}

impl From<RecomputeError> for Unmended {
    fn from(error: RecomputeError) -> Self {
        Self { why: sentence(&error), hint: error.hint() }
    }
}

fn mend(damage: Damage, outcome: Result<String, Unmended>) -> FileRepair {
    let Damage { file, what, slot, .. } = damage;
    let what = slot.map_or(what.clone(), |slot| format!("block {slot}: {what}"));
    let mended = outcome.is_ok();
    let (how, hint) = match outcome {
        Ok(how) => (how, None),
        Err(Unmended { why, hint }) => (why, hint),
    };
    FileRepair { file, what, how, hint, mended }
}

/// The store's manifest, mended where it must be; `None` where it cannot be.
fn manifest(
    root: &Path,
    (replicas, from): (&[PathBuf], Option<RepairSource<'_>>),
    settings: RepairSettings,
    model: &mut dyn Recompute,
    report: &mut RepairReport,
) -> Result<Option<Arc<Manifest>>, EngineError> {
    let error = match Store::open_sealed(root) {
        Ok(store) => return Ok(Some(Arc::new(store.manifest().clone()))),
        Err(error) if error.is_refusal() => return Err(error.into()),
        Err(error @ (StoreError::Damaged { .. } | StoreError::Io { .. })) => error,
        Err(error) => return Err(error.into()),
    };
    let damage = Damage::from_error(root, &error);
    let mut fingerprints = |version| model.fingerprints(version).map_err(BoxedError::new);
    match rebuild_manifest(root, replicas, settings.accept_older, &mut fingerprints) {
        Ok(rebuilt) => {
            if !settings.dry_run {
                rebuilt.publish(root)?;
            }
            let hint = rebuilt.hint.clone();
            let how = match from {
                None => rebuilt.how.clone(),
                // Its folder is one that no user knows.
                Some(RepairSource { root, place }) => {
                    rebuilt.how.replace(&format!("the replica {}", root.display()), &place.name)
                }
            };
            report.mends.push(FileRepair { hint, ..mend(damage, Ok(how)) });
            Ok(Some(Arc::new(rebuilt.manifest().clone())))
        }
        Err(error @ StoreError::NotRepaired { .. }) => {
            report.mends.push(mend(damage, Err(error.into())));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

struct Job<'a> {
    mending: Repair,
    replicas: Vec<Store>,
    from: Option<RepairSource<'a>>,
    settings: RepairSettings,
    model: &'a mut dyn Recompute,
    report: &'a mut RepairReport,
}

impl Job<'_> {
    /// Mends chunk files first, for shards and the index are made from them.
    fn run(&mut self, root: &Path, found: Vec<Damage>) -> Result<(), EngineError> {
        let mut shards: BTreeMap<u32, Vec<Damage>> = BTreeMap::new();
        let (mut index, mut buffer) = (Vec::new(), Vec::new());
        let mut lost = BTreeSet::new();
        for damage in found {
            match damage.shard {
                Some(shard) if damage.kind() == FileKind::ChunkFile => {
                    let outcome = self.mend_chunk_file(ShardId(shard));
                    if outcome.is_err() {
                        lost.insert(shard);
                    }
                    self.report.mends.push(mend(damage, outcome));
                }
                Some(shard) => shards.entry(shard).or_default().push(damage),
                None if damage.kind() == FileKind::Calibration => {
                    let outcome = self.mend_calibration();
                    self.report.mends.push(mend(damage, outcome));
                }
                None if damage.kind() == FileKind::Generation => {
                    let outcome = self.mend_generation();
                    self.report.mends.push(mend(damage, outcome));
                }
                None if damage.kind() == FileKind::Notes => {
                    let mended = self.mend_notes(damage);
                    self.report.mends.push(mended);
                }
                None => index.push(damage),
            }
        }
        for (shard, damages) in shards {
            let outcome = self.mend_shard(ShardId(shard), &mut buffer);
            let count = damages.len();
            let Some(mut first) = damages.into_iter().next() else { continue };
            if count > 1 {
                first.what = format!("{}, and {} more", first.what, counted(count - 1, "block"));
            }
            self.report.mends.push(mend(first, outcome));
        }
        if let Some(first) = index.into_iter().next() {
            let outcome = match lost.first() {
                Some(shard) => {
                    Err(Unmended::new(format!("the chunk file of shard {shard} is needed for it")))
                }
                None => self.mend_index(root)?,
            };
            let file = self.mending.store().manifest().index_folder().into();
            self.report.mends.push(mend(Damage { file, ..first }, outcome));
        }
        Ok(())
    }

    /// Returns the name of a copy in messages.
    fn name(&self, replica: &Store) -> String {
        match self.from.filter(|from| from.root == replica.root()) {
            Some(from) => from.place.name.clone(),
            None => format!("the replica {}", replica.root().display()),
        }
    }

    /// From the manifest, which is whole.
    fn mend_generation(&self) -> Result<String, Unmended> {
        if !self.settings.dry_run {
            self.mending.write_generation()?;
        }
        Ok("written anew from the manifest".to_owned())
    }

    /// From a replica, else they are removed.
    fn mend_notes(&self, damage: Damage) -> FileRepair {
        let found = self
            .replicas
            .iter()
            .find_map(|replica| Some((notes(replica.root()).ok()??, self.name(replica))));
        let (kept, how, hint) = match found {
            Some((kept, from)) => (Some(kept), format!("from {from}"), None),
            None => {
                let hint = Hint::NameStoreModel { noted: None };
                (None, "removed: the store names no model any more".to_owned(), Some(hint))
            }
        };
        let written = match self.settings.dry_run {
            true => Ok(()),
            false => self.mending.write_notes(kept.as_ref()),
        };
        FileRepair { hint, ..mend(damage, written.map(|()| how).map_err(Into::into)) }
    }

    /// From a replica, else from the chunks that it was made from.
    fn mend_calibration(&mut self) -> Result<String, Unmended> {
        let found = self
            .replicas
            .iter()
            .find_map(|replica| Some((replica.calibration().ok()??, self.name(replica))));
        let (calibration, how) = match found {
            Some((calibration, from)) => (calibration, format!("from {from}")),
            None => {
                let store = self.mending.store();
                let mut chunks = Vec::new();
                for record in &store.manifest().shards {
                    if chunks.len() < CALIBRATION_CHUNKS {
                        chunks.extend(self.contents(record.shard)?.chunks);
                    }
                }
                chunks.truncate(CALIBRATION_CHUNKS);
                let fingerprint = &store.manifest().fingerprint;
                let calibration = self.model.calibrate(fingerprint, &chunks)?;
                if Some(calibration.digest()) != fingerprint.calibration {
                    return Err(Unmended::new(
                        "the first chunks here are not those that it was made from, which may have \
                         been compacted away; build the store again in another folder",
                    ));
                }
                (calibration, "computed again".to_owned())
            }
        };
        if !self.settings.dry_run {
            self.mending.write_calibration(&calibration)?;
        }
        Ok(how)
    }

    fn mend_chunk_file(&self, shard: ShardId) -> Result<String, Unmended> {
        for replica in &self.replicas {
            let copied = match self.settings.dry_run {
                true => replica.chunks(shard).map(drop),
                false => self.mending.copy_chunk_file(replica, shard),
            };
            if copied.is_ok() {
                return Ok(format!("from {}", self.name(replica)));
            }
        }
        let which =
            if self.replicas.is_empty() { "there is no replica" } else { "no replica has it" };
        Err(Unmended::new(format!("{which}; build the store again in another folder")))
    }

    /// From a replica that has all of it, else from its own intact blocks and others computed again.
    fn mend_shard(&mut self, shard: ShardId, buffer: &mut Vec<u8>) -> Result<String, Unmended> {
        for replica in &self.replicas {
            let intact = match self.settings.dry_run {
                true => {
                    let damages = replica.verify_shard(shard, buffer, &AtomicU64::new(0));
                    damages.is_ok_and(|damages| damages.is_empty())
                }
                false => self.mending.copy_shard(replica, shard, buffer).is_ok(),
            };
            if intact {
                return Ok(format!("from {}", self.name(replica)));
            }
        }
        let contents = self.contents(shard)?;
        let mut salvage = self.mending.salvage(shard, &contents.chunks, buffer)?;
        let count = counted(contents.chunks.len(), "block");
        if let Some(from) = self.from {
            let name = &from.place.name;
            if self.settings.dry_run {
                let damaged = salvage.damaged();
                return Ok(format!("{damaged} of {count} from {name}, else computed again"));
            }
            self.fetch(from, shard, &mut salvage)?;
        }
        let (damaged, fetched) = (salvage.damaged(), salvage.fetched());
        let how = match (self.from.filter(|_| fetched > 0), damaged) {
            (Some(from), 0) => format!("{fetched} of {count} from {}", from.place.name),
            (Some(from), damaged) => {
                let name = &from.place.name;
                format!("{fetched} of {count} from {name}, {damaged} computed again")
            }
            (None, damaged) => format!("{damaged} of {count} computed again"),
        };
        if self.settings.dry_run {
            return Ok(how);
        }
        let stored = self.mending.store().manifest().fingerprint.clone();
        let model = &mut *self.model;
        let kernel = match damaged {
            0 => None,
            _ => model.other_kernel(&stored)?,
        };
        let mut compute =
            |chunks: &[Chunk]| model.compute(&stored, chunks).map_err(BoxedError::new);
        let (chunks, kernel) = (&contents.chunks, kernel.as_deref());
        let renamed =
            self.mending.rewrite(shard, chunks, &salvage, &mut compute, kernel, buffer)?;
        self.report.blocks_computed += damaged;
        Ok(match (renamed, kernel) {
            (true, Some(kernel)) => format!(
                "{how} by {kernel}, not by the store's kernel {}: the shard has a new checksum, and \
                 scores over these blocks agree within {SCORE_TOLERANCE_MEAN_LOGPROB}",
                stored.kernel
            ),
            (true, None) => format!("{how}, the shard has a new checksum"),
            (false, _) => how,
        })
    }

    /// Fetches damaged blocks from the place. One that does not answer three times is left alone for this shard.
    fn fetch(
        &self,
        from: RepairSource<'_>,
        shard: ShardId,
        salvage: &mut Salvage,
    ) -> Result<(), StoreError> {
        let copy = self.mending.replica(from.root);
        // Without it the table may be in the shard, or lost with it: then nothing is fetched.
        let _ = self.mending.copy_table(&copy, shard);
        let SharedPlace { blocks, patience, .. } = from.place;
        let mut failures = 0;
        let mut fetch = |blob: &Blob| {
            if failures == FAILURES_MAX {
                return None;
            }
            let fetched = fetch_block(&**blocks, blob, *patience);
            failures += u32::from(fetched.is_err());
            fetched.ok().flatten()
        };
        self.mending.fetch_damaged(shard, salvage, &mut fetch)
    }

    /// The token ids of a shard, here or in a replica.
    fn contents(&self, shard: ShardId) -> Result<ShardChunks, Unmended> {
        let stores = std::iter::once(self.mending.store()).chain(&self.replicas);
        let found = stores.map(|store| store.chunks(shard)).find_map(Result::ok);
        found.ok_or_else(|| {
            Unmended::new(
                "its chunk file, from which it could be computed again, is damaged too; build the store \
                 again in another folder",
            )
        })
    }

    /// Rebuilds the index from the chunk files, of replicas too.
    fn mend_index(&self, root: &Path) -> Result<Result<String, Unmended>, EngineError> {
        let manifest = self.mending.store().manifest();
        let (analyzer, is_recorded) = index::recorded_or_present(root, manifest)?;
        let mut how = "made anew from the chunk files".to_owned();
        if !is_recorded {
            how = format!("{how}; {}", index::RULES_UNKNOWN);
        }
        if self.settings.dry_run {
            return Ok(Ok(how));
        }
        let manifest = self.mending.store().manifest();
        let folder = root.join(manifest.index_folder());
        if let Some(from) = self.from
            && Store::open(from.root).is_ok_and(|there| there.manifest() == manifest)
            && index::open_fitting(from.root, manifest).is_ok()
        {
            index::remove(&folder)?;
            copy_index(&from.root.join(manifest.index_folder()), &folder)?;
            return Ok(Ok(format!("from {}", from.place.name)));
        }
        index::remove(&folder)?;
        let contents = |shard| self.contents(shard).map_err(NotRebuilt::Lost);
        match index::rebuild(root, manifest, analyzer, contents) {
            Ok(()) => Ok(Ok(how)),
            Err(NotRebuilt::Lost(why)) => Ok(Err(why)),
            Err(NotRebuilt::Failed(error)) => Err(error),
        }
    }
}

/// Tells why an index was not rebuilt.
enum NotRebuilt {
    /// A chunk file is damaged everywhere.
    Lost(Unmended),
    /// The system refuses.
    Failed(EngineError),
}

impl From<EngineError> for NotRebuilt {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}
