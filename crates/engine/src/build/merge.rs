//! Merges what many processes have built: spans that are done come in, a store and its index go out, with the bytes
//! that one process would have made. It computes no block.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hyperrag_core::{Calibration, Digest, Warning};
use hyperrag_retrieval::IndexWriter;
use hyperrag_store::{
    BUILD, BuildPlan, Manifest, SealedBlocks, ShardChunks, ShardRecord, Store, StoreError,
    StoreWriter, UnitsDigest, calibration_object, parse_span,
};
use rayon::prelude::*;
use serde::Serialize;

use crate::build::build_place::{BuildPlace, PLAN};
use crate::build::claims::result_of;
use crate::build::partition_error::PartitionError;
use crate::error::EngineError;
use crate::index;
use crate::maintain::export::{ExportSettings, export};
use crate::progress::ByteProgress;
use crate::shared::error::ShareError;

/// Shards whose block tables and chunk files are fetched together.
const FETCHED_AHEAD: usize = 32;
/// Fewest shards that are sealed together, and share of those that the store has. A seal writes the whole journal.
const SEALED_TOGETHER_MIN: usize = 64;
const SEALED_SHARE: usize = 8;
/// Largest block table that is fetched, in bytes: that of a shard with the most blocks.
const TABLE_BYTES_MAX: u64 = 128 << 20;

/// Report of a merge.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MergeReport {
    /// Name of the place.
    pub place: String,
    /// Spans that were merged.
    pub spans: u32,
    /// Documents in the store.
    pub documents: u64,
    /// Chunks in the store.
    pub chunks: u64,
    /// Positions in the store.
    pub tokens: u64,
    /// Bytes of all shards.
    pub bytes: u64,
    /// Shards in the store.
    pub shards: u64,
    /// Shards that an earlier merge, which was stopped, had taken in.
    pub shards_before: u64,
    /// Seconds taken.
    pub seconds: f64,
}

/// Makes one store of the spans at `place`. If stopped, the same call goes on from there. A store in a folder gets
/// its files where the workers put them; of one elsewhere, all but the shards passes through `scratch`, a folder
/// of this machine.
///
/// # Errors
/// [`PartitionError::NotDone`] if a span is missing, [`PartitionError::Damaged`] if a file is not the one that was
/// written, [`EngineError::Share`] if another process publishes there at the same time.
pub fn merge(
    place: &BuildPlace,
    scratch: &Path,
    progress: &ByteProgress,
    warn: fn(&Warning),
    stop: &AtomicBool,
) -> Result<MergeReport, EngineError> {
    let start = Instant::now();
    let Some(plan) = place.plan()? else { return merged_before(place) };
    let shards = all_shards(place, &plan, stop)?;
    if let Some(current) = place.exported()? {
        return match current.manifest == Manifest::digest_of_one_build(&plan.fingerprint, &shards) {
            true => {
                Ok(MergeReport { shards_before: shards.len() as u64, ..report(place, &shards) })
            }
            false => Err(PartitionError::Occupied { place: place.name.clone() }.into()),
        };
    }
    let bytes = shards.iter().map(|shard| shard.chunk_file.bytes).sum();
    progress.all.store(bytes, Ordering::Relaxed);
    // One that was stopped goes on in the folder of its own plan.
    let store = format!("store-{}", &Digest::of(&plan.to_bytes()).to_string()[..16]);
    let root = place.folder.clone().unwrap_or_else(|| scratch.join(store));
    let fetched = scratch.join("fetched");
    // What is left there may be linked to files of the store.
    remove(&fetched)?;
    fs::create_dir_all(&fetched).map_err(ShareError::io(&fetched, "cannot be made"))?;
    let job = Job { place, plan: &plan, fetched, progress, warn, stop };
    let shards_before = job.run(&root, &shards)?;
    match &place.shared {
        Some(shared) => {
            let settings = ExportSettings::default();
            export(&root, shared, settings, &ByteProgress::default(), stop)?;
            remove(&root)?;
        }
        None => remove_build(&root)?,
    }
    remove(&job.fetched)?;
    let seconds = start.elapsed().as_secs_f64();
    let report =
        MergeReport { spans: plan.spans(), shards_before, seconds, ..report(place, &shards) };
    Ok(report)
}

