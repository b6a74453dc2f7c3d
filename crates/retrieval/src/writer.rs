//! Adds documents to an index, in commits that survive a crash.
//!
//! In: documents with rows and locations. Out: a folder that [`Index`] opens. It does not
//! know queries.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use hyperrag_core::Document;
use tantivy::TantivyError;
use tantivy::directory::INDEX_WRITER_LOCK;
use tantivy::index::IndexSettings;
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};

use crate::analyzer::Analyzer;
use crate::checked::Failures;
use crate::error::RetrievalError;
use crate::files::lock;
use crate::folder::{BoundedMerges, Folder};
use crate::hit::Location;
use crate::index::Index;
use crate::kept::keep_pages;
use crate::open::{OpenCommit, guarded, open_commit, register_analyzer};
use crate::schema::{Commit, Fields, Layout};
use crate::snapshot::Check;

/// Size of the data that the indexing thread collects before it writes a segment, in bytes.
const MEMORY_BYTES: usize = 50_000_000;

/// Largest size of the text that waits for the indexing thread, in bytes. tantivy itself bounds only
/// the number of waiting documents, at 10,000.
const WAITING_BYTES_MAX: usize = 32_000_000;

/// Adds documents to an index. An index has one writer at a time; readers do not wait for it.
///
/// Committed documents survive whatever happens later; documents added after the last commit are gone
/// with the writer. After an error the writer cannot be used: open another one and continue from
/// [`IndexWriter::indexed_shards`].
pub struct IndexWriter {
    dir: PathBuf,
    fields: Fields,
    /// tantivy's writer; `None` after a failure, because it would take documents and never write them.
    writer: Option<tantivy::IndexWriter>,
    committed: Commit,
    /// Number of documents committed and added.
    documents: u64,
    /// Size of the text added since the last wait for the indexing thread, in bytes.
    waiting_bytes: usize,
    /// Lock of the folder, dropped last.
    _lock: File,
}

impl IndexWriter {
    /// Opens the index in `dir`, or creates folder and index if there is none. An existing index is
    /// checked byte for byte first: a merge would give damaged bytes a checksum of their own. Its language
    /// must be that of `analyzer`, and it keeps the rules for words and the layout that it was created
    /// with.
    ///
    /// # Errors
    /// [`RetrievalError::Locked`] while another writer is open, [`RetrievalError::Damaged`] if bytes
    /// have changed, [`RetrievalError::Unsupported`] for another version's or language's index, and
    /// [`RetrievalError::Io`].
    pub fn open(dir: &Path, analyzer: Analyzer) -> Result<Self, RetrievalError> {
        Ok(Self::open_with_index(dir, analyzer)?.0)
    }

    /// Opens the index as [`IndexWriter::open`] does. Returns its last commit too, open for search, if
    /// there is one: its bytes are checked once for both.
    ///
    /// # Errors
    /// The errors of [`IndexWriter::open`].
    pub fn open_with_index(
        dir: &Path,
        analyzer: Analyzer,
    ) -> Result<(Self, Option<Index>), RetrievalError> {
        let (writer, opened) =
            guarded(dir, &Failures::default(), || Self::open_guarded(dir, analyzer))?;
        Ok((writer, opened.map(|opened| Index::of(dir, opened)).transpose()?))
    }

    fn open_guarded(
        dir: &Path,
        analyzer: Analyzer,
    ) -> Result<(Self, Option<OpenCommit>), RetrievalError> {
        let tantivy_error = |error| RetrievalError::from_tantivy(dir, error);
        if !dir.is_dir() {
            fs::create_dir_all(dir)
                .and_then(|()| File::open(parent(dir))?.sync_all())
                .map_err(|error| RetrievalError::io(dir, error))?;
        }
        let lock = lock(dir, &INDEX_WRITER_LOCK);
        let lock = lock.map_err(|error| RetrievalError::from_lock(dir, error))?;
        let folder = Folder { dir: dir.into() };
        let (index, opened) = match open_commit(dir, Check::All) {
            Ok(opened) if opened.fields.analyzer.name() != analyzer.name() => {
                let language = opened.fields.analyzer;
                let what = format!("its words are cut for language {language}, not {analyzer}");
                return Err(RetrievalError::Unsupported { path: dir.to_owned(), what });
            }
            Ok(opened) => (tantivy::Index::open(folder), Some(opened)),
            Err(RetrievalError::Missing { .. }) => {
                let schema = Fields::new(analyzer, Layout::Columns).schema;
                (tantivy::Index::create(folder, schema, settings()), None)
            }
            Err(error) => return Err(error),
        };
        let (fields, committed) = match &opened {
            Some(opened) => (opened.fields.clone(), opened.commit),
            None => (Fields::new(analyzer, Layout::Columns), Commit::default()),
        };
        let index = index.map_err(tantivy_error)?;
        register_analyzer(&index, fields.analyzer);
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(MEMORY_BYTES)
            .build();
        let writer = index.writer_with_options(options).map_err(tantivy_error)?;
        let (of, policy) = (dir.to_owned(), LogMergePolicy::default());
        writer.set_merge_policy(Box::new(BoundedMerges { dir: of, policy }));
        // Segments of an interrupted writer take space until they are removed.
        writer.garbage_collect_files().wait().map_err(tantivy_error)?;
        let documents = committed.documents;
        let writer = Self {
            dir: dir.to_owned(),
            fields,
            writer: Some(writer),
            committed,
            documents,
            waiting_bytes: 0,
            _lock: lock,
        };
        Ok((writer, opened))
    }

