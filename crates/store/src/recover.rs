//! Makes a damaged manifest or journal again: from a replica, else from what the damaged text still
//! says, the headers of the shards and the chunk files.
//!
//! The digest of the fingerprint in every shard's header says whether a fingerprint is the right one,
//! and the checksum in the damaged manifest whether a manifest made again is the one that was lost.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hyperrag_kv::{Digest, Fingerprint, ShardId};
use serde_json::Value;

use crate::draft::{place, top};
use crate::files::Files;
use crate::layout::{ENTRY_BYTES, HEADER_BYTES, Header};
use crate::manifest::{State, line, parse_line};
use crate::repair::writer_lock;
use crate::replica::headers;
use crate::{FileRecord, Manifest, ShardRecord, StoreError, chunks};

/// A manifest and its journal, found again and not yet written.
pub struct Recovered {
    state: State,
    /// Where they come from, as a sentence goes on after "mended".
    pub how: String,
}

impl Recovered {
    /// What the store holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.state.manifest
    }

    /// Writes manifest and journal of the store at `root`, where they differ.
    ///
    /// # Errors
    /// [`StoreError`] where they can not be written.
    pub fn publish(&self, root: &Path) -> Result<(), StoreError> {
        let _lock = writer_lock(root)?;
        self.state.publish(&Files { root: root.to_owned() })
    }
}

/// Finds the manifest of the store at `root` again. `current` gives what the user says that the
/// store was made with, and is asked only where nothing else tells.
///
/// # Errors
/// [`StoreError::NotMended`] says what is missing.
pub fn recover(
    root: &Path,
    replicas: &[PathBuf],
    current: &mut dyn FnMut() -> Result<Fingerprint, String>,
) -> Result<Recovered, StoreError> {
    let files = Files { root: root.to_owned() };
    if let Some((state, from)) = replicas.iter().find_map(|from| from_replica(&files, from)) {
        return Ok(Recovered { state, how: format!("from the replica {}", from.display()) });
    }
    let not_mended = |path: PathBuf| move |why| StoreError::NotMended { path, why };
    match State::snapshot(&files) {
        // The journal is what is damaged.
        Ok(Some(snapshot)) => {
            let path = files.journal(snapshot.manifest.generation);
            let Manifest { fingerprint, .. } = &snapshot.manifest;
            let records = journal_records(&files, &path, fingerprint).map_err(not_mended(path))?;
            let state = with_records(snapshot, records);
            Ok(Recovered { state, how: "from the shards and chunk files".to_owned() })
        }
        _ => rebuild(&files, current).map_err(not_mended(files.manifest())),
    }
}

/// The state of a replica, if it is one of this store and not behind.
fn from_replica(files: &Files, from: &Path) -> Option<(State, PathBuf)> {
    let state = State::read(&Files { root: from.to_owned() }).ok()??;
    let mut tops = headers(files).filter_map(|header| {
        let (_, digest) = read_top(files, header.shard).ok()?;
        Some((header.shard, digest))
    });
    let known = |(shard, digest): (ShardId, Digest)| {
        state.manifest.shards.get(shard.0 as usize).is_some_and(|record| record.kv.digest == digest)
    };
    tops.all(known).then(|| (state, from.to_owned()))
}