fn report(place: &BuildPlace, shards: &[ShardRecord]) -> MergeReport {
    let sum = |part: fn(&ShardRecord) -> u64| shards.iter().map(part).sum();
    MergeReport {
        place: place.name.clone(),
        documents: sum(|shard| shard.documents),
        chunks: sum(|shard| shard.chunks),
        tokens: sum(|shard| shard.tokens),
        bytes: sum(|shard| shard.kv.bytes),
        shards: shards.len() as u64,
        ..MergeReport::default()
    }
}

/// Returns the report of a folder whose merge was finished before.
fn merged_before(place: &BuildPlace) -> Result<MergeReport, EngineError> {
    let no_plan = || PartitionError::NoPlan { place: place.name.clone() };
    let folder = place.folder.as_ref().ok_or_else(no_plan)?;
    match Store::open(folder) {
        Ok(store) if store.manifest().complete => {
            // A merge may have been killed while it removed what it had taken in.
            remove_build(folder)?;
            let shards = &store.manifest().shards;
            Ok(MergeReport { shards_before: shards.len() as u64, ..report(place, shards) })
        }
        Ok(_) | Err(StoreError::Absent { .. }) => Err(no_plan().into()),
        Err(error) => Err(error.into()),
    }
}

fn remove(folder: &Path) -> Result<(), EngineError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(ShareError::io(folder, "cannot be removed")(error).into())
        }
        _ => Ok(()),
    }
}

/// Removes the workers' files from the folder of a merged store. The plan goes first: without it, what is left is
/// nobody's.
fn remove_build(root: &Path) -> Result<(), EngineError> {
    let build = root.join(BUILD);
    let plan = build.join(PLAN);
    match fs::remove_file(&plan) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(ShareError::io(&plan, "cannot be removed")(error).into())
        }
        _ => remove(&build),
    }
}

/// Reads what came of all spans, in order, and checks that it is all of the plan's input.
fn all_shards(
    place: &BuildPlace,
    plan: &BuildPlan,
    stop: &AtomicBool,
) -> Result<Vec<ShardRecord>, EngineError> {
    let (spans, mut shards, mut missing) = (plan.spans(), Vec::new(), Vec::new());
    let result = |span| match stop.load(Ordering::Relaxed) {
        true => Err(EngineError::Interrupted),
        false => Ok(result_of(place, span)?),
    };
    let results: Result<Vec<_>, EngineError> = (0..spans).into_par_iter().map(result).collect();
    for (span, result) in (0..).zip(results?) {
        match result {
            None => missing.push(span),
            Some(bytes) => {
                let parsed = parse_span(&bytes, plan.units_of(span));
                shards.extend(
                    parsed.map_err(|fault| place.damaged(format!("span {span}: {fault}")))?,
                );
            }
        }
    }
    if let Some(first) = missing.first().copied() {
        let (place, missing) = (place.name.clone(), missing.len() as u32);
        return Err(PartitionError::NotDone { place, spans, missing, first }.into());
    }
    // No id occurs twice in these rows: every worker has read all of them.
    match UnitsDigest::of(&shards) == plan.input {
        true => Ok(shards),
        false => Err(place.damaged("the spans are not those of the plan".to_owned()).into()),
    }
}

struct Job<'a> {
    place: &'a BuildPlace,
    plan: &'a BuildPlan,
    /// Folder for files that are fetched.
    fetched: PathBuf,
    progress: &'a ByteProgress,
    warn: fn(&Warning),
    stop: &'a AtomicBool,
}

