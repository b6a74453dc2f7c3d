//! Makes a lost manifest or journal again from a replica, else from the damaged text, the shards' headers and
//! the chunk files.
//!
//! The fingerprint's digest in every shard's header tells whether a fingerprint is the right one. The
//! checksum in the damaged manifest tells whether a new manifest equals the lost one.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::slice;

use hyperrag_core::{BoxedError, Digest, DocId, Fingerprint, Hint, ShardId};
use serde_json::Value;

use crate::error::{NoRepair, StoreError};
use crate::format::block_table::{header_and_table, place_chunks};
use crate::format::chunk_file::{self, IndexedDocument, ShardChunks};
use crate::format::journal::JournalLine;
use crate::format::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::format::paths::{StorePaths, chunk_file_number, index_number, shard_number};
use crate::format::records::{FileRecord, ShardRecord, ShardRows, Tombstones};
use crate::format::shard_input::rows_digest;
use crate::local::latest::{Traces, latest};
use crate::local::lock::lock;
use crate::local::open::read_plain;
use crate::local::shard_reader::{UnnamedShard, shard_headers};
use crate::local::state::State;

/// Largest chunk file that is read when no manifest tells its length, in bytes.
const CHUNK_FILE_BYTES_MAX: u64 = 4 << 30;

/// A manifest and its journal, made again and not yet written.
pub struct RebuiltManifest {
    state: State,
    /// Whether the manifest is proved to be the lost one.
    proved: bool,
    /// Source of the manifest, as the continuation of a sentence after "mended".
    pub how: String,
    /// Step that the user has to take after it, if there is one.
    pub hint: Option<Hint>,
}

impl RebuiltManifest {
    /// Manifest made again.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.state.manifest
    }

    /// Writes manifest and journal of the store at `root` if they differ.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be written.
    pub fn publish(&self, root: &Path) -> Result<(), StoreError> {
        let _lock = lock(&StorePaths::new(root))?;
        self.state.publish(&StorePaths::new(root), None)
    }

    /// Adds to `how` the age of the snapshot compared with what the store had.
    fn doubted(self, traces: &Traces) -> Self {
        let doubt = traces.doubt(self.state.manifest.generation);
        Self { how: format!("{}, which {doubt}", self.how), ..self }
    }

    /// Gives a snapshot that is not proved to be the last one the number after `highest`, so that no two
    /// snapshots of a store share a number.
    fn accepted(self, highest: u64) -> Self {
        let Self { state, proved, how, hint } = self;
        let snapshot = Manifest::parse(&state.snapshot).ok();
        // An input that was being added must be added again.
        let manifest = snapshot.filter(|snapshot| snapshot.complete);
        let manifest = manifest.unwrap_or_else(|| state.manifest.clone());
        let generation = highest.max(manifest.generation) + 1;
        let state = match manifest.complete || highest > 1 {
            true => State::without_journal(Manifest { generation, ..manifest }),
            false => state,
        };
        Self { state, proved, how, hint }
    }
}

/// Returns the fingerprints that, by the user's settings, a store of this format version may have.
type KnownFingerprints<'a> = dyn FnMut(u32) -> Result<Vec<Fingerprint>, BoxedError> + 'a;

