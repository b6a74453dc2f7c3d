//! Files that are read by ranges, here or outside this machine. In: a file. Out: a file of this machine in which
//! the asked ranges are, or the bytes from the start on. Knows no format.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hyperrag_core::{RangeError, RangeRead};

use crate::error::CorpusError;

/// Largest range that is asked for at one time, in bytes: it is held in memory.
const PIECE_BYTES: u64 = 8 << 20;
/// First range that is asked for of a text, in bytes. Often no more than its first lines are wanted.
const FIRST_BYTES: u64 = 64 << 10;

/// A file whose ranges are read in any order.
///
/// A file outside this machine has a stand-in here: a file without a name, of the same length, that has the ranges
/// asked for last and holes elsewhere. So one decoder reads both.
pub(crate) struct RangeFile {
    /// Name as messages show it.
    pub(crate) path: Arc<Path>,
    /// The file, or its stand-in.
    pub(crate) held: File,
    /// Size of the whole file, in bytes.
    pub(crate) bytes: u64,
    /// The file outside this machine, if it is one.
    elsewhere: Option<Arc<dyn RangeRead>>,
}

impl RangeFile {
    /// Opens a file of this machine.
    pub(crate) fn here(path: &Arc<Path>) -> Result<Self, CorpusError> {
        let io = |source| CorpusError::Io { path: path.to_path_buf(), source };
        let held = File::open(path).map_err(io)?;
        let bytes = held.metadata().map_err(io)?.len();
        Ok(Self { path: Arc::clone(path), held, bytes, elsewhere: None })
    }

    /// Takes a file outside this machine. Nothing of it is read.
    pub(crate) fn elsewhere(
        path: &Arc<Path>,
        file: &Arc<dyn RangeRead>,
    ) -> Result<Self, CorpusError> {
        let bytes = file.version().bytes;
        let held = stand_in(path, bytes)?;
        Ok(Self { path: Arc::clone(path), held, bytes, elsewhere: Some(Arc::clone(file)) })
    }

    /// Makes ranges readable, and those asked for before no longer. A file of this machine has all of them.
    pub(crate) fn hold(&mut self, ranges: &[Range<u64>]) -> Result<(), CorpusError> {
        let Some(file) = &self.elsewhere else { return Ok(()) };
        // The former ones would stay on the disk otherwise.
        let held = stand_in(&self.path, self.bytes)?;
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(at + PIECE_BYTES);
                let piece = file.read(at..end).map_err(|source| unread(&self.path, source))?;
                held.write_all_at(&piece, at).map_err(|source| no_copy(&self.path, source))?;
                at = end;
            }
        }
        self.held = held;
        Ok(())
    }

    /// Makes the last bytes of the file readable.
    pub(crate) fn hold_end(&mut self, bytes: u64) -> Result<(), CorpusError> {
        let end = self.bytes.saturating_sub(bytes)..self.bytes;
        self.hold(&[end])
    }

    /// Whether its ranges have to be fetched.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.elsewhere.is_some()
    }
}

/// Makes a file without a name that is one hole.
fn stand_in(path: &Path, bytes: u64) -> Result<File, CorpusError> {
    let made = tempfile::tempfile_in(std::env::temp_dir());
    let made = made.and_then(|file| file.set_len(bytes).map(|()| file));
    made.map_err(|source| no_copy(path, source))
}

fn no_copy(name: &Path, source: io::Error) -> CorpusError {
    CorpusError::Copy { name: name.to_path_buf(), folder: std::env::temp_dir(), source }
}

/// Returns the error of a file outside this machine.
pub(crate) fn unread(path: &Path, source: RangeError) -> CorpusError {
    match source {
        RangeError::Changed => CorpusError::Replaced { path: path.to_path_buf() },
        RangeError::Place(source) => {
            CorpusError::Elsewhere { name: path.display().to_string(), source }
        }
    }
}

/// Reader of a file outside this machine, from its start on. It asks for ranges that grow, each whole, so that no
/// connection stays open while their text is worked on.
pub(crate) struct FromStart {
    file: Arc<dyn RangeRead>,
    /// End of the ranges that were read.
    at: u64,
    next_bytes: u64,
    piece: Bytes,
}

impl FromStart {
    pub(crate) fn new(file: &Arc<dyn RangeRead>) -> Self {
        Self { file: Arc::clone(file), at: 0, next_bytes: FIRST_BYTES, piece: Bytes::new() }
    }
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            let end = self.file.version().bytes.min(self.at + self.next_bytes);
            if self.at == end {
                return Ok(0);
            }
            self.piece = self.file.read(self.at..end).map_err(io::Error::other)?;
            self.at = end;
            self.next_bytes = PIECE_BYTES.min(self.next_bytes * 2);
        }
        let bytes = self.piece.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&self.piece.split_to(bytes));
        Ok(bytes)
    }
}

/// Returns the reason why a range was not read, if the error of a reader is that.
pub(crate) fn range_error(error: &io::Error) -> Option<RangeError> {
    error.get_ref()?.downcast_ref().cloned()
}