    /// Returns the number that the last commit got: shards 0 to this, exclusive, are in the index.
    #[must_use]
    pub fn indexed_shards(&self) -> u32 {
        self.committed.shards
    }

    /// Adds a document. `row` is its place in the corpus, which breaks ties between equal scores. An id
    /// that is in the index already is added once more. The `location` need not be known yet.
    ///
    /// # Errors
    /// [`RetrievalError::Io`], perhaps of a document added earlier; from then on
    /// [`RetrievalError::Stopped`].
    pub fn add(
        &mut self,
        row: u64,
        document: &Document,
        location: Location,
    ) -> Result<(), RetrievalError> {
        let encoded = self.fields.encode(row, document, location);
        self.attempt(|writer| writer.add_document(encoded))?;
        self.documents += 1;
        self.waiting_bytes += document.title.len() + document.text.len();
        if self.waiting_bytes > WAITING_BYTES_MAX {
            // A commit that is prepared and not carried out only waits until all documents are in
            // segments.
            self.attempt(|writer| writer.prepare_commit().map(drop))?;
            self.waiting_bytes = 0;
        }
        Ok(())
    }

    /// Makes the added documents durable, and visible to readers that open the index from now on. Notes
    /// that shards 0 to `shards`, exclusive, are in it.
    ///
    /// # Errors
    /// [`RetrievalError::Io`]; from then on [`RetrievalError::Stopped`].
    pub fn commit(&mut self, shards: u32) -> Result<(), RetrievalError> {
        let commit = Commit { shards, documents: self.documents };
        let payload = commit.to_payload(self.fields.analyzer, self.fields.layout);
        self.attempt(|writer| {
            let mut prepared = writer.prepare_commit()?;
            prepared.set_payload(&payload);
            prepared.commit()
        })?;
        if let Some(writer) = &self.writer {
            self.keep_pages(writer.index())?;
        }
        self.committed = commit;
        self.waiting_bytes = 0;
        Ok(())
    }

    /// Commits, and waits until small segments are merged.
    ///
    /// # Errors
    /// The errors of [`IndexWriter::commit`].
    pub fn finish(mut self, shards: u32) -> Result<(), RetrievalError> {
        self.commit(shards)?;
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let index = writer.index().clone();
        writer
            .wait_merging_threads()
            .map_err(|error| RetrievalError::from_tantivy(&self.dir, error))?;
        self.keep_pages(&index)
    }

    /// Keeps the pages of new segments beside them, and syncs the folder. tantivy syncs it before it
    /// puts a commit in place, and not after.
    fn keep_pages(&self, index: &tantivy::Index) -> Result<(), RetrievalError> {
        let metas = index.load_metas();
        keep_pages(&self.dir, &metas.map_err(|e| RetrievalError::from_tantivy(&self.dir, e))?)?;
        let synced = File::open(&self.dir).and_then(|folder| folder.sync_all());
        synced.map_err(|error| RetrievalError::io(&self.dir, error))
    }

    fn attempt<T>(
        &mut self,
        action: impl FnOnce(&mut tantivy::IndexWriter) -> Result<T, TantivyError>,
    ) -> Result<T, RetrievalError> {
        let Some(writer) = &mut self.writer else {
            return Err(RetrievalError::Stopped { path: self.dir.clone() });
        };
        match action(writer) {
            Ok(value) => Ok(value),
            Err(error) => {
                let cause = thread_error(writer, error);
                self.writer = None;
                Err(RetrievalError::from_tantivy(&self.dir, cause))
            }
        }
    }
}

/// Returns the folder that contains `dir`.
fn parent(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Returns settings by which the indexing thread compresses stored text. From a thread of its own, a
/// full disk would come back as a mere sentence and not as an [`std::io::Error`].
fn settings() -> IndexSettings {
    IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() }
}

/// Finds out why the indexing thread has ended: adding a document only reports that it has, the next
/// commit reports the reason.
fn thread_error(writer: &mut tantivy::IndexWriter, error: TantivyError) -> TantivyError {
    match error {
        TantivyError::ErrorInThread(_) => writer.prepare_commit().err().unwrap_or(error),
        error => error,
    }
}
