//! Opens an index, and checks every byte of it that a search or a merge would use.
//!
//! In: a folder. Out: an index whose files are what was written, or an error that names those that
//! are not. It knows the files' checksums and the commit, nothing of queries.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tantivy::directory::error::LockError;
use tantivy::directory::{DirectoryLock, FileSlice, META_LOCK, MmapDirectory};
use tantivy::index::{IndexMeta, SegmentReader};
use tantivy::{Directory, HasLen};

use crate::schema::{Commit, Fields, PayloadError};
use crate::{Analyzer, RetrievalError};

/// Lists the segments; written last, replaced in one step.
pub(crate) const META_FILE: &str = "meta.json";

/// A commit that was read and checked.
pub(crate) struct Checked {
    pub(crate) fields: Fields,
    pub(crate) index: tantivy::Index,
    pub(crate) commit: Commit,
    pub(crate) segments: Vec<SegmentReader>,
}

/// Runs `action`, and makes a panic of it an error: tantivy believes some of what it reads.
pub(crate) fn guarded<T>(
    dir: &Path,
    action: impl FnOnce() -> Result<T, RetrievalError>,
) -> Result<T, RetrievalError> {
    hyperrag_kv::guarded(action).unwrap_or_else(|what| {
        Err(RetrievalError::damaged(dir, None, format!("it cannot be read ({what})")))
    })
}

/// Opens the folder itself, for reading or writing.
pub(crate) fn directory(dir: &Path) -> Result<MmapDirectory, RetrievalError> {
    MmapDirectory::open(dir).map_err(|error| RetrievalError::from_open(dir, error))
}

/// Opens the last commit and checks its files.
///
/// The files are opened under the lock under which a writer removes those it has replaced; from
/// then on they stay readable, so the check, which takes long on a large index, runs without it.
pub(crate) fn open_checked(
    dir: &Path,
    directory: &MmapDirectory,
) -> Result<Checked, RetrievalError> {
    if !directory.exists(Path::new(META_FILE)).map_err(|e| RetrievalError::from_read(dir, e))? {
        return Err(RetrievalError::Missing { path: dir.to_owned() });
    }
    let lock = lock_for_reading(dir, directory)?;
    let tantivy_error = |error| RetrievalError::from_tantivy(dir, error);
    let index = tantivy::Index::open(directory.clone()).map_err(tantivy_error)?;
    let meta = index.load_metas().map_err(tantivy_error)?;
    let fields = Fields::of(&meta);
    let commit = check_commit(dir, &meta, &fields)?;
    register_analyzer(&index, fields.analyzer);
    let files = segment_files(dir, directory, &meta)?;
    drop(lock);

    check_files(dir, &index, &files)?;
    let open = |segment| SegmentReader::open(&index.segment(segment)).map_err(tantivy_error);
    let segments = meta.segments.into_iter().map(open).collect::<Result<_, _>>()?;
    Ok(Checked { fields, index, commit, segments })
}

pub(crate) fn register_analyzer(index: &tantivy::Index, analyzer: Analyzer) {
    index.tokenizers().register(&analyzer.id(), analyzer.text_analyzer());
}

/// The lock, or none where the folder can not be written: no writer is at work there, at least
/// not through this mount.
pub(crate) fn lock_for_reading(
    dir: &Path,
    directory: &MmapDirectory,
) -> Result<Option<DirectoryLock>, RetrievalError> {
    match directory.acquire_lock(&META_LOCK) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::IoError(error))
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::StorageFull
                    | ErrorKind::Unsupported
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(RetrievalError::from_lock(dir, error)),
    }
}

/// Checks what has no checksum of its own, the list of segments, against the commit's note.
pub(crate) fn check_commit(
    dir: &Path,
    meta: &IndexMeta,
    fields: &Fields,
) -> Result<Commit, RetrievalError> {
    let damaged = |what: String| RetrievalError::damaged(dir, Some(Path::new(META_FILE)), what);
    let unsupported = |what: String| RetrievalError::Unsupported { path: dir.to_owned(), what };
    let same_fields = meta.schema == fields.schema;
    let read = |payload| Commit::from_payload(payload, fields.analyzer);
    let commit = match meta.payload.as_deref().map(read) {
        None if same_fields => Commit::default(),
        None => return Err(unsupported("it has other fields".to_owned())),
        Some(Ok(commit)) if same_fields => commit,
        Some(Ok(_)) => return Err(damaged("the fields are not those committed".to_owned())),
        Some(Err(PayloadError::Damaged)) => {
            return Err(damaged("the commit's note fails its checksum".to_owned()));
        }
        Some(Err(PayloadError::OtherVersion)) => {
            let note = meta.payload.as_deref().unwrap_or_default();
            let expected = fields.analyzer.id();
            return Err(unsupported(format!("its note is {note:?}, expected {expected}")));
        }
    };
    let documents: u64 = meta.segments.iter().map(|segment| u64::from(segment.max_doc())).sum();
    if documents != commit.documents {
        let Commit { documents: expected, .. } = commit;
        return Err(damaged(format!("it lists {documents} documents, committed were {expected}")));
    }
    Ok(commit)
}

/// The files of the commit's segments, each opened. Candidates that do not exist are left out:
/// not every segment has every file, and opening the segment tells if one is needed.
fn segment_files(
    dir: &Path,
    directory: &MmapDirectory,
    meta: &IndexMeta,
) -> Result<Vec<(PathBuf, FileSlice)>, RetrievalError> {
    let read = |error| RetrievalError::from_read(dir, error);
    let mut files = Vec::new();
    for path in meta.list_segment_files() {
        if directory.exists(&path).map_err(read)? {
            let file = directory.open_read(&path).map_err(read)?;
            files.push((path, file));
        }
    }
    Ok(files)
}

/// Whether a file is as long as the footer at its end says that it is itself: tantivy believes that,
/// and panics. The last eight bytes are the length of the rest of the footer and a magic number.
fn has_footer(file: &FileSlice) -> io::Result<bool> {
    const LENGTHS_BYTES: usize = 8;
    if file.len() < LENGTHS_BYTES {
        return Ok(false);
    }
    let lengths = file.slice_from_end(LENGTHS_BYTES).read_bytes()?;
    let footer = lengths.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    Ok(footer as usize <= file.len() - LENGTHS_BYTES)
}

/// Unlike `Index::validate_checksum` this goes by the segments that the commit names, and not by
/// `.managed.json`, which has no checksum and might leave one out.
fn check_files(
    dir: &Path,
    index: &tantivy::Index,
    files: &[(PathBuf, FileSlice)],
) -> Result<(), RetrievalError> {
    let mut damaged = Vec::new();
    for (path, file) in files {
        let has_footer =
            has_footer(file).map_err(|error| RetrievalError::io(&dir.join(path), error))?;
        let intact = has_footer
            && index
                .directory()
                .validate_checksum(path)
                .map_err(|error| RetrievalError::from_read(dir, error))?;
        if !intact {
            damaged.push(path.clone());
        }
    }
    if damaged.is_empty() {
        return Ok(());
    }
    damaged.sort();
    let what = "the checksum is not that of the bytes".to_owned();
    Err(RetrievalError::Damaged { path: dir.to_owned(), files: damaged, what })
}
