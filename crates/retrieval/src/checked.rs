//! A file of a segment, every byte of which is checked before it is used.
//!
//! In: the name of a file, and the pages kept of it, if any. Out: a handle from which tantivy reads.
//! Files that tantivy reads whole when it opens a segment are read once, checked, and kept in memory;
//! so are small files, which then need no descriptor. Pages of postings and stored texts are read and
//! checked each time they are needed: a change of the file meanwhile causes an error, never another
//! hit.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};

use tantivy::HasLen;
use tantivy::directory::{FileHandle, OwnedBytes};

use crate::error::RetrievalError;
use crate::files::open_existing;
use crate::pages::{Pages, READ_BYTES};

/// Size above which a file is read page by page, in bytes.
const HELD_BYTES_MAX: usize = 128 << 10;

/// An opened file. It stays readable, whatever happens to its name.
pub(crate) struct OpenFile {
    dir: PathBuf,
    name: PathBuf,
    file: File,
    bytes: usize,
    /// Checksums kept beside the segment.
    kept: Option<Pages>,
}

/// A file whose bytes are checked.
#[derive(Debug)]
pub(crate) struct CheckedFile {
    dir: PathBuf,
    name: PathBuf,
    pages: Pages,
    content: Content,
    failures: Failures,
}

#[derive(Debug)]
enum Content {
    Held(OwnedBytes),
    Read(File),
}

/// Errors of reads that tantivy requested: the first of each thread since the last request, because
/// tantivy does not pass on every error.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures(Arc<Mutex<Vec<(ThreadId, RetrievalError)>>>);

impl Failures {
    fn note(&self, error: RetrievalError) {
        let thread = thread::current().id();
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.iter().all(|(other, _)| *other != thread) {
            noted.push((thread, error));
        }
    }

    /// Removes and returns the first failure of this thread.
    pub(crate) fn take(&self) -> Option<RetrievalError> {
        let thread = thread::current().id();
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = noted.iter().position(|(other, _)| *other == thread)?;
        Some(noted.swap_remove(place).1)
    }
}

impl OpenFile {
    /// Opens a file of the index in `dir`; `None` if there is none.
    pub(crate) fn open(
        dir: &Path,
        name: &Path,
        kept: Option<Pages>,
    ) -> Result<Option<Self>, RetrievalError> {
        let opened = open_existing(&dir.join(name)).and_then(|file| {
            let Some(file) = file else { return Ok(None) };
            let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
            Ok(Some((file, bytes)))
        });
        let opened = opened.map_err(|error| RetrievalError::read(dir, name, error))?;
        let Some((file, bytes)) = opened else { return Ok(None) };
        let (dir, name) = (dir.to_owned(), name.to_owned());
        Ok(Some(Self { dir, name, file, bytes, kept }))
    }

    /// Whether the file will be read again, as only long postings and stored texts are.
    pub(crate) fn is_paged(&self) -> bool {
        let by_parts = self.name.extension().is_some_and(|kind| kind == "idx" || kind == "store");
        by_parts && self.bytes > HELD_BYTES_MAX
    }

    /// Reads and checks the whole file.
    pub(crate) fn into_pages(self) -> Result<Pages, RetrievalError> {
        let pages = Pages::of(&self.file, self.bytes);
        pages.map_err(|error| RetrievalError::read(&self.dir, &self.name, error))
    }

    /// Checks all bytes before the first use. If the pages are known and will be checked one by one,
    /// checks only the length.
    pub(crate) fn check(self, failures: &Failures) -> Result<CheckedFile, RetrievalError> {
        let is_paged = self.is_paged();
        let Self { dir, name, file, bytes, kept } = self;
        let failed = |error| RetrievalError::read(&dir, &name, error);
        let pages = match kept {
            Some(pages) if pages.bytes() != bytes => {
                let what = format!("it has {bytes} bytes, written were {}", pages.bytes());
                return Err(RetrievalError::damaged(&dir, Some(&name), what));
            }
            Some(pages) => pages,
            None => Pages::of(&file, bytes).map_err(failed)?,
        };
        let content = match is_paged {
            true => Content::Read(file),
            false => {
                let (_, held) = pages.read(&file, &(0..bytes)).map_err(failed)?;
                Content::Held(OwnedBytes::new(held))
            }
        };
        Ok(CheckedFile { dir, name, pages, content, failures: failures.clone() })
    }
}

impl CheckedFile {
    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Returns all bytes, part by part.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Result<OwnedBytes, RetrievalError>> + '_ {
        (0..self.len()).step_by(READ_BYTES).map(|start| {
            let part = self.read(start..(start + READ_BYTES).min(self.len()));
            part.map_err(|error| RetrievalError::read(&self.dir, &self.name, error))
        })
    }

    fn read(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        let file = match &self.content {
            Content::Held(bytes) => return Ok(bytes.slice(range)),
            Content::Read(file) => file,
        };
        let (first, bytes) = self.pages.read(file, &range)?;
        Ok(OwnedBytes::new(bytes).slice(range.start - first..range.end - first))
    }
}

impl FileHandle for CheckedFile {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        self.read(range).map_err(|error| {
            let (kind, what) = (error.kind(), error.to_string());
            self.failures.note(RetrievalError::read(&self.dir, &self.name, error));
            io::Error::new(kind, what)
        })
    }
}

impl HasLen for CheckedFile {
    fn len(&self) -> usize {
        self.pages.bytes()
    }
}