/// Makes the manifest of the store at `root` again. `current` returns the fingerprints of the user's settings
/// and is called only if nothing else tells. A manifest that is not proved to be the last snapshot is taken
/// only with `accept_older`.
///
/// # Errors
/// [`StoreError::NotRepaired`] with the missing part.
pub fn rebuild_manifest(
    root: &Path,
    replicas: &[PathBuf],
    accept_older: bool,
    current: &mut KnownFingerprints<'_>,
) -> Result<RebuiltManifest, StoreError> {
    let paths = StorePaths::new(root);
    let traces = Traces::of(&paths);
    let copied = latest(&paths, &traces, replicas, true).map(|found| RebuiltManifest {
        state: found.state,
        proved: found.proved,
        how: format!("from the replica {}", found.from.display()),
        hint: None,
    });
    let copied = match copied {
        Some(copied) if copied.proved => return Ok(copied),
        copied => copied.map(|copied| copied.doubted(&traces)),
    };
    let not_repaired = |path: PathBuf| move |why| StoreError::NotRepaired { path, why };
    // The manifest is intact, so the journal is damaged.
    if let Ok(Some(snapshot)) = State::snapshot(&paths) {
        let path = paths.journal(snapshot.manifest.generation);
        let lines = journal_lines(&paths, &path, &snapshot.manifest);
        let state = with_lines(snapshot, lines.map_err(not_repaired(path))?);
        let how = FROM_FILES.to_owned();
        return Ok(RebuiltManifest { state, proved: true, how, hint: None });
    }
    let made = rebuild(&paths, &traces, current);
    let found = match (made, copied) {
        (Ok(made), _) if made.proved => return Ok(made),
        (_, Some(copied)) => copied,
        (made, None) => made.map_err(not_repaired(paths.manifest()))?,
    };
    match accept_older {
        true => Ok(found.accepted(traces.highest())),
        false => Err(StoreError::NotRepaired {
            path: paths.manifest(),
            why: NoRepair::Older { how: found.how },
        }),
    }
}

const FROM_FILES: &str = "from the shards and chunk files";

/// Makes the manifest from the damaged text, the headers and the chunk files.
fn rebuild(
    paths: &StorePaths,
    traces: &Traces,
    current: &mut KnownFingerprints<'_>,
) -> Result<RebuiltManifest, NoRepair> {
    let text = &traces.text;
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let fingerprint = fingerprint(paths, &value["manifest"]["fingerprint"], current)?;
    let first = Manifest::first(fingerprint);
    let journal = paths.journal(1);
    if journal.exists() {
        let lines = journal_lines(paths, &journal, &first)?;
        let state = with_lines(State::without_journal(first), lines);
        let how = "from the shards and the journal".to_owned();
        let proved = traces.highest() == 1;
        return Ok(RebuiltManifest { state, proved, how, hint: None });
    }
    let found = numbers(paths)?
        .into_iter()
        .map(|shard| record(paths, &first.fingerprint, shard))
        .collect::<Result<Vec<_>, _>>()?;
    let proved = |manifest: &Manifest| traces.prove(manifest.generation, &manifest.checksum());
    let made = |manifest: Manifest| {
        let (proved, how) = (proved(&manifest), FROM_FILES.to_owned());
        RebuiltManifest { state: State::without_journal(manifest), proved, how, hint: None }
    };
    let told = as_told(&value, &first.fingerprint, &found);
    if let Some(told) = told.filter(|told| traces.names(&told.checksum()) || proved(told)) {
        return Ok(match made(told) {
            made if made.proved => made,
            made => {
                let how = "from the older manifest that is here".to_owned();
                RebuiltManifest { how, ..made }.doubted(traces)
            }
        });
    }
    if is_one_build(&found, &first.fingerprint) {
        let shards = found.iter().map(|(record, _)| record.clone()).collect();
        let whole = Manifest { generation: 2, complete: true, shards, ..first.clone() };
        if proved(&whole) {
            return Ok(made(whole));
        }
    }
    check_texts(paths, &found, text)?;
    if traces.highest() == 1 && is_one_build(&found, &first.fingerprint) {
        let lines =
            found.into_iter().map(|(record, _)| JournalLine { record, replaces: Vec::new() });
        let state = with_lines(State::without_journal(first), lines.collect());
        let how = format!("{FROM_FILES} and marked as unfinished");
        let hint = Some(Hint::FinishBuild { or_restart: false });
        return Ok(RebuiltManifest { state, proved: false, how, hint });
    }
    let how = format!("{FROM_FILES} without knowing which documents were deleted");
    Ok(RebuiltManifest { how, ..made(changed(paths, first, found)) })
}

/// Returns the manifest of the damaged text, with records made from the files.
fn as_told(
    value: &Value,
    fingerprint: &Fingerprint,
    found: &[(ShardRecord, ShardChunks)],
) -> Option<Manifest> {
    let mut told: Manifest = serde_json::from_value(value["manifest"].clone()).ok()?;
    told.fingerprint = fingerprint.clone();
    let record = |shard| found.iter().find(|(record, _)| record.shard == shard);
    for stored in &mut told.shards {
        *stored = record(stored.shard)?.0.clone();
    }
    Some(told)
}

