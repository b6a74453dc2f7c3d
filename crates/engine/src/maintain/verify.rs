//! Reads every byte of a store and compares it with its checksums, and the index with the store.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hyperrag_core::{ShardId, counted};
use hyperrag_retrieval::{Index, Location, RetrievalError};
use hyperrag_store::{Damage, Manifest, ReplicaState, Store, StoreError, notes, replicas};
use rayon::prelude::*;
use serde::Serialize;

use crate::error::EngineError;
use crate::maintain::from_tier::{self, InTier, TierFailure, check_shard};
use crate::progress::ByteProgress;
use crate::shared::error::ShareError;
use crate::shared::place::SharedPlace;

/// Settings of a verification.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifySettings {
    /// Whether chunk files are parsed, and identities and index compared with them.
    pub deep: bool,
    /// Threads; 0 is one a core.
    pub threads: usize,
}

/// Report of a verification.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VerifyReport {
    /// Whether it was a deep one.
    pub deep: bool,
    /// Shards checked.
    pub shards: usize,
    /// Blocks that the store holds.
    pub blocks: u64,
    /// Blocks that were computed again.
    pub recomputed: u64,
    /// Bytes of shards and chunk files read.
    pub bytes: u64,
    /// Seconds taken.
    pub seconds: f64,
    /// Everything that is not as it was written, in the order of the shards.
    pub damages: Vec<Damage>,
    /// The tier that was checked in the place of the folder's shards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<VerifiedTier>,
    /// The replicas, where they were checked too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<VerifiedReplica>,
}

/// A tier and how many blocks it does not have as they were written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedTier {
    /// Name of the tier.
    pub name: String,
    /// Blocks that it does not hold.
    pub absent: u64,
    /// Blocks with other bytes.
    pub damaged: u64,
}

/// A replica and what its verification found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerifiedReplica {
    /// State beside the store's.
    #[serde(flatten)]
    pub state: ReplicaState,
    /// Findings; none where it cannot be read, as its state then says.
    pub report: Option<VerifyReport>,
}

/// Reads every byte of the store at `root` and checks it; writes nothing.
///
/// # Errors
/// [`EngineError`] where there is no store to check. Damage is none.
pub fn verify(
    root: &Path,
    settings: VerifySettings,
    progress: &ByteProgress,
) -> Result<VerifyReport, EngineError> {
    verify_with_tier(root, settings, None, progress)
}

/// Checks a store like [`verify`]. With `tier`, blocks are read from that
/// tier and not from the shards in the folder.
///
/// # Errors
/// [`EngineError`] where there is no store to check, or the tier does not answer. Damage is none.
pub fn verify_with_tier(
    root: &Path,
    settings: VerifySettings,
    tier: Option<&SharedPlace>,
    progress: &ByteProgress,
) -> Result<VerifyReport, EngineError> {
    let start = Instant::now();
    let (absent, damaged) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut report = VerifyReport { deep: settings.deep, ..VerifyReport::default() };
    let store = match Store::open_sealed(root) {
        Ok(store) => Some(store),
        Err(error) if error.is_refusal() => return Err(error.into()),
        Err(error @ (StoreError::Damaged { .. } | StoreError::Io { .. })) => {
            report.damages.push(Damage::from_error(root, &error));
            None
        }
        Err(error) => return Err(error.into()),
    };
    if let Err(error) = replicas(root) {
        if error.is_refusal() {
            return Err(error.into());
        }
        report.damages.push(Damage::from_error(root, &error));
    }
    if let Some(store) = &store {
        report.shards = store.manifest().shards.len();
        report.blocks = store.manifest().shards.iter().map(|shard| shard.chunks).sum();
    }
    let blocks = tier.map(|place| TierBlocks { place, absent: &absent, damaged: &damaged });
    report.damages.extend(damages(root, store.as_ref(), settings, blocks, progress)?);
    report.tier = tier.map(|place| VerifiedTier {
        name: place.name.clone(),
        absent: absent.load(Ordering::Relaxed),
        damaged: damaged.load(Ordering::Relaxed),
    });
    report.bytes = progress.done.load(Ordering::Relaxed);
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// A tier whose blocks are checked, and counts of those that are not as they were written.
#[derive(Clone, Copy)]
pub(crate) struct TierBlocks<'a> {
    place: &'a SharedPlace,
    absent: &'a AtomicU64,
    damaged: &'a AtomicU64,
}

impl TierBlocks<'_> {
    fn verify_shard(
        &self,
        store: &Store,
        shard: ShardId,
        progress: &ByteProgress,
    ) -> Result<Vec<Damage>, EngineError> {
        let SharedPlace { name, blocks, patience, .. } = self.place;
        let tier = (&**blocks, *patience);
        let faults = match check_shard(store, shard, tier, |_| true, &progress.done) {
            Ok(faults) => faults,
            Err(TierFailure::Store(error)) if error.is_refusal() => return Err(error.into()),
            Err(TierFailure::Store(error)) => {
                let damage = Damage::from_error(store.root(), &error);
                return Ok(vec![Damage { shard: Some(shard.0), ..damage }]);
            }
            Err(TierFailure::Tier(source)) => {
                return Err(ShareError::Place { place: name.clone(), source }.into());
            }
        };
        let damages = faults.iter().map(|(slot, state)| {
            let count = if *state == InTier::Absent { self.absent } else { self.damaged };
            count.fetch_add(1, Ordering::Relaxed);
            from_tier::damage(store, shard, *slot, name, state)
        });
        Ok(damages.collect())
    }
}

