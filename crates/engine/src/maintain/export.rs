//! Sends a finished store to a place that several machines share: checked shards or blocks first, then everything
//! else, and last the small file that names it. It prints nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hyperrag_core::{Blob, ShardId, Slot, Swapped, TierError};
use hyperrag_retrieval::copy_index;
use hyperrag_store::{CURRENT, CURRENT_BYTES_MAX, Current, Export, Listing, SentFile, Store};
use rayon::prelude::*;
use serde::Serialize;

use crate::error::EngineError;
use crate::index::{self, open_fitting};
use crate::maintain::from_tier::{InTier, TierFailure, check_shard};
use crate::progress::ByteProgress;
use crate::shared::error::ShareError;
use crate::shared::place::SharedPlace;

/// Share of the blocks that are read back: one in so many.
const READ_BACK: u64 = 100;
/// Times that a shard is sent.
const ATTEMPTS: u32 = 2;
/// Times that a request is made again where another may help.
const RETRIES: u32 = 4;

/// Wait for copies before what they lack is sent again.
const LAG: Duration = Duration::from_millis(500);

/// Settings of an export.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExportSettings {
    /// Whether every block is read back, and not one in a hundred.
    pub verify: bool,
    /// Whether a store that is newer, or another one, is replaced.
    pub replace: bool,
    /// Whether nothing is sent.
    pub dry_run: bool,
    /// Shards that are sent at one time; 0 is one a core.
    pub jobs: usize,
}

/// Report of an export.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ExportReport {
    /// Name of the place.
    pub to: String,
    /// Whether nothing was sent: the numbers say what would be.
    pub dry_run: bool,
    /// Generation of the store.
    pub generation: u64,
    /// Shards of the store.
    pub shards: usize,
    /// Shards that were sent now.
    pub shards_sent: usize,
    /// Blocks of these shards.
    pub blocks_sent: u64,
    /// Bytes of blocks sent.
    pub block_bytes_sent: u64,
    /// Blocks that were read back and compared.
    pub blocks_read_back: u64,
    /// Files beside the shards.
    pub files: usize,
    /// Files that were sent now.
    pub files_sent: usize,
    /// Bytes of these files.
    pub file_bytes_sent: u64,
    /// Seconds taken.
    pub seconds: f64,
    /// Seconds waited for copies that fell behind, summed over the servers of the place.
    pub waited_seconds: f64,
}