/// Whether the shards can come from one build, with nothing added or compacted since.
fn is_one_build(found: &[(ShardRecord, ShardChunks)], fingerprint: &Fingerprint) -> bool {
    let unit_rows = u64::from(fingerprint.unit_rows);
    (0_u64..).zip(found).all(|(number, (record, contents))| {
        let rows = number * unit_rows..number * unit_rows + record.rows;
        let full = record.rows == unit_rows || number + 1 == found.len() as u64;
        let fits = |indexed: &IndexedDocument| rows.contains(&indexed.row);
        u64::from(record.shard.0) == number && full && contents.documents.iter().all(fits)
    })
}

/// Makes the manifest of a store that was added to or compacted. The last version of each document counts.
fn changed(
    paths: &StorePaths,
    first: Manifest,
    found: Vec<(ShardRecord, ShardChunks)>,
) -> Manifest {
    let mut last: HashMap<DocId, (ShardId, u64)> = HashMap::new();
    let (mut shards, mut replaced, mut next_row) = (Vec::new(), Vec::new(), 0);
    for (record, contents) in found {
        for indexed in contents.documents {
            next_row = next_row.max(indexed.row + 1);
            let place = (record.shard, indexed.row);
            if let Some((shard, row)) = last.insert(indexed.document.id, place) {
                replaced.push(Tombstones { shard, rows: vec![row] });
            }
        }
        shards.push(record);
    }
    let first_shard = ShardId(shards.last().map_or(0, |record: &ShardRecord| record.shard.0 + 1));
    let index = entries_of(&paths.root).filter_map(|name| index_number(&name)).max().unwrap_or(0);
    let mut manifest = Manifest {
        generation: index.max(1) + 1,
        complete: true,
        first_shard,
        first_row: next_row,
        index,
        shards,
        ..first
    };
    manifest.mark_deleted(&replaced);
    manifest
}

