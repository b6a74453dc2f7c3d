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

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, StringArray};

    use super::*;
    use crate::columns::Columns;
    use crate::testing::{Elsewhere, Folder, parquet_bytes};

    const ROWS: usize = 2000;
    const GROUP: usize = 250;

    /// Returns bytes that no codec makes shorter than three quarters.
    fn noise(seed: u64, bytes: usize) -> String {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'0' + (state % 64) as u8)
        };
        (0..bytes).map(|_| next()).collect()
    }

    /// Writes eight row groups, of whose columns one large one is no field of a document.
    fn wide(folder: &Folder) -> u64 {
        let column = |seed: u64, bytes| -> ArrayRef {
            let values = (0..ROWS as u64).map(|row| noise(seed + row, bytes));
            Arc::new(StringArray::from_iter_values(values))
        };
        let ids: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| row.to_string())));
        let columns = vec![("id", ids), ("other", column(1 << 40, 900)), ("text", column(1, 100))];
        let bytes = parquet_bytes(columns, GROUP, true);
        folder.write("wide.parquet", &bytes);
        bytes.len() as u64
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    /// Writes some lines that take several ranges.
    fn lines(folder: &Folder) {
        let line =
            |row: u64| format!("{{\"_id\": \"l{row}\", \"text\": \"{}\"}}\n", noise(row, 500));
        let text: String = (0..3000).map(line).collect();
        folder.write("lines.jsonl", text.replace('\\', "/").as_bytes());
        folder.write("more.jsonl.gz", &gzip(&text.replace('\\', "/").replace("\"l", "\"m")));
    }

    #[test]
    fn files_elsewhere_have_the_rows_of_files_here() {
        let folder = Folder::new();
        wide(&folder);
        lines(&folder);
        folder.write("a.tsv", b"t1\tone\nt2\ttwo\n");
        folder.write("empty.jsonl", b"");
        folder.write("x.json", b"{}");
        folder.write("sub/d.jsonl", b"{}");
        let place = Elsewhere::default();
        let names: &[&[&str]] = &[
            &[""],
            &["wide.parquet", "a.tsv"],
            &["more.jsonl.gz", "lines.jsonl", "more.jsonl.gz"],
            &["empty.jsonl", "a.tsv"],
        ];
        for names in names {
            let here = folder.corpus(names, Columns::default()).unwrap();
            let elsewhere = folder.corpus_elsewhere(names, &place).unwrap();
            assert_eq!(elsewhere.size(), here.size());
            assert!(folder.read(&elsewhere) == folder.read(&here), "{names:?}");
            assert_eq!(elsewhere.versions().len(), elsewhere.files().len());
        }
        assert_eq!(folder.corpus_elsewhere(&[""], &place).unwrap().files().len(), 5);
    }

    #[test]
    fn columns_and_row_groups_that_are_not_wanted_are_not_read() {
        let folder = Folder::new();
        let (bytes, place) = (wide(&folder), Elsewhere::default());
        let corpus = folder.corpus_elsewhere(&["wide.parquet"], &place).unwrap();
        assert_eq!(place.take_read(), END, "the footer alone");
        let all: Vec<_> = corpus.rows().map(|row| row.unwrap().document).collect();
        let read = place.take_read();
        assert!(read < bytes / 5, "{read} of {bytes}");
        for (passed, asked) in [(0, 100), (GROUP, 300), (3 * GROUP, 3 * GROUP), (7 * GROUP, 1999)] {
            let mut rows = corpus.rows();
            assert_eq!(rows.pass(asked as u64).unwrap(), passed as u64);
            let next = rows.next().unwrap().unwrap();
            assert_eq!((next.document, next.place.row), (all[passed].clone(), passed as u64 + 1));
            assert_eq!(rows.number(), passed as u64 + 1);
            let group = place.take_read() - END;
            assert!(group < read / 7, "{group} of {read}");
        }
        // From within a row group: its rest goes only as a whole.
        let mut rows = corpus.rows();
        rows.next();
        assert_eq!(rows.pass(GROUP as u64 - 2).unwrap(), 0);
        assert_eq!(rows.pass(2 * GROUP as u64 - 1).unwrap(), 2 * GROUP as u64 - 1);
        assert_eq!(rows.next().unwrap().unwrap().document, all[2 * GROUP]);
        // Whole files are not opened; a text is read from its start.
        folder.write("a.tsv", b"t1\tone\nt2\ttwo\n");
        let corpus = folder.corpus_elsewhere(&["wide.parquet", "a.tsv"], &place).unwrap();
        place.take_read();
        let mut rows = corpus.rows();
        assert_eq!(rows.pass(ROWS as u64 + 1).unwrap(), ROWS as u64);
        assert_eq!(rows.next().unwrap().unwrap().document.id.as_str(), "t1");
        assert_eq!(place.take_read(), 14);
        assert_eq!(corpus.clone().skipping_bad_rows().rows().pass(ROWS as u64).unwrap(), 0);
    }

    /// Bytes that are read to open a Parquet file.
    const END: u64 = 64 << 10;

    #[test]
    fn files_of_one_name_in_two_places_are_two() {
        let folder = Folder::new();
        lines(&folder);
        let place = Elsewhere::default();
        let files = |names: &[&str]| folder.corpus_elsewhere(names, &place).unwrap().files().len();
        assert_eq!(files(&["lines.jsonl", "lines.jsonl"]), 1);
        assert_eq!(files(&["lines.jsonl", "lines.jsonl?place=b", "lines.jsonl?place=b"]), 2);
    }

    #[test]
    fn a_file_that_was_replaced_is_refused() {
        let folder = Folder::new();
        wide(&folder);
        lines(&folder);
        for name in ["wide.parquet", "lines.jsonl", "more.jsonl.gz"] {
            let place = Elsewhere::default();
            let corpus = folder.corpus_elsewhere(&[name], &place).unwrap();
            let mut rows = corpus.rows();
            assert!(rows.next().unwrap().is_ok(), "{name}");
            let url = format!("mem://{}/{name}", folder.path());
            place.versions.lock().unwrap().insert(url.clone(), 1);
            let error = rows.find_map(Result::err).unwrap().to_string();
            assert!(
                error.starts_with(&url) && error.contains("was replaced or removed"),
                "{error}"
            );
            assert!(corpus.rows().next().unwrap().is_err());
            // What is opened anew is the new version.
            assert!(folder.corpus_elsewhere(&[name], &place).is_ok());
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = Folder::new();
        let bytes = parquet_bytes(vec![("id", Arc::new(StringArray::from(vec!["1"])))], 1, false);
        folder.write("cut.parquet", &bytes[..bytes.len() - 3]);
        folder.write("short.parquet", b"PAR1");
        folder.write("none.parquet", b"");
        folder.write("notes/README.md", b"");
        let check = |name: &str, expected: &str| {
            let error = folder.corpus_elsewhere(&[name], &Elsewhere::default()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(
            "missing.jsonl",
            "/missing.jsonl: there is no such object, and none directly below it",
        );
        check("notes/", "/notes/: it holds no .parquet");
        check("notes", "/notes: it holds no .parquet");
        check("notes/README.md", "README.md: not a known kind of file");
        for name in ["cut.parquet", "short.parquet", "none.parquet"] {
            check(name, &format!("{name}: cannot be decoded as Parquet; check"));
        }
        let (columns, options) = (Columns::default(), Default::default());
        let open = |url: &str| {
            let place = Elsewhere::default();
            crate::Corpus::open_anywhere(&[url], columns.clone(), options, Some(&place))
        };
        let error = open("gs://key:secret@bucket/x?y").unwrap_err().to_string();
        assert_eq!(error, "the URL: the place refuses: no mem://");
        folder.write("a.tsv", b"t1\tone\n");
        assert_eq!(open(&format!("file://{}/a.tsv", folder.path())).unwrap().files().len(), 1);
    }
}