/// Sends the store at `root` to `place`. What is there already is not sent again. If stopped, the same call goes
/// on from there. Setting `stop` ends it between two shards.
///
/// # Errors
/// [`EngineError`]: the store is damaged or not finished, the place refuses or has a later generation.
pub fn export(
    root: &Path,
    place: &SharedPlace,
    settings: ExportSettings,
    progress: &ByteProgress,
    stop: &AtomicBool,
) -> Result<ExportReport, EngineError> {
    let start = Instant::now();
    let export = Export::open(root, &place.name, settings.dry_run)?;
    let manifest = export.store().manifest();
    progress.expect(manifest);
    let mut report = ExportReport {
        to: place.name.clone(),
        dry_run: settings.dry_run,
        generation: manifest.generation,
        shards: manifest.shards.len(),
        ..ExportReport::default()
    };
    let job = Job { place, settings, progress, stop };
    let before = job.current()?;
    job.check_order(&export, before.as_deref())?;
    if settings.dry_run {
        job.plan(&export, &mut report)?;
    } else {
        place.blocks.ready_to_write().map_err(|error| job.failed(error))?;
        let files = job.send_shards(&export, &mut report)?;
        job.finish(&export, files, before.as_deref(), &mut report)?;
        report.waited_seconds = place.blocks.write_waits().waited.as_secs_f64();
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

struct Job<'a> {
    place: &'a SharedPlace,
    settings: ExportSettings,
    progress: &'a ByteProgress,
    stop: &'a AtomicBool,
}

/// Work on one shard.
#[derive(Clone, Copy, Debug, Default)]
struct SentShard {
    blocks: u64,
    bytes: u64,
    read_back: u64,
}

impl Job<'_> {
    fn failed(&self, source: TierError) -> EngineError {
        ShareError::Place { place: self.place.name.clone(), source }.into()
    }

    fn check_failed(&self, failure: TierFailure) -> EngineError {
        match failure {
            TierFailure::Store(error) => error.into(),
            TierFailure::Tier(error) => self.failed(error),
        }
    }

    /// Reads the file that names what the place has.
    fn current(&self) -> Result<Option<Vec<u8>>, EngineError> {
        let read = retried(|| self.place.files.read_small(CURRENT, CURRENT_BYTES_MAX));
        Ok(read.map_err(|error| self.failed(error))?.map(|bytes| bytes.to_vec()))
    }

    /// Refuses to take back a later generation, or to replace another store.
    fn check_order(&self, export: &Export, before: Option<&[u8]>) -> Result<(), EngineError> {
        let Some(before) = before.filter(|_| !self.settings.replace) else { return Ok(()) };
        let manifest = export.store().manifest();
        let ours = manifest.generation;
        let newer = |what| Err(ShareError::Newer { place: self.place.name.clone(), what }.into());
        let there = match Current::parse(before) {
            Ok(there) => there,
            Err(fault) => return newer(format!("{CURRENT} cannot be read: {fault}")),
        };
        let ancestors = [Some(export.fingerprint()), manifest.upgraded_from];
        let theirs = there.generation;
        match () {
            () if !ancestors.contains(&Some(there.fingerprint)) => {
                newer("it holds a store of another model or of other settings".to_owned())
            }
            () if theirs > ours => {
                newer(format!("it holds generation {theirs} of the store, and this one has {ours}"))
            }
            () if theirs == ours && there.manifest != export.manifest_digest()? => {
                newer(format!("it holds another store, of generation {theirs} as this one"))
            }
            () => Ok(()),
        }
    }

    /// Says what would be sent.
    fn plan(&self, export: &Export, report: &mut ExportReport) -> Result<(), EngineError> {
        for record in &export.store().manifest().shards {
            let missing = self.missing(export, record.shard)?;
            report.shards_sent += usize::from(!missing.is_empty());
            report.blocks_sent += missing.len() as u64;
            report.block_bytes_sent += missing.iter().map(|blob| blob.bytes).sum::<u64>();
        }
        Ok(())
    }

    /// Lists the blocks of a shard that the place does not seem to hold. A place of whole shards lacks all or
    /// none.
    fn missing(&self, export: &Export, shard: ShardId) -> Result<Vec<Blob>, EngineError> {
        let store = export.store();
        let blobs = store.blobs(shard)?;
        let blobs: Vec<Blob> = (0..blobs.count()).map(|slot| blobs.blob(Slot(slot))).collect();
        if self.place.whole_shards {
            let (_, object) = export.shard_file(shard);
            let there = retried(|| self.place.files.file_bytes(&object));
            let there = there.map_err(|error| self.failed(error))?;
            let bytes = store.manifest().shard(shard).map(|record| record.kv.bytes);
            return Ok(if there == bytes { Vec::new() } else { blobs });
        }
        let held = retried(|| self.place.blocks.holds(&blobs));
        let held = held.map_err(|error| self.failed(error))?;
        let missing = blobs.into_iter().zip(held).filter(|(_, held)| !held);
        Ok(missing.map(|(blob, _)| blob).collect())
    }

    /// Sends all shards, and returns the files that belong to them.
    fn send_shards(
        &self,
        export: &Export,
        report: &mut ExportReport,
    ) -> Result<Vec<SentFile>, EngineError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.settings.jobs).build();
        let pool = pool.map_err(|error| EngineError::Threads(error.to_string()))?;
        let shards = &export.store().manifest().shards;
        let send = |buffer: &mut Vec<u8>, shard| {
            if self.stop.load(Ordering::Relaxed) {
                return Err(EngineError::Interrupted);
            }
            export.write_table(shard)?;
            let sent = self.send_shard(export, shard, buffer)?;
            Ok((sent, export.files_of(shard, buffer)?))
        };
        let sent: Result<Vec<_>, EngineError> = pool.install(|| {
            let shards = shards.par_iter().map(|record| record.shard).with_max_len(1);
            shards.map_init(Vec::new, send).collect()
        });
        let mut files = Vec::new();
        for (shard, of_shard) in sent? {
            report.shards_sent += usize::from(shard.blocks > 0);
            report.blocks_sent += shard.blocks;
            report.block_bytes_sent += shard.bytes;
            report.blocks_read_back += shard.read_back;
            files.extend(of_shard);
        }
        Ok(files)
    }

    /// Sends what the place lacks of a shard, reads some of it back, and marks it.
    fn send_shard(
        &self,
        export: &Export,
        shard: ShardId,
        buffer: &mut Vec<u8>,
    ) -> Result<SentShard, EngineError> {
        let mut missing = self.missing(export, shard)?;
        let bytes = export.store().manifest().shard(shard).map_or(0, |record| record.kv.bytes);
        let mut sent = SentShard::default();
        if missing.is_empty() && export.is_marked(shard) && !self.settings.verify {
            self.progress.done.fetch_add(bytes, Ordering::Relaxed);
            return Ok(sent);
        }
        for attempt in 1.. {
            if !missing.is_empty() {
                self.send_blocks(export, shard, &missing, buffer)?;
                sent.blocks += missing.len() as u64;
                sent.bytes += missing.iter().map(|blob| blob.bytes).sum::<u64>();
            }
            let mut wrong = self.read_back(export.store(), shard, &mut sent)?;
            if wrong.iter().any(|(_, state)| *state == InTier::Absent) {
                // A copy may be behind its master.
                thread::sleep(LAG);
                wrong = self.read_back(export.store(), shard, &mut sent)?;
            }
            let Some((slot, state)) = wrong.first() else { break };
            if attempt == ATTEMPTS {
                let fault = match state {
                    InTier::Damaged(fault) => fault.as_str(),
                    InTier::Absent | InTier::Whole => "it is not there",
                };
                let what = format!("shard {shard}, block {}, which was sent: {fault}", slot.0);
                return Err(ShareError::Damaged { place: self.place.name.clone(), what }.into());
            }
            let blobs = export.store().blobs(shard)?;
            missing = match self.place.whole_shards {
                true => (0..blobs.count()).map(|slot| blobs.blob(Slot(slot))).collect(),
                false => wrong.iter().map(|(slot, _)| blobs.blob(*slot)).collect(),
            };
        }
        export.mark(shard)?;
        self.progress.done.fetch_add(bytes, Ordering::Relaxed);
        Ok(sent)
    }

    fn send_blocks(
        &self,
        export: &Export,
        shard: ShardId,
        missing: &[Blob],
        buffer: &mut Vec<u8>,
    ) -> Result<(), EngineError> {
        if self.place.whole_shards {
            export.check_shard(shard, buffer)?;
            let (path, object) = export.shard_file(shard);
            let put = retried(|| self.place.files.put_file(&object, &path));
            return put.map_err(|error| self.failed(error));
        }
        let blobs = export.store().blobs(shard)?;
        let file = blobs.file()?;
        for blob in missing {
            if self.stop.load(Ordering::Relaxed) {
                return Err(EngineError::Interrupted);
            }
            let bytes = file.read(blob.key.slot)?;
            let put = retried(|| self.place.blocks.put(blob, &bytes));
            put.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Reads blocks of a shard back: all, or one in a hundred, chosen by the shard's table, and at least one.
    fn read_back(
        &self,
        store: &Store,
        shard: ShardId,
        sent: &mut SentShard,
    ) -> Result<Vec<(Slot, InTier)>, EngineError> {
        let SharedPlace { blocks, patience, .. } = self.place;
        let count = store.blobs(shard)?.count();
        let seed =
            |blob: &Blob| u64::from_le_bytes(*blob.key.table.first_chunk().unwrap_or(&[0; 8]));
        let chosen = |blob: &Blob| {
            let mixed = seed(blob) ^ u64::from(blob.key.slot.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let one = seed(blob) % u64::from(count.max(1));
            self.settings.verify
                || (mixed >> 16).is_multiple_of(READ_BACK)
                || u64::from(blob.key.slot.0) == one
        };
        let read = AtomicU64::new(0);
        let counted = |blob: &Blob| {
            let chosen = chosen(blob);
            read.fetch_add(u64::from(chosen), Ordering::Relaxed);
            chosen
        };
        let place = (&**blocks, *patience);
        let wrong = check_shard(store, shard, place, counted, &AtomicU64::new(0));
        let wrong = wrong.map_err(|failure| self.check_failed(failure))?;
        sent.read_back += read.into_inner();
        Ok(wrong)
    }

    /// Sends everything else, the listing, and last the file that names the listing.
    fn finish(
        &self,
        export: &Export,
        mut files: Vec<SentFile>,
        before: Option<&[u8]>,
        report: &mut ExportReport,
    ) -> Result<(), EngineError> {
        let folder = TemporaryFolder(export.index_copy());
        // An earlier call may have been killed.
        index::remove(&folder.0)?;
        let (root, manifest) = (export.store().root(), export.store().manifest());
        drop(open_fitting(root, manifest)?);
        copy_index(&root.join(manifest.index_folder()), &folder.0)?;
        files.extend(export.other_files(&folder.0)?);
        report.files = files.len();
        let send =
            |file: &SentFile| self.send_file(&file.from, &file.listed.object, file.listed.bytes);
        let sent: Result<Vec<bool>, EngineError> = files.par_iter().map(send).collect();
        for (file, _) in files.iter().zip(sent?).filter(|(_, sent)| *sent) {
            report.files_sent += 1;
            report.file_bytes_sent += file.listed.bytes;
        }
        let listing = export.listing(files.into_iter().map(|file| file.listed).collect());
        self.name(&listing, &folder.0, before)?;
        let chunk_files = manifest.shards.iter().map(|record| record.chunk_file.bytes);
        self.progress.done.fetch_add(chunk_files.sum(), Ordering::Relaxed);
        Ok(())
    }

    /// Sends a file unless its object is there with the right length. Tells whether it was sent.
    fn send_file(&self, from: &Path, object: &str, bytes: u64) -> Result<bool, EngineError> {
        let there = || retried(|| self.place.files.file_bytes(object));
        if there().map_err(|error| self.failed(error))? == Some(bytes) {
            return Ok(false);
        }
        let put = retried(|| self.place.files.put_file(object, from));
        put.map_err(|error| self.failed(error))?;
        match there().map_err(|error| self.failed(error))? {
            Some(stored) if stored == bytes => Ok(true),
            stored => {
                let stored = stored.unwrap_or(0);
                let what = format!("{object}: {stored} bytes after {bytes} were sent");
                Err(ShareError::Damaged { place: self.place.name.clone(), what }.into())
            }
        }
    }

    /// Sends the listing and names it, if the place still has what it had at the start.
    fn name(
        &self,
        listing: &Listing,
        folder: &Path,
        before: Option<&[u8]>,
    ) -> Result<(), EngineError> {
        let current = Current::of(listing).ok_or_else(|| {
            let what = "the store has no manifest".to_owned();
            ShareError::Damaged { place: self.place.name.clone(), what }
        })?;
        let (path, bytes) = (folder.join("listing"), listing.to_bytes());
        fs::write(&path, &bytes).map_err(ShareError::io(&path, "cannot be written"))?;
        self.send_file(&path, &current.listing, current.bytes)?;
        let now = current.to_bytes();
        if before == Some(&now[..]) {
            return Ok(());
        }
        match self.place.files.swap_small(CURRENT, before, &now) {
            Ok(Swapped::Done) => Ok(()),
            Ok(Swapped::Changed) => {
                Err(ShareError::Raced { place: self.place.name.clone() }.into())
            }
            Err(error) => Err(self.failed(error)),
        }
    }
}

/// Makes a request again while that may help.
fn retried<T>(mut request: impl FnMut() -> Result<T, TierError>) -> Result<T, TierError> {
    let mut attempt = 0;
    loop {
        match request() {
            Err(error) if error.is_retryable() && attempt < RETRIES => {
                thread::sleep(Duration::from_millis(50 << attempt));
                attempt += 1;
            }
            done => return done,
        }
    }
}

/// A folder that is removed in the end.
struct TemporaryFolder(PathBuf);

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // Best effort: the next export removes it first.
        let _ = fs::remove_dir_all(&self.0);
    }
}