impl Job<'_> {
    /// Makes the store at `root` of these shards. Returns how many it had before.
    fn run(&self, root: &Path, shards: &[ShardRecord]) -> Result<u64, EngineError> {
        let calibration = self.calibration()?;
        let mut store = StoreWriter::open(root, &self.plan.fingerprint, calibration.as_ref())?;
        let sealed = store.manifest().shards.len();
        let continues = shards.get(..sealed) == Some(&store.manifest().shards[..]);
        if !continues || store.manifest().complete && sealed < shards.len() {
            return Err(PartitionError::OtherShards { place: self.place.name.clone() }.into());
        }
        store.note(&self.plan.notes)?;
        let (mut index, _) = index::open_to_write(root, &store, self.stop, self.warn)?;
        let done = shards[..sealed].iter().map(|shard| shard.chunk_file.bytes).sum();
        self.progress.done.store(done, Ordering::Relaxed);
        let mut durable = sealed;
        for batch in shards[sealed..].chunks(FETCHED_AHEAD) {
            batch.par_iter().try_for_each(|record| self.fetch(record))?;
            for record in batch {
                if self.stop.load(Ordering::Relaxed) {
                    seal(&mut store, &mut index)?;
                    return Err(EngineError::Interrupted);
                }
                let contents = self.take_in(&mut store, record)?;
                index::add(&mut index, record.shard, &contents)?;
                self.progress.done.fetch_add(record.chunk_file.bytes, Ordering::Relaxed);
            }
            let all = store.manifest().shards.len();
            if all - durable >= SEALED_TOGETHER_MIN.max(all / SEALED_SHARE) {
                seal(&mut store, &mut index)?;
                durable = all;
            }
        }
        if !store.manifest().complete {
            store.seal_adopted()?;
            index.finish(store.manifest().next_shard().0)?;
            store.finish()?;
        }
        Ok(sealed as u64)
    }

    /// Returns the paths of a shard's block table and chunk file when they are fetched.
    fn fetched_files(&self, record: &ShardRecord) -> (PathBuf, PathBuf) {
        let path = |kind: &str| self.fetched.join(format!("{}.{kind}", record.shard));
        (path("table"), path("chunks"))
    }

    /// Fetches block table and chunk file of a shard that is in no folder of this machine.
    fn fetch(&self, record: &ShardRecord) -> Result<(), PartitionError> {
        if self.place.folder.is_some() {
            return Ok(());
        }
        let (table, chunk_file) = self.fetched_files(record);
        self.place.get_own(&record.table_object(), TABLE_BYTES_MAX, &table)?;
        self.place.get(&record.chunk_object(), record.chunk_file.bytes, &chunk_file)
    }

    /// Takes the next shard in.
    fn take_in(
        &self,
        store: &mut StoreWriter,
        record: &ShardRecord,
    ) -> Result<ShardChunks, EngineError> {
        let place = self.place;
        let here = (place.path(&record.shard_object()), place.path(&record.chunk_object()));
        if let (Some(shard), Some(chunk_file)) = here {
            return Ok(store.adopt(record, SealedBlocks::Shard(&shard), &chunk_file)?);
        }
        let (table, chunk_file) = self.fetched_files(record);
        let contents = store.adopt(record, SealedBlocks::Table(&table), &chunk_file)?;
        for path in [table, chunk_file] {
            // The store has it under another name.
            fs::remove_file(&path).map_err(ShareError::io(&path, "cannot be removed"))?;
        }
        Ok(contents)
    }

    /// Fetches the calibration that the fingerprint names, if it names one.
    fn calibration(&self) -> Result<Option<Calibration>, EngineError> {
        let fingerprint = &self.plan.fingerprint;
        let Some(digest) = fingerprint.calibration else { return Ok(None) };
        let object = calibration_object(&digest);
        let path = self.fetched.join("calibration");
        let max = Calibration::bytes_max(&fingerprint.kv_shape, fingerprint.chunk_tokens);
        self.place.get_own(&object, max, &path)?;
        let bytes = fs::read(&path).map_err(ShareError::io(&path, "cannot be read"))?;
        let calibration = Calibration::from_bytes(&bytes).ok();
        match calibration.filter(|_| Digest::of(&bytes) == digest) {
            Some(calibration) => Ok(Some(calibration)),
            None => {
                let what = format!("{object}: it does not have the digest that the plan names");
                Err(self.place.damaged(what).into())
            }
        }
    }
}

/// Seals what was taken in, in the store before the index, which may not be ahead of it.
fn seal(store: &mut StoreWriter, index: &mut IndexWriter) -> Result<(), EngineError> {
    store.seal_adopted()?;
    Ok(index.commit(store.manifest().next_shard().0)?)
}
