//! Opens the texts of a corpus: a file or a pipe comes in, a reader of its text goes out, decompressed. What
//! came through a pipe is kept in a temporary file, since a corpus is read more than once. A file outside this
//! machine is read by ranges, each time anew. Knows no format.

use std::fs::File;
use std::io::{self, BufRead, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyperrag_core::{FileVersion, RangeRead};
use hyperrag_files::compressed::Decompressed;
use hyperrag_files::lines::BYTE_ORDER_MARK;

use crate::error::CorpusError;
use crate::limits::Limits;
use crate::place::Place;
use crate::ranges::{FromStart, RangeFile, range_error, unread};

/// Bytes of a text that are looked at to tell what it is.
const HEAD_BYTES: u64 = 1 << 14;

/// Origin of a text that can be read as often as needed.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// File as the user named it, or `stdin`.
    pub(crate) name: Arc<Path>,
    /// Size as it is stored, in bytes.
    pub(crate) bytes: u64,
    kept: Kept,
}

/// Place of a text's bytes.
#[derive(Clone, Debug)]
enum Kept {
    /// The file of the source's name.
    Named,
    /// Copy of what a pipe held. The file has no name, so nothing is left of it when the program ends.
    Copy(Arc<File>),
    /// A file outside this machine.
    Elsewhere(Arc<dyn RangeRead>),
}

impl Source {
    /// Takes a file, which is opened anew for each reading.
    pub(crate) fn of_file(name: &Path, bytes: u64) -> Self {
        Self { name: name.into(), bytes, kept: Kept::Named }
    }

    /// Takes a file outside this machine.
    pub(crate) fn elsewhere(file: Arc<dyn RangeRead>) -> Self {
        let FileVersion { name, bytes, .. } = file.version();
        Self { name: Path::new(name).into(), bytes: *bytes, kept: Kept::Elsewhere(file) }
    }

    /// Returns the version of a file outside this machine; `None` for others.
    pub(crate) fn version(&self) -> Option<&FileVersion> {
        match &self.kept {
            Kept::Elsewhere(file) => Some(file.version()),
            Kept::Named | Kept::Copy(_) => None,
        }
    }

    /// Checks that the file has not become shorter since it was found: its last rows would be missing.
    pub(crate) fn check_length(&self) -> Result<(), CorpusError> {
        let now = match (&self.kept, self.name.metadata()) {
            (Kept::Named, Ok(found)) => found.len(),
            _ => return Ok(()),
        };
        let (path, before) = (self.name.to_path_buf(), self.bytes);
        if now < before { Err(CorpusError::Cut { path, before, now }) } else { Ok(()) }
    }

    /// Copies what is left in a pipe to a temporary file.
    pub(crate) fn of_pipe(name: &Path, mut pipe: impl Read) -> Result<Self, CorpusError> {
        let folder = std::env::temp_dir();
        let failed = |source| {
            let (name, folder) = (name.to_path_buf(), folder.clone());
            CorpusError::Copy { name, folder, source }
        };
        let mut copy = tempfile::tempfile_in(&folder).map_err(failed)?;
        let bytes = io::copy(&mut pipe, &mut copy).map_err(failed)?;
        Ok(Self { name: name.into(), bytes, kept: Kept::Copy(Arc::new(copy)) })
    }

    /// Whether it came through a pipe.
    pub(crate) fn is_copy(&self) -> bool {
        matches!(self.kept, Kept::Copy(_))
    }

    /// Opens the file to read ranges of it. That is no way to read a copy.
    pub(crate) fn open_ranges(&self) -> Result<RangeFile, CorpusError> {
        match &self.kept {
            Kept::Elsewhere(file) => RangeFile::elsewhere(&self.name, file),
            Kept::Named | Kept::Copy(_) => RangeFile::here(&self.name),
        }
    }

    /// Opens the text at its start, decompressed.
    pub(crate) fn open(&self, limits: &Limits) -> Result<Text, CorpusError> {
        let place = Place::line(&self.name, 1);
        let io = |error| unreadable(error, place.clone(), false);
        let read = Arc::new(AtomicU64::new(0));
        let file: Box<dyn Read + Send> = match &self.kept {
            Kept::Named => Box::new(File::open(&self.name).map_err(io)?),
            Kept::Copy(copy) => Box::new(Copied { file: Arc::clone(copy), at: 0 }),
            Kept::Elsewhere(file) => Box::new(FromStart::new(file)),
        };
        let file = Counted { file, read: Arc::clone(&read) };
        let mut decoded = Decompressed::new(file, limits.window_log()).map_err(io)?;
        let compressed = decoded.is_compressed().then_some(read);
        let first = head(&mut decoded, HEAD_BYTES)
            .map_err(|error| unreadable(error, place, compressed.is_some()))?;
        let reader = Cursor::new(first.clone()).chain(decoded);
        Ok(Text { reader: Box::new(reader), head: first, name: Arc::clone(&self.name), compressed })
    }
}

/// Reads up to `bytes` bytes, fewer only at the end.
fn head(reader: &mut impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(bytes).read_to_end(&mut head)?;
    Ok(head)
}

/// Reader of a text from its start.
pub(crate) struct Text {
    reader: Box<dyn BufRead + Send>,
    /// The first bytes.
    head: Vec<u8>,
    name: Arc<Path>,
    /// Bytes read of the file, if it is compressed.
    compressed: Option<Arc<AtomicU64>>,
}

impl Text {
    /// Returns the first bytes of the text, all of them if it is short.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Returns the place of line `number`.
    pub(crate) fn line(&self, number: u64) -> Place {
        Place::line(&self.name, number)
    }

    /// Returns the place of row `number`.
    pub(crate) fn row(&self, number: u64) -> Place {
        Place::row(&self.name, number)
    }

    /// Returns the bytes of the file that were read since the last call, if `bytes` of its text were.
    pub(crate) fn stored_bytes(&self, bytes: u64) -> u64 {
        self.compressed.as_ref().map_or(bytes, |read| read.swap(0, Ordering::Relaxed))
    }

    /// Returns the error for a text that cannot be read at `place`.
    pub(crate) fn unreadable(&self, error: io::Error, place: Place) -> CorpusError {
        unreadable(error, place, self.compressed.is_some())
    }

    /// Leaves out a byte order mark at the start, and returns its bytes.
    pub(crate) fn skip_mark(&mut self) -> io::Result<u64> {
        let marked = self.fill_buf()?.starts_with(BYTE_ORDER_MARK.as_bytes());
        let bytes = if marked { BYTE_ORDER_MARK.len() } else { 0 };
        self.consume(bytes);
        Ok(bytes as u64)
    }
}

fn unreadable(source: io::Error, place: Place, is_compressed: bool) -> CorpusError {
    if let Some(error) = range_error(&source) {
        return unread(&place.file, error);
    }
    // What a decoder finds has no number of the system.
    if !is_compressed || source.raw_os_error().is_some() {
        return CorpusError::Io { path: PathBuf::from(&*place.file), source };
    }
    match source.to_string().contains("too much memory") {
        true => CorpusError::Window { path: PathBuf::from(&*place.file) },
        false => CorpusError::Decompress { place, source },
    }
}

impl Read for Text {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl BufRead for Text {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
    }
}

/// A file that counts what is read of it.
struct Counted {
    file: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// A file that several readers share, each with a position of its own.
struct Copied {
    file: Arc<File>,
    at: u64,
}

impl Read for Copied {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read_at(buffer, self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}