/// Lists the names in a folder.
fn entries_of(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Lists the shards in the folder, ascending. A last one without its chunk file was never sealed. A folder
/// that cannot be listed is an error, because its shards would pass for absent.
fn numbers(paths: &StorePaths) -> Result<Vec<ShardId>, StoreError> {
    let listed = |folder: PathBuf, number: fn(&str) -> Option<ShardId>| {
        let unreadable = || StoreError::io(&folder, "cannot be read");
        let mut shards = BTreeSet::new();
        for entry in fs::read_dir(&folder).map_err(unreadable())? {
            let name = entry.map_err(unreadable())?.file_name();
            shards.extend(name.to_str().and_then(number));
        }
        Ok::<_, StoreError>(shards)
    };
    let chunk_files = listed(paths.chunks(), chunk_file_number)?;
    let mut here = listed(paths.shards(), shard_number)?;
    here.extend(&chunk_files);
    let last = here.last().copied();
    here.retain(|shard| Some(*shard) != last || chunk_files.contains(shard));
    Ok(here.into_iter().collect())
}

/// Adds these lines to a snapshot as its journal.
fn with_lines(mut state: State, lines: Vec<JournalLine>) -> State {
    state.journal = Some(lines.iter().map(JournalLine::encode).collect::<String>().into_bytes());
    for JournalLine { record, replaces } in lines {
        state.manifest.add(record, &replaces);
    }
    state
}

/// Finds the fingerprint of the store: the one whose digest the shards' headers have.
fn fingerprint(
    paths: &StorePaths,
    told: &Value,
    current: &mut KnownFingerprints<'_>,
) -> Result<Fingerprint, NoRepair> {
    let mut told_by_shards =
        shard_headers(paths).map(|header| (header.version, header.fingerprint));
    let Some((version, digest)) = told_by_shards.next() else {
        return Err(NoRepair::NoHeader);
    };
    if told_by_shards.any(|other| other != (version, digest)) {
        return Err(NoRepair::DifferentStores);
    }
    if let Ok(told) = serde_json::from_value::<Fingerprint>(told.clone())
        && told.digest() == digest
    {
        return Ok(told);
    }
    // The model may have another name now.
    let name = told["model"].as_str();
    let named = |current: Fingerprint| {
        let model = name.unwrap_or(&current.model).to_owned();
        [Fingerprint { model, ..current.clone() }, current]
    };
    let mut all = current(version)?.into_iter().flat_map(named);
    all.find(|current| current.digest() == digest).ok_or(NoRepair::UnknownFingerprint)
}

/// Returns the whole lines of the journal of `snapshot`. Lines of the other shards in the folder are made
/// again; the documents that those replaced are not known.
fn journal_lines(
    paths: &StorePaths,
    path: &Path,
    snapshot: &Manifest,
) -> Result<Vec<JournalLine>, NoRepair> {
    let bytes = read_plain(path, MANIFEST_BYTES_MAX).unwrap_or_default();
    let kept: Vec<JournalLine> =
        bytes.split(|byte| *byte == b'\n').filter_map(JournalLine::parse).collect();
    let here = numbers(paths)?;
    let mut lines = Vec::new();
    for shard in (snapshot.next_shard().0..).map(ShardId) {
        let more = |other: &ShardId| *other > shard;
        match kept.iter().find(|sealed| sealed.record.shard == shard) {
            Some(sealed) => lines.push(sealed.clone()),
            None if here.contains(&shard) || kept.iter().any(|s| more(&s.record.shard)) => {
                if snapshot.complete {
                    return Err(NoRepair::LostAppend);
                }
                let found = record(paths, &snapshot.fingerprint, shard)?;
                check_texts(paths, slice::from_ref(&found), &String::from_utf8_lossy(&bytes))?;
                let (record, _) = found;
                lines.push(JournalLine { record, replaces: Vec::new() });
            }
            None => break,
        }
    }
    Ok(lines)
}

/// Refuses chunk files whose titles and texts may be damaged, because the identities of blocks cover the
/// token ids alone. They are right if the shard's header has their digest, or if the damaged manifest or
/// journal, `told`, names the file's. No digest covers rows without any text; if nothing is told either, they
/// are believed.
fn check_texts(
    paths: &StorePaths,
    found: &[(ShardRecord, ShardChunks)],
    told: &str,
) -> Result<(), NoRepair> {
    for (record, ShardChunks { documents, .. }) in found {
        let all_rows = documents.len() as u64 == record.rows;
        let right = all_rows
            && documents.is_sorted_by(|a, b| a.row < b.row)
            && rows_digest(documents.iter().map(|indexed| &indexed.document)) == record.rows_digest
            || told.contains(&record.chunk_file.digest.to_string())
            || !all_rows && told.is_empty();
        if !right {
            return Err(NoRepair::DoubtfulTexts { path: paths.chunk_file(record.shard) });
        }
    }
    Ok(())
}

/// Makes the record of a shard from its two files. Returns the contents of the chunk file too.
fn record(
    paths: &StorePaths,
    fingerprint: &Fingerprint,
    shard: ShardId,
) -> Result<(ShardRecord, ShardChunks), StoreError> {
    let UnnamedShard { header, digest, header_crcs } = UnnamedShard::read(paths, shard)?;
    let path = paths.chunk_file(shard);
    let bytes = read_plain(&path, CHUNK_FILE_BYTES_MAX);
    let bytes = bytes.map_err(|fault| fault.of_file(&path))?;
    let chunk_file = FileRecord { bytes: bytes.len() as u64, digest: Digest::of(&bytes) };
    let contents = chunk_file::read(bytes);
    let contents = contents.map_err(|what| StoreError::damaged(&path, what))?;
    let mut entries = place_chunks(&contents.chunks, fingerprint);
    // Only the checksums of the blocks' headers come from the table; all else follows from the chunks.
    for (entry, header_crc) in entries.iter_mut().zip(header_crcs) {
        entry.header_crc = header_crc;
    }
    let shard_rows = ShardRows { shard, rows: header.rows, rows_digest: header.rows_digest };
    if Digest::of(&header_and_table(shard_rows, &entries, fingerprint)) != digest {
        let what = format!("shard and chunk file {shard} do not fit together");
        return Err(StoreError::damaged(&path, what));
    }
    let kv = FileRecord { bytes: header.file_bytes, digest };
    Ok((ShardRecord::new(shard_rows, &contents, kv, chunk_file), contents))
}
