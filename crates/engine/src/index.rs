//! The index of a store: chunk files in, an index that fits the manifest out. It knows no model.
//!
//! This is the one place where an index is rebuilt: by a build that finds it damaged, by changes that
//! need a new one, and by a repair.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyperrag_core::{ShardId, Warning, counted};
use hyperrag_files::replace_folder;
use hyperrag_retrieval::{
    Analyzer, Index, IndexWriter, Location, RetrievalError, recorded_analyzer,
};
use hyperrag_store::{Manifest, ShardChunks, Store, StoreWriter, replicas};

use crate::error::EngineError;

/// Opens the index that `manifest` names, which must have the documents of a store that is complete.
pub(crate) fn open_fitting(root: &Path, manifest: &Manifest) -> Result<Index, RetrievalError> {
    let path = root.join(manifest.index_folder());
    check_fitting(root, manifest, Index::open(&path)?)
}

/// Checks that an index has the documents of a store that is complete.
pub(crate) fn check_fitting(
    root: &Path,
    manifest: &Manifest,
    index: Index,
) -> Result<Index, RetrievalError> {
    let (path, stored) = (root.join(manifest.index_folder()), manifest.documents());
    // One that is being made has not all of them yet.
    if !manifest.complete {
        return Ok(index);
    }
    let damaged = |what| RetrievalError::Damaged { path, files: Vec::new(), what };
    match index.documents_before(manifest.next_row()) {
        found if found == stored => Ok(index),
        found => {
            let found = counted(found, "document");
            Err(damaged(format!("it has {found}, the store {stored}")))
        }
    }
}

/// Says what follows where no index tells the rules of the former one.
pub(crate) const RULES_UNKNOWN: &str = "nothing tells by which rules the former index cut words: \
     the new one has the present rules, and queries may find other documents";

/// Returns the analyzer for an index of the store at `root` that is made again: by the recorded rules, else
/// by the present ones, of which `warn` is told.
pub(crate) fn analyzer(
    root: &Path,
    manifest: &Manifest,
    warn: fn(&Warning),
) -> Result<Analyzer, EngineError> {
    let (analyzer, is_recorded) = recorded_or_present(root, manifest)?;
    if !is_recorded {
        warn(&RULES_UNKNOWN.to_owned().into());
    }
    Ok(analyzer)
}

/// Returns the analyzer of the store at `root` by the rules of the index that `manifest` names, be it damaged,
/// else of a replica's, so that queries find what they found; by the present rules, and `false`, if no index
/// tells.
pub(crate) fn recorded_or_present(
    root: &Path,
    manifest: &Manifest,
) -> Result<(Analyzer, bool), EngineError> {
    let language: Analyzer = manifest.fingerprint.language.parse()?;
    let recorded = |root: &Path, manifest: &Manifest| {
        recorded_analyzer(&root.join(manifest.index_folder()), language)
    };
    let of_replica = |replica: PathBuf| recorded(&replica, Store::open(&replica).ok()?.manifest());
    let own = recorded(root, manifest);
    let copies = || replicas(root).unwrap_or_default().into_iter().find_map(of_replica);
    let found = own.or_else(copies);
    Ok((found.unwrap_or(language), found.is_some()))
}

/// Opens the index to write, and brings it up to the sealed shards: a crash may have left it behind. An
/// index that is damaged, or ahead of the store, is rebuilt beside the one that readers have, and takes
/// its place when it is whole. The index as it was comes along if nothing had to be done to it.
pub(crate) fn open_to_write(
    root: &Path,
    store: &StoreWriter,
    stop: &AtomicBool,
    warn: fn(&Warning),
) -> Result<(IndexWriter, Option<Index>), EngineError> {
    let manifest = store.manifest();
    let (folder, end) = (root.join(manifest.index_folder()), manifest.next_shard().0);
    let (analyzer, is_recorded) = recorded_or_present(root, manifest)?;
    // The first build of a store makes its index.
    if !is_recorded && manifest.first_shard != ShardId(0) {
        warn(&RULES_UNKNOWN.to_owned().into());
    }
    let opened = IndexWriter::open_with_index(&folder, analyzer);
    let is_usable = match &opened {
        Ok((writer, _)) => writer.indexed_shards() <= end,
        Err(error) => !matches!(error, RetrievalError::Damaged { .. }),
    };
    let (mut writer, index) = if is_usable {
        opened?
    } else {
        drop(opened);
        let aside = Manifest { index: manifest.generation + 1, ..manifest.clone() };
        let made = root.join(aside.index_folder());
        remove(&made)?;
        rebuild_from_own(root, &aside, analyzer, stop)?;
        let io = |source| RetrievalError::Io { path: made.clone(), source };
        replace_folder(&made, &folder).map_err(io)?;
        IndexWriter::open_with_index(&folder, analyzer)?
    };
    let indexed = writer.indexed_shards();
    let mut behind = manifest.shards.iter().filter(|record| record.shard.0 >= indexed).peekable();
    if behind.peek().is_none() {
        return Ok((writer, index));
    }
    for record in behind {
        add(&mut writer, record.shard, &store.chunks(record.shard)?)?;
    }
    writer.commit(end)?;
    Ok((writer, None))
}

/// Rebuilds the index that `manifest` names, from the chunk files of the store at `root`.
pub(crate) fn rebuild_from_own(
    root: &Path,
    manifest: &Manifest,
    analyzer: Analyzer,
    stop: &AtomicBool,
) -> Result<(), EngineError> {
    let store = Store::with_manifest(root, Arc::new(manifest.clone()));
    rebuild(root, manifest, analyzer, |shard| match stop.load(Ordering::Relaxed) {
        true => Err(EngineError::Interrupted),
        false => Ok(store.chunks(shard)?),
    })
}

/// Rebuilds the index that `manifest` names, of the documents in its shards alone, whose contents
/// `contents` gives.
pub(crate) fn rebuild<E: From<EngineError>>(
    root: &Path,
    manifest: &Manifest,
    analyzer: Analyzer,
    contents: impl Fn(ShardId) -> Result<ShardChunks, E>,
) -> Result<(), E> {
    let folder = root.join(manifest.index_folder());
    let mut index = IndexWriter::open(&folder, analyzer).map_err(EngineError::from)?;
    for record in &manifest.shards {
        add(&mut index, record.shard, &contents(record.shard)?)?;
    }
    index.finish(manifest.next_shard().0).map_err(EngineError::from)?;
    Ok(())
}

/// Adds the documents of a shard.
pub(crate) fn add(
    index: &mut IndexWriter,
    shard: ShardId,
    contents: &ShardChunks,
) -> Result<(), EngineError> {
    for indexed in &contents.documents {
        let location = Location { shard, first_slot: indexed.first_slot, chunks: indexed.chunks };
        index.add(indexed.row, &indexed.document, location)?;
    }
    Ok(())
}

/// Shards between two commits of an index that grows with its store.
const SHARDS_PER_COMMIT: u32 = 64;

/// Adds the documents of the shard that was sealed last, and commits at times.
pub(crate) fn add_and_commit(
    index: &mut IndexWriter,
    shard: ShardId,
    contents: &ShardChunks,
) -> Result<(), EngineError> {
    add(index, shard, contents)?;
    let sealed = shard.0 + 1;
    if sealed.is_multiple_of(SHARDS_PER_COMMIT) {
        index.commit(sealed)?;
    }
    Ok(())
}

/// Removes the folder of an index, if it is there.
pub(crate) fn remove(folder: &Path) -> Result<(), RetrievalError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(RetrievalError::Io { path: folder.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
