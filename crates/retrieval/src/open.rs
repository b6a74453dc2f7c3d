//! Opens the last commit of an index and checks its bytes: all of them, or those that are used at once.
//!
//! In: a folder. Out: a commit that reads only bytes that were written, or an error that names the
//! damaged files. It knows the commit, nothing of queries.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use tantivy::index::{IndexMeta, SegmentReader};

use crate::analyzer::Analyzer;
use crate::checked::Failures;
use crate::error::RetrievalError;
use crate::files::{lock_for_reading, read_list};
use crate::names::META_FILE;
use crate::schema::{Commit, Fields, PayloadError};
use crate::snapshot::{Check, Snapshot};

/// The last commit of an index.
pub(crate) struct OpenCommit {
    pub(crate) fields: Fields,
    pub(crate) commit: Commit,
    pub(crate) segments: Vec<SegmentReader>,
    pub(crate) snapshot: Snapshot,
}

/// Runs `action` on tantivy. If it read bytes that are damaged or cannot be read, returns that error,
/// whatever tantivy made of it. A panic without such a cause is an error of tantivy.
pub(crate) fn guarded<T>(
    dir: &Path,
    failures: &Failures,
    action: impl FnOnce() -> Result<T, RetrievalError>,
) -> Result<T, RetrievalError> {
    let done = hyperrag_core::guarded(action);
    match (failures.take(), done) {
        (Some(failure), _) => Err(failure),
        (None, Ok(done)) => done,
        (None, Err(what)) => {
            let source = format!("it panicked: {what}").into();
            Err(RetrievalError::Engine { path: dir.to_owned(), source })
        }
    }
}

/// Opens the last commit.
///
/// The files are opened under the lock under which a writer removes replaced files. From then on they
/// stay readable, so the slow work on a large index runs without the lock.
pub(crate) fn open_commit(dir: &Path, check: Check) -> Result<OpenCommit, RetrievalError> {
    let list = dir.join(META_FILE);
    fs::symlink_metadata(&list).map_err(|error| match error.kind() {
        ErrorKind::NotFound => RetrievalError::Missing { path: dir.to_owned() },
        _ => RetrievalError::io(&list, error),
    })?;
    let lock = lock_for_reading(dir)?;
    let snapshot = Snapshot::of_lists(dir)?;
    guarded(dir, &snapshot.failures().clone(), || {
        let tantivy_error = |error| RetrievalError::from_tantivy(dir, error);
        let index = tantivy::Index::open(snapshot.clone()).map_err(tantivy_error)?;
        let meta = index.load_metas().map_err(tantivy_error)?;
        let fields = Fields::of(&meta);
        let commit = check_commit(dir, &meta, &fields)?;
        register_analyzer(&index, fields.analyzer);
        let opening = snapshot.open_files(&meta, check)?;
        drop(lock);

        snapshot.check_files(opening, check)?;
        let open = |segment| SegmentReader::open(&index.segment(segment)).map_err(tantivy_error);
        let segments = meta.segments.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(OpenCommit { fields, commit, segments, snapshot })
    })
}

/// Returns the analyzer of this language by the rules of the index in `dir`, which may be damaged; `None`
/// if there is none or nothing is left of its list. Who makes an index again takes this one, so that it
/// answers as before.
#[must_use]
pub fn recorded_analyzer(dir: &Path, language: Analyzer) -> Option<Analyzer> {
    language.named_in(&read_list(dir, Path::new(META_FILE)).ok()?)
}

pub(crate) fn register_analyzer(index: &tantivy::Index, analyzer: Analyzer) {
    index.tokenizers().register(&analyzer.id(), analyzer.text_analyzer());
}

/// Checks the list of segments against the commit's note. A list that an older version wrote has no
/// checksum.
pub(crate) fn check_commit(
    dir: &Path,
    meta: &IndexMeta,
    fields: &Fields,
) -> Result<Commit, RetrievalError> {
    let damaged = |what: String| RetrievalError::damaged(dir, Some(Path::new(META_FILE)), what);
    let unsupported = |what: String| RetrievalError::Unsupported { path: dir.to_owned(), what };
    let same_fields = meta.schema == fields.schema;
    let read = |payload| Commit::from_payload(payload, fields.analyzer, fields.layout);
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