/// Header of a shard, and digest of header and table, whose checksums hold.
fn read_top(files: &Files, shard: ShardId) -> Result<(Header, Digest), String> {
    let path = files.shard(shard);
    let unreadable = |error| format!("{}: cannot be read ({error})", path.display());
    let file = File::open(&path).map_err(unreadable)?;
    let mut bytes = vec![0; HEADER_BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(unreadable)?;
    let damaged = |what: String| format!("{}: {what}", path.display());
    let header = Header::decode(bytes.first_chunk().expect("256 bytes")).map_err(damaged)?;
    bytes.resize(HEADER_BYTES + header.blocks as usize * ENTRY_BYTES, 0);
    file.read_exact_at(&mut bytes[HEADER_BYTES..], HEADER_BYTES as u64).map_err(unreadable)?;
    if crc32fast::hash(&bytes[HEADER_BYTES..]) != header.table_crc || header.shard != shard {
        return Err(damaged("its block table is damaged too".to_owned()));
    }
    Ok((header, Digest::of(&bytes)))
}

/// The manifest from the damaged text, headers and chunk files.
fn rebuild(
    files: &Files,
    current: &mut dyn FnMut() -> Result<Fingerprint, String>,
) -> Result<Recovered, String> {
    let text = fs::read(files.manifest()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let said: Option<Manifest> = serde_json::from_value(value["manifest"].clone()).ok();
    let fingerprint = fingerprint(files, &value["manifest"]["fingerprint"], current)?;

    let first = Manifest { generation: 1, fingerprint, complete: false, shards: Vec::new() };
    let journal = files.journal(1);
    if journal.exists() {
        let records = journal_records(files, &journal, &first.fingerprint)?;
        let state = with_records(State::of(first), records);
        return Ok(Recovered { state, how: "from the shards and the journal".to_owned() });
    }
    let how = "from the shards and chunk files".to_owned();
    let told = said.as_ref().map_or(&[][..], |manifest| &manifest.shards);
    let last = |records| {
        let shards = records;
        State::of(Manifest { generation: 2, complete: true, shards, ..first.clone() })
    };
    // What the text says of the input's rows may be right, or be what is damaged.
    let (as_told, _) = records(files, &first.fingerprint, told, true)?;
    let (as_found, sure) = records(files, &first.fingerprint, told, false)?;
    let (as_told, state) = (last(as_told), last(as_found.clone()));
    let confirmed = |state: &State| text.contains(&state.manifest.checksum().to_string());
    if confirmed(&as_told) {
        return Ok(Recovered { state: as_told, how });
    }
    // The checksum itself may be what is damaged.
    if confirmed(&state) || sure && said.as_ref() == Some(&state.manifest) {
        return Ok(Recovered { state, how });
    }
    if !sure {
        return Err(
            "some input rows had no text, so that the digest of the rows cannot be computed \
                    from the chunk files; build the store again"
                .to_owned(),
        );
    }
    let state = with_records(State::of(first), as_found);
    let how =
        format!("{how}; it is marked as unfinished, run the same `hyperrag build` to finish it");
    Ok(Recovered { state, how })
}

impl State {
    /// A snapshot without a journal.
    fn of(manifest: Manifest) -> Self {
        Self { snapshot: manifest.to_bytes(), manifest, journal: None }
    }
}

/// A snapshot and these records as its journal.
fn with_records(mut state: State, records: Vec<ShardRecord>) -> State {
    state.journal = Some(records.iter().map(line).collect::<String>().into_bytes());
    state.manifest.shards.extend(records);
    state
}

/// What the store was made with: the fingerprint whose digest the shards' headers have.
fn fingerprint(
    files: &Files,
    told: &Value,
    current: &mut dyn FnMut() -> Result<Fingerprint, String>,
) -> Result<Fingerprint, String> {
    let mut digests = headers(files).map(|header| header.fingerprint);
    let Some(digest) = digests.next() else {
        return Err("no shard's header is whole; build the store again".to_owned());
    };
    if digests.any(|other| other != digest) {
        return Err("the shards are of different stores; build the store again".to_owned());
    }
    if let Ok(told) = serde_json::from_value::<Fingerprint>(told.clone())
        && told.digest() == digest
    {
        return Ok(told);
    }
    let current = current()?;
    match current.digest() == digest {
        true => Ok(current),
        false => Err("nothing here says what the store was made with; give --model, --profile, \
                      --element, --chunk-tokens and --unit-rows as for its build"
            .to_owned()),
    }
}

/// The records of a journal's whole lines, and those of the other shards that are here made again.
fn journal_records(
    files: &Files,
    path: &Path,
    fingerprint: &Fingerprint,
) -> Result<Vec<ShardRecord>, String> {
    let bytes = fs::read(path).unwrap_or_default();
    let kept: Vec<ShardRecord> =
        bytes.split(|byte| *byte == b'\n').filter_map(parse_line).collect();
    let find = |shard: u32| kept.iter().find(|record| record.shard.0 == shard);
    let mut records = Vec::new();
    loop {
        let shard = records.len() as u32;
        match find(shard) {
            Some(record) => records.push(record.clone()),
            None if kept.iter().any(|record| record.shard.0 > shard) || here(files, shard) => {
                let (record, sure) = record(files, fingerprint, ShardId(shard), None)?;
                if !sure {
                    return Err(format!("the input rows of shard {shard} are not known"));
                }
                records.push(record);
            }
            None => return Ok(records),
        }
    }
}

/// Whether both files of a shard are here.
fn here(files: &Files, shard: u32) -> bool {
    files.shard(ShardId(shard)).exists() && files.chunk_file(ShardId(shard)).exists()
}

/// The records of all shards that are here, and whether each follows from its files alone. What is
/// `told` of rows is taken where it is needed, or, `as_told`, wherever there is any.
fn records(
    files: &Files,
    fingerprint: &Fingerprint,
    told: &[ShardRecord],
    as_told: bool,
) -> Result<(Vec<ShardRecord>, bool), String> {
    let (mut records, mut all_sure) = (Vec::new(), true);
    while here(files, records.len() as u32) || records.len() < told.len() {
        let (shard, told) = (ShardId(records.len() as u32), told.get(records.len()));
        let (mut record, sure) = record(files, fingerprint, shard, told)?;
        if let Some(ShardRecord { rows, rows_digest, .. }) = told.filter(|_| as_told) {
            (record.rows, record.rows_digest) = (*rows, *rows_digest);
        }
        records.push(record);
        all_sure &= sure;
    }
    Ok((records, all_sure))
}

/// The record of a shard from its two files, and whether it follows from them alone: rows without
/// text are in no file, so their number and digest may be known only as `told`.
fn record(
    files: &Files,
    fingerprint: &Fingerprint,
    shard: ShardId,
    told: Option<&ShardRecord>,
) -> Result<(ShardRecord, bool), String> {
    let (header, digest) = read_top(files, shard)?;
    let path = files.chunk_file(shard);
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let chunk_file = FileRecord { bytes: bytes.len() as u64, digest: Digest::of(&bytes) };
    let contents = chunks::read(bytes, &path).map_err(|error| error.to_string())?;
    let mut entries = place(&contents.chunks, &fingerprint.geometry, &fingerprint.digest());
    // The heads' checksums are the table's own; all else of it follows from the chunks.
    let file = File::open(files.shard(shard)).map_err(|error| error.to_string())?;
    for (slot, entry) in (0..).zip(&mut entries) {
        let mut crc = [0; 4];
        let at = HEADER_BYTES as u64 + slot * ENTRY_BYTES as u64 + 56;
        file.read_exact_at(&mut crc, at).map_err(|error| error.to_string())?;
        entry.head_crc = u32::from_le_bytes(crc);
    }
    if Digest::of(&top(shard, &entries, fingerprint.digest())) != digest {
        return Err(format!(
            "{}: shard and chunk file {shard} do not fit together",
            path.display()
        ));
    }
    let first_row = u64::from(shard.0) * u64::from(fingerprint.unit_rows);
    let documents = &contents.documents;
    let gapless = (first_row..).zip(documents).all(|(row, document)| document.row == row);
    let last = !here(files, shard.0 + 1);
    let sure = gapless && (last || documents.len() == fingerprint.unit_rows as usize);
    let (rows, rows_digest) = match (sure, told) {
        (true, _) => {
            let mut hasher = blake3::Hasher::new();
            for indexed in documents {
                let document = &indexed.document;
                for part in [document.id.as_str(), &document.title, &document.text] {
                    hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
                }
            }
            (documents.len() as u64, Digest(*hasher.finalize().as_bytes()))
        }
        (false, Some(told)) => (told.rows, told.rows_digest),
        (false, None) => {
            return Err(format!(
                "some input rows of shard {shard} had no text, so that their digest cannot be \
                 computed from its chunk file; build the store again"
            ));
        }
    };
    let kv = FileRecord { bytes: header.file_bytes, digest };
    let chunks = contents.chunks.len() as u64;
    let tokens = contents.chunks.iter().map(|chunk| chunk.tokens.len() as u64).sum();
    let documents = documents.len() as u64;
    Ok((ShardRecord { shard, rows, rows_digest, documents, chunks, tokens, kv, chunk_file }, sure))
}