/// Finds damage in shards, chunk files and index; without a manifest in the index alone. With `tier`, blocks are
/// read from there.
pub(crate) fn damages(
    root: &Path,
    store: Option<&Store>,
    settings: VerifySettings,
    tier: Option<TierBlocks<'_>>,
    progress: &ByteProgress,
) -> Result<Vec<Damage>, EngineError> {
    let folder =
        store.map_or_else(|| Store::last_index(root), |store| store.manifest().index_folder());
    let index = match Index::open_verified(&root.join(&folder)) {
        // What this user or this version cannot read may be as it was written.
        Err(
            error @ (RetrievalError::Io { .. }
            | RetrievalError::Unsupported { .. }
            | RetrievalError::Locked { .. }),
        ) => return Err(error.into()),
        index => index,
    };
    // Read again, for a store that was not opened by its own manifest.
    let seen = store.and_then(Store::generation_damage).cloned();
    let mut found = Vec::from_iter(seen.or(Store::generation_damage_at(root)?));
    if let Err(error) = notes(root) {
        if error.is_refusal() {
            return Err(error.into());
        }
        found.push(Damage::from_error(root, &error));
    }
    if let Some(store) = store {
        let manifest = store.manifest();
        progress.expect(manifest);
        found.extend(store.verify_calibration()?);
        let known = index.as_ref().ok().filter(|_| settings.deep && manifest.complete);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(settings.threads).build();
        let pool = pool.map_err(|error| EngineError::Threads(error.to_string()))?;
        let units: Result<Vec<Vec<Damage>>, EngineError> = pool.install(|| {
            manifest
                .shards
                .par_iter()
                .map_init(Vec::new, |buffer, record| {
                    let shard = record.shard;
                    let blocks = match tier {
                        Some(tier) => tier.verify_shard(store, shard, progress)?,
                        None => store.verify_shard(shard, buffer, &progress.done)?,
                    };
                    let rest = verify_unit(store, shard, settings.deep, known, buffer, progress)?;
                    Ok([blocks, rest].concat())
                })
                .collect()
        });
        found.extend(units?.into_iter().flatten());
    }
    let damages = index_damages(index.as_ref(), store.map(Store::manifest));
    found.extend(damages.into_iter().map(|(file, what)| index_damage(&folder, &file, what)));
    Ok(found)
}

/// Checks a shard's chunk file; deeply, what follows from it too.
fn verify_unit(
    store: &Store,
    shard: ShardId,
    deep: bool,
    index: Option<&Index>,
    buffer: &mut Vec<u8>,
    progress: &ByteProgress,
) -> Result<Vec<Damage>, StoreError> {
    let mut damages = Vec::new();
    match store.verify_chunk_file(shard, buffer, &progress.done)? {
        Some(damage) => damages.push(damage),
        None if deep => match store.verify_chunks(shard)? {
            Err(found) => damages.extend(found),
            Ok(contents) => {
                let unknown = contents.documents.iter().filter(|indexed| {
                    let (first_slot, chunks) = (indexed.first_slot, indexed.chunks);
                    let location = Location { shard, first_slot, chunks };
                    let this = |row| row == indexed.row;
                    let is_found = |index: &Index| {
                        let Some(hit) = index.get(&indexed.document.id, this)? else {
                            return Ok(false);
                        };
                        let is_there = hit.location == location;
                        let read = index.read_documents(&[hit])?;
                        Ok::<_, RetrievalError>(is_there && read[0] == indexed.document)
                    };
                    !index.is_none_or(|index| is_found(index).unwrap_or(false))
                });
                damages.extend(unknown.map(|indexed| Damage {
                    shard: Some(shard.0),
                    ..index_damage(
                        &store.manifest().index_folder(),
                        Path::new(""),
                        format!("document {} is not in it as it is stored", indexed.document.id),
                    )
                }));
            }
        },
        None => {}
    }
    Ok(damages)
}

/// Finds damage of the index by itself, or beside a complete store: files, and what of them.
fn index_damages(
    index: Result<&Index, &RetrievalError>,
    manifest: Option<&Manifest>,
) -> Vec<(PathBuf, String)> {
    let whole = |what: String| vec![(PathBuf::new(), what)];
    match index {
        Err(RetrievalError::Damaged { files, what, .. }) if !files.is_empty() => {
            files.iter().map(|file| (file.clone(), what.clone())).collect()
        }
        Err(RetrievalError::Damaged { what, .. }) => whole(what.clone()),
        Err(RetrievalError::Missing { .. }) => whole("there is no index".to_owned()),
        Err(error) => whole(error.to_string()),
        Ok(index) => {
            let Some(manifest) = manifest.filter(|manifest| manifest.complete) else {
                return Vec::new();
            };
            // It may be ahead of the store.
            let found = index.documents_before(manifest.next_row());
            match manifest.documents() {
                stored if stored == found => Vec::new(),
                stored => {
                    whole(format!("it has {}, the store {stored}", counted(found, "document")))
                }
            }
        }
    }
}

fn index_damage(folder: &str, file: &Path, what: String) -> Damage {
    let file: PathBuf = Path::new(folder).iter().chain(file.iter()).collect();
    Damage { file, shard: None, slot: None, what }
}
