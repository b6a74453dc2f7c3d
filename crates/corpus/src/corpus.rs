//! Reads a corpus row by row: paths and column names come in, documents with their places go out. Keeps the
//! hashes of ids to find duplicates. Knows neither chunks nor the store.

use std::collections::HashSet;
use std::iter::FusedIterator;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyperrag_core::{Digest, DocId, FileVersion, RangePlace, Warning};

use crate::bad_rows::BadRows;
use crate::columns::Columns;
use crate::error::CorpusError;
use crate::format::{Format, Quoting};
use crate::ids::IdSet;
use crate::input::{self, Input, Resolved};
use crate::json::JsonRows;
use crate::options::ReadOptions;
use crate::parquet::ParquetRows;
use crate::place::Place;
use crate::row::Row;
use crate::table::TableRows;
use crate::taken::ColumnsTaken;

/// Documents of some files, in the order of the files and of their rows.
///
/// The files must not change while it is in use, because each iterator reads them anew.
#[derive(Clone, Debug)]
pub struct Corpus {
    inputs: Arc<[Input]>,
    files: Vec<PathBuf>,
    columns: Columns,
    options: ReadOptions,
    warnings: Arc<[Warning]>,
    /// Documents that count; `None` if all do.
    only: Option<Arc<HashSet<DocId>>>,
    /// Whether rows that cannot be read are left out.
    skip: bool,
}

/// Largest number of rows, and of their bytes, that are read after one that cannot be read.
const READ_ON_ROWS: u64 = 100_000;
const READ_ON_BYTES: u64 = 64 << 20;

/// Amount of data to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorpusSize {
    /// Bytes of all files.
    pub bytes: u64,
    /// Number of rows, known if all files are Parquet and all documents count.
    pub rows: Option<u64>,
}

impl Corpus {
    /// Finds the files and checks what can be checked before a row is read: the files exist, can be opened
    /// and are of a known kind, and Parquet files have the columns.
    ///
    /// An input is a file, a pipe, a folder (its own files, sorted by name, without `.json`), a pattern such
    /// as `data/**/*.parquet`, or `-` for stdin. A file that is named twice is read once. Pipes are read to
    /// their ends here, into a temporary file.
    ///
    /// # Errors
    /// [`CorpusError`] with the input and its fault.
    pub fn open(inputs: &[impl AsRef<Path>], columns: Columns) -> Result<Self, CorpusError> {
        Self::open_with(inputs, columns, ReadOptions::default())
    }

    /// Opens a corpus like [`Corpus::open`], with other options than the usual ones.
    ///
    /// # Errors
    /// [`CorpusError`] with the input and its fault.
    pub fn open_with(
        inputs: &[impl AsRef<Path>],
        columns: Columns,
        options: ReadOptions,
    ) -> Result<Self, CorpusError> {
        Self::open_anywhere(inputs, columns, options, None)
    }

    /// Opens a corpus like [`Corpus::open_with`], of which some inputs are URLs of files, or of folders, outside
    /// this machine. These are found in `place`. A URL of `file://` is a path.
    ///
    /// # Errors
    /// [`CorpusError`] with the input and its fault.
    pub fn open_anywhere(
        inputs: &[impl AsRef<Path>],
        columns: Columns,
        options: ReadOptions,
        place: Option<&dyn RangePlace>,
    ) -> Result<Self, CorpusError> {
        let Resolved { inputs, warnings } = input::resolve(inputs, &columns, &options, place)?;
        let files = inputs.iter().map(|input| input.source.name.to_path_buf()).collect();
        let (inputs, warnings) = (inputs.into(), warnings.into());
        Ok(Self { inputs, files, columns, options, warnings, only: None, skip: false })
    }

    /// Lists what the user should know about the files before they are read.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Restricts the corpus to these documents. Other rows are read and checked, then left out.
    #[must_use]
    pub fn only(self, documents: HashSet<DocId>) -> Self {
        Self { only: Some(Arc::new(documents)), ..self }
    }

    /// Lifts the restriction to some documents.
    #[must_use]
    pub fn with_all(self) -> Self {
        Self { only: None, ..self }
    }

    /// Lists the files, in the order in which they are read.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Lists the versions of the files outside this machine, in the order in which they are read.
    #[must_use]
    pub fn versions(&self) -> Vec<FileVersion> {
        self.inputs.iter().filter_map(|input| input.source.version().cloned()).collect()
    }

    /// Returns a digest of the settings that decide which rows the files have: two corpora of the same files with
    /// the same digest have the same rows.
    #[must_use]
    pub fn reading(&self) -> Digest {
        let ReadOptions { limits, quoting, format, tsv_by_default } = self.options;
        // Whether a row is too long matters where such rows are left out.
        let limits = self.skip.then_some(limits);
        let settings = format!(
            "{:?} {limits:?} {quoting:?} {format:?} {tsv_by_default} {}",
            self.columns, self.skip
        );
        let mut hasher = blake3::Hasher::new();
        hasher.update(settings.as_bytes());
        if let Some(only) = &self.only {
            let mut only: Vec<&str> = only.iter().map(DocId::as_str).collect();
            only.sort_unstable();
            for id in only {
                hasher.update(&(id.len() as u64).to_le_bytes()).update(id.as_bytes());
            }
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// Amount of data to read.
    #[must_use]
    pub fn size(&self) -> CorpusSize {
        let bytes = self.inputs.iter().map(|input| input.source.bytes).sum();
        let rows = self.inputs.iter().try_fold(0_u64, |sum, input| sum.checked_add(input.rows?));
        CorpusSize { bytes, rows: rows.filter(|_| self.only.is_none()) }
    }

    /// Leaves out rows that cannot be read ([`CorpusError::is_of_row`]), instead of ending with the first.
    #[must_use]
    pub fn skipping_bad_rows(self) -> Self {
        Self { skip: true, ..self }
    }

    /// Tells the columns that the documents are read from; `None` if no file has a row that tells them. Of a
    /// file of lines the first are read.
    #[must_use]
    pub fn columns_taken(&self) -> Option<ColumnsTaken> {
        let mut all: Option<ColumnsTaken> = None;
        for input in self.inputs.iter() {
            let Some(taken) = self.taken_from(input) else { continue };
            match &mut all {
                Some(all) => all.add(&input.source.name, taken),
                all => *all = Some(taken),
            }
        }
        all
    }

    fn taken_from(&self, input: &Input) -> Option<ColumnsTaken> {
        // Rows that cannot be read are told of where they are read.
        match self.records().open(input).ok()? {
            CorpusReader::Parquet(_) => input.taken.clone(),
            CorpusReader::Json(rows) => rows.columns_taken(),
            CorpusReader::Table(rows) => rows.columns_taken(),
        }
    }

    /// Iterates over all rows from the first on. Ids are checked to be unique.
    #[must_use]
    pub fn rows(&self) -> Rows {
        Rows {
            records: self.records(),
            corpus: self.clone(),
            seen: IdSet::default(),
            rows: 0,
            bytes: 0,
            bad: BadRows::default(),
            done: false,
        }
    }

    /// Finds the first place of an id among the first `before_row` rows of the corpus, counted over all
    /// files. It reads from the start, and so confirms what an [`IdSet`] suspects.
    ///
    /// # Errors
    /// [`CorpusError`] if a row before that place cannot be read.
    pub fn first_place_of(
        &self,
        id: &DocId,
        before_row: u64,
    ) -> Result<Option<Place>, CorpusError> {
        let mut records = self.records();
        for _ in 0..before_row {
            match records.next_row() {
                Ok(Some(row)) if row.document.id == *id => return Ok(Some(row.place)),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) if error.is_of_row() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn records(&self) -> Records {
        Records {
            inputs: Arc::clone(&self.inputs),
            columns: self.columns.clone(),
            options: self.options,
            next_input: 0,
            current: None,
            lossy: 0,
        }
    }
}

/// Iterator over the rows of a corpus. It ends after the first error.
pub struct Rows {
    corpus: Corpus,
    records: Records,
    seen: IdSet,
    /// Number of rows read, those left out and those with faults included.
    rows: u64,
    /// Bytes of the rows left out since the last row returned.
    bytes: u64,
    /// Rows that were left out because they cannot be read.
    bad: BadRows,
    done: bool,
}

impl Rows {
    /// Returns the number of rows so far in whose title or text half a surrogate pair was replaced by U+FFFD.
    #[must_use]
    pub fn lossy(&self) -> u64 {
        self.records.lossy + self.records.current.as_ref().map_or(0, CorpusReader::lossy)
    }

    /// Returns the number of rows so far, those left out included.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.rows
    }

    /// Returns the rows so far that were left out because they cannot be read.
    #[must_use]
    pub fn bad_rows(&self) -> &BadRows {
        &self.bad
    }

    /// Returns the rows that were left out because they cannot be read.
    #[must_use]
    pub fn into_bad_rows(self) -> BadRows {
        self.bad
    }

    /// Passes over some of the next `rows` rows without reading them, and returns how many: whole Parquet files
    /// and row groups of them. Their ids are not compared with others. Where rows are left out, none is passed.
    ///
    /// # Errors
    /// [`CorpusError`] if a file cannot be opened.
    pub fn pass(&mut self, rows: u64) -> Result<u64, CorpusError> {
        if self.done || self.corpus.skip || self.corpus.only.is_some() {
            return Ok(0);
        }
        let passed = self.records.pass(rows)?;
        self.rows += passed;
        Ok(passed)
    }

    fn next_row(&mut self) -> Result<Option<Row>, CorpusError> {
        while let Some(mut row) = self.next_record()? {
            let id = &row.document.id;
            if self.corpus.only.as_ref().is_none_or(|only| only.contains(id)) {
                row.bytes += std::mem::take(&mut self.bytes);
                return Ok(Some(row));
            }
            self.bytes += row.bytes;
        }
        Ok(None)
    }

    fn next_record(&mut self) -> Result<Option<Row>, CorpusError> {
        let row = loop {
            match self.records.next_row() {
                Ok(Some(row)) => break row,
                Ok(None) => return Ok(None),
                Err(error) if self.corpus.skip && error.is_of_row() => {
                    self.rows += 1;
                    self.bad.add(error);
                }
                Err(error) if error.is_of_row() => return Err(self.records.bad_rows_from(error)),
                Err(error) => return Err(error),
            }
        };
        let id = &row.document.id;
        if !self.seen.insert(id)
            && let Some(first) = self.corpus.first_place_of(id, self.rows)?
        {
            return Err(CorpusError::DuplicateId { id: id.clone(), first, second: row.place });
        }
        self.rows += 1;
        Ok(Some(row))
    }
}

impl Iterator for Rows {
    type Item = Result<Row, CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.next_row().transpose();
        self.done = !matches!(row, Some(Ok(_)));
        row
    }
}

impl FusedIterator for Rows {}

/// Rows of all files. Their ids are not compared.
struct Records {
    inputs: Arc<[Input]>,
    columns: Columns,
    options: ReadOptions,
    next_input: usize,
    current: Option<CorpusReader>,
    /// Number of lossy rows in the files before the current one.
    lossy: u64,
}

/// Reader of one file, by its format.
enum CorpusReader {
    Parquet(Box<ParquetRows>),
    Json(JsonRows),
    Table(TableRows),
}

impl Records {
    fn next_row(&mut self) -> Result<Option<Row>, CorpusError> {
        loop {
            if let Some(reader) = &mut self.current
                && let Some(row) = reader.next_row()?
            {
                return Ok(Some(row));
            }
            self.close()?;
            if !self.open_next()? {
                return Ok(None);
            }
        }
    }

    /// Ends with the current file.
    fn close(&mut self) -> Result<(), CorpusError> {
        if let Some(reader) = self.current.take() {
            self.lossy += reader.lossy();
            self.inputs[self.next_input - 1].source.check_length()?;
        }
        Ok(())
    }

    /// Opens the next file. `false` if there is none.
    fn open_next(&mut self) -> Result<bool, CorpusError> {
        let Some(input) = self.inputs.get(self.next_input) else { return Ok(false) };
        self.current = Some(self.open(input)?);
        self.next_input += 1;
        Ok(true)
    }

    /// Passes over some of the next `rows` rows and returns how many: files and row groups that are among them
    /// as a whole, up to the first that is not.
    fn pass(&mut self, rows: u64) -> Result<u64, CorpusError> {
        let mut left = rows;
        loop {
            if let Some(reader) = &mut self.current {
                let CorpusReader::Parquet(reader) = reader else { break };
                left -= reader.pass_groups(left);
                if !reader.is_at_end() {
                    break;
                }
                self.close()?;
            }
            while let Some(rows) = self.inputs.get(self.next_input).and_then(|input| input.rows)
                && rows <= left
            {
                left -= rows;
                self.next_input += 1;
            }
            let next = self.inputs.get(self.next_input);
            // A file that does not tell its rows is read from its start.
            if left == 0 || next.is_none_or(|input| input.rows.is_none()) || !self.open_next()? {
                break;
            }
        }
        Ok(rows - left)
    }

    /// Reads on to the end of the file, or so far that it takes no long time, and returns an error that names
    /// the rows that cannot be read.
    fn bad_rows_from(&mut self, first: CorpusError) -> CorpusError {
        let mut bad = BadRows::default();
        let (mut rows, mut bytes, mut is_all) = (0, 0, false);
        while let Some(reader) = &mut self.current
            && rows < READ_ON_ROWS
            && bytes < READ_ON_BYTES
        {
            rows += 1;
            match reader.next_row() {
                Ok(Some(row)) => bytes += row.bytes,
                Ok(None) => {
                    is_all = true;
                    break;
                }
                Err(error) if error.is_of_row() => bad.add(error),
                Err(_) => break,
            }
        }
        bad.after(first, is_all)
    }

    fn open(&self, input: &Input) -> Result<CorpusReader, CorpusError> {
        let (columns, limits) = (&self.columns, &self.options.limits);
        if input.format == Format::Parquet {
            let rows = ParquetRows::open(input.source.open_ranges()?, columns, limits)?;
            return Ok(CorpusReader::Parquet(Box::new(rows)));
        }
        let text = input.source.open(limits)?;
        Ok(match (input.format, self.options.quoting) {
            (Format::Csv, _) => {
                CorpusReader::Table(TableRows::quoted(text, b',', columns, limits)?)
            }
            (Format::Tsv, Quoting::Csv) => {
                CorpusReader::Table(TableRows::quoted(text, b'\t', columns, limits)?)
            }
            (Format::Tsv, _) => CorpusReader::Table(TableRows::plain(text, columns, limits)),
            _ => CorpusReader::Json(JsonRows::new(text, columns, limits)?),
        })
    }
}

impl CorpusReader {
    fn next_row(&mut self) -> Result<Option<Row>, CorpusError> {
        match self {
            Self::Parquet(rows) => rows.next_row(),
            Self::Json(rows) => rows.next_row(),
            Self::Table(rows) => rows.next_row(),
        }
    }

    /// Returns the number of rows in which half a surrogate pair was replaced.
    fn lossy(&self) -> u64 {
        match self {
            Self::Json(rows) => rows.lossy(),
            Self::Parquet(_) | Self::Table(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::columns::RowKind;
    use crate::ids;
    use crate::testing::{Folder, parquet_bytes, strings};

    /// Makes a folder with one file of each kind, each with its own documents.
    fn mixed() -> Folder {
        let folder = Folder::new();
        folder.write(
            "a.jsonl",
            b"{\"_id\":\"a1\",\"title\":\"A\",\"text\":\"x\"}\n\n{\"id\":2,\"text\":\"y\"}",
        );
        folder.write("b.tsv", b"\n\nb1\ttext\nb2\tmore\n");
        let id = strings(&[Some("c1"), Some("c2")]);
        folder.write(
            "c.parquet",
            &parquet_bytes(vec![("id", Arc::clone(&id)), ("text", id)], 1, true),
        );
        folder.write("empty.jsonl", b"");
        folder
    }

    #[test]
    fn files_of_all_kinds_are_read_in_order() {
        let folder = mixed();
        let read = |inputs: &[&str]| {
            folder.read(&folder.corpus(inputs, Columns::default()).unwrap()).join(" ")
        };
        assert_eq!(read(&[""]), "a1/A/x 2//y b1//text b2//more c1//c1 c2//c2");
        assert_eq!(read(&["c.parquet", "?.*"]), "c1//c1 c2//c2 a1/A/x 2//y b1//text b2//more");
        assert_eq!(read(&["empty.jsonl"]), "");
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_files_are_read_and_their_bytes_counted() {
        let folder = Folder::new();
        let (one, two) = (&b"1\ta\n2\tb\n"[..], &b"3\tc\n"[..]);
        let zstd = |text| zstd::encode_all(text, 3).unwrap();
        folder.write("a.tsv.gz", &[gzip(one), gzip(two)].concat());
        folder.write("b.tsv.zst", &[zstd(one), zstd(two)].concat());
        folder.write("plain.tsv.gz", one);
        folder.write("gzip.tsv", &gzip(two));
        folder
            .write("c.json.gz", &gzip(b"[{\"id\":1,\"text\":\"a\"},\n{\"id\":2,\"text\":\"b\"}]"));
        for (name, expected) in [
            ("a.tsv.gz", "1//a 2//b 3//c"),
            ("b.tsv.zst", "1//a 2//b 3//c"),
            ("plain.tsv.gz", "1//a 2//b"),
            ("gzip.tsv", "3//c"),
            ("c.json.gz", "1//a 2//b"),
        ] {
            let corpus = folder.corpus(&[name], Columns::default()).unwrap();
            assert_eq!(folder.read(&corpus).join(" "), expected, "{name}");
            let bytes: u64 = corpus.rows().map(|row| row.unwrap().bytes).sum();
            assert_eq!(bytes, corpus.size().bytes, "{name}");
        }
    }

    #[test]
    fn damaged_compressed_files_are_named_with_the_place() {
        let folder = Folder::new();
        let rows: String = (0..40_000).map(|id| format!("{id}\ttext {}\n", id * id)).collect();
        for (name, whole) in [
            ("a.tsv.gz", gzip(rows.as_bytes())),
            ("b.tsv.zst", zstd::encode_all(rows.as_bytes(), 3).unwrap()),
        ] {
            folder.write(name, &whole[..whole.len() - 4]);
            let read = folder.read(&folder.corpus(&[name], Columns::default()).unwrap());
            let error = read.last().unwrap();
            let cut = "the compressed data are damaged or end too early";
            assert!(error.starts_with(&format!("DIR/{name}:")) && error.contains(cut), "{error}");
            assert!(read.len() > 30_000, "{}", read.len());
        }
        // A window of 2 GiB is not allocated.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
        folder.write("long.tsv.zst", &frame);
        let error = folder.corpus(&["long.tsv.zst"], Columns::default()).unwrap_err();
        assert_eq!(error, "DIR/long.tsv.zst: decompressing it takes more memory than reading may");
    }

    #[test]
    fn a_pipe_is_read_as_often_as_a_file() {
        let folder = Folder::new();
        let check = |name: &str, bytes: &[u8], expected: &str| {
            let path = format!("{}/{name}", folder.path());
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            let (pipe, bytes) = (path.clone(), bytes.to_vec());
            let writer = std::thread::spawn(move || std::fs::write(pipe, bytes));
            let read = folder.corpus(&[name], Columns::default()).map(|corpus| {
                assert_eq!(folder.read(&corpus), folder.read(&corpus), "{name}");
                folder.read(&corpus).join(" ")
            });
            let _ = writer.join().unwrap();
            let read = read.unwrap_or_else(|error| error);
            assert!(read.starts_with(expected), "{name}: {read}");
        };
        check("lines", b"{\"id\":1,\"text\":\"a\"}\n{\"id\":2,\"text\":\"b\"}", "1//a 2//b");
        check("array", b"[{\"id\":1,\"text\":\"a\"}]", "1//a");
        check(
            "table",
            b"1\ta\n1\tb\n",
            "1//a DIR/table:2: document id \"1\" occurs at DIR/table:1",
        );
        check("named.csv", b"1,\"a\nb\"", "1//a\nb");
        check("compressed", &gzip(b"1\ta\n"), "1//a");
        check("none", b"text", "DIR/none: not a known kind of text");
        check("columns", b"PAR1", "DIR/columns: Parquet cannot be read from a pipe");
    }

    #[test]
    fn a_format_may_be_named_and_quotes_read() {
        let folder = Folder::new();
        let file = folder.write("notes.txt", b"\"1\"\t\"a \"\"b\"\"\"\n");
        let options = ReadOptions { format: Some(Format::Tsv), ..ReadOptions::default() };
        let open = |options| Corpus::open_with(&[&file], Columns::default(), options).unwrap();
        let plain = open(options);
        let what = plain.warnings()[0].what.replace(folder.path(), "DIR");
        let said = "DIR/notes.txt: all fields stand in quotes, which become part of ids and texts";
        assert_eq!(what, said);
        assert_eq!(folder.read(&plain), ["\"1\"//\"a \"\"b\"\"\""]);
        let quoted = open(ReadOptions { quoting: Quoting::Csv, ..options });
        assert_eq!(
            (folder.read(&quoted), quoted.warnings().len()),
            (vec!["1//a \"b\"".to_owned()], 0)
        );
    }

    #[test]
    fn bad_rows_are_left_out_and_counted() {
        let folder = Folder::new();
        let mut lines = String::from("{\"id\":\"a\",\"text\":\"\\ud83d\"}\n");
        for id in 0..12 {
            lines += &format!("{{\"id\":{id},\"txt\":\"x\"}}\n");
        }
        lines += "{\"id\":\"b\",\"text\":\"y\"}\n";
        folder.write("a.jsonl", lines.as_bytes());
        folder.write("b.tsv", b"c\tz\nd\ta\tb\n\xff\t\ne\tw\na\tagain\n");
        let corpus = folder.corpus(&["a.jsonl", "b.tsv"], Columns::default()).unwrap();
        let strict = folder.read(&corpus);
        assert_eq!(strict.len(), 2);
        assert!(strict[1].starts_with("DIR/a.jsonl:2: no text column"), "{strict:?}");
        let listed = "; 12 rows cannot be read: lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more";
        assert!(strict[1].ends_with(listed), "{strict:?}");
        let corpus = corpus.skipping_bad_rows();
        let read = folder.read(&corpus);
        assert_eq!(read[..4], ["a//\u{fffd}", "b//y", "c//z", "e//w"]);
        // A second document with an id is no bad row: one of the two would be lost.
        assert!(
            read[4].starts_with("DIR/b.tsv:5: document id \"a\" occurs at DIR/a.jsonl:1"),
            "{read:?}"
        );
        let mut rows = corpus.rows();
        assert_eq!(rows.by_ref().filter(Result::is_ok).count(), 4);
        let bad = rows.bad_rows();
        assert_eq!((bad.count, bad.first.len(), rows.lossy(), rows.number()), (14, 10, 1, 18));
    }

    #[test]
    fn queries_are_rows_with_names_of_their_own() {
        let folder = Folder::new();
        let ids = strings(&[Some("1")]);
        let columns = vec![("qid", Arc::clone(&ids)), ("query", ids)];
        folder.write("q.parquet", &parquet_bytes(columns, 1, true));
        folder.write("q.csv", b"query,query_id\n\"a, b\",2\n");
        folder.write("q.txt", b"3\ta\tb\n");
        folder.write("q", b"[{\"query-id\":4,\"question\":\"a\"}]");
        let read = |name: &str| {
            let columns = Columns { rows: RowKind::Queries, ..Columns::default() };
            let options = ReadOptions { tsv_by_default: true, ..ReadOptions::default() };
            let path = format!("{}/{name}", folder.path());
            folder.read(&Corpus::open_with(&[path], columns, options).unwrap()).join(" ")
        };
        assert_eq!(read("q.parquet"), "1//1");
        assert_eq!(read("q.csv"), "2//a, b");
        assert_eq!(read("q.txt"), "3//a\tb");
        assert_eq!(read("q"), "4//a");
    }

    #[test]
    fn rows_may_be_left_out() {
        let folder = mixed();
        let ids = |ids: &[&str]| ids.iter().map(|id| DocId::new(id).unwrap()).collect();
        let corpus = folder.corpus(&["a.jsonl", "b.tsv"], Columns::default()).unwrap();
        let all: u64 = corpus.rows().map(|row| row.unwrap().bytes).sum();
        let some = corpus.clone().only(ids(&["b2", "a1", "none"]));
        assert_eq!(folder.read(&some), ["a1/A/x", "b2//more"]);
        assert_eq!(some.rows().map(|row| row.unwrap().bytes).sum::<u64>(), all);
        // Rows that are left out are checked too.
        folder.write("b.tsv", b"b1\tx\nb1\ty\nb2\tz\n");
        let twice = folder.read(&corpus.only(ids(&["b2"])));
        assert!(twice[0].contains("\"b1\" occurs at"), "{twice:?}");
    }

    #[test]
    fn sizes_and_places_are_told() {
        let folder = mixed();
        let corpus = folder.corpus(&[""], Columns::default()).unwrap();
        let bytes =
            |name: &str| std::fs::metadata(format!("{}/{name}", folder.path())).unwrap().len();
        let total = bytes("a.jsonl") + bytes("b.tsv") + bytes("c.parquet");
        assert_eq!(corpus.size(), CorpusSize { bytes: total, rows: None });
        let names: Vec<_> = corpus.files().iter().map(|file| file.file_name().unwrap()).collect();
        assert_eq!(names, ["a.jsonl", "b.tsv", "c.parquet", "empty.jsonl"]);
        let rows: Vec<Row> = corpus.rows().map(Result::unwrap).collect();
        assert_eq!(rows.iter().map(|row| row.bytes).sum::<u64>(), total);
        let places: Vec<String> = rows.iter().map(|row| row.place.to_string()).collect();
        let places = places.join(" ").replace(&format!("{}/", folder.path()), "");
        let expected = "a.jsonl:1 a.jsonl:3 b.tsv:3 b.tsv:4 c.parquet row 1 c.parquet row 2";
        assert_eq!(places, expected);
        let parquet = folder.corpus(&["c.parquet"], Columns::default()).unwrap();
        assert_eq!(parquet.size(), CorpusSize { bytes: bytes("c.parquet"), rows: Some(2) });
    }

    #[test]
    fn a_bad_row_ends_the_rows() {
        let folder = mixed();
        folder.write("b.tsv", b"b1\ttext\nb\xff\tmore\nb3\tx");
        let corpus = folder.corpus(&[""], Columns::default()).unwrap();
        let rows = folder.read(&corpus);
        assert_eq!(rows.len(), 4, "{rows:?}");
        assert!(rows[3].starts_with("DIR/b.tsv:2: not valid UTF-8 at byte 2"), "{rows:?}");
    }

    #[test]
    fn a_file_is_checked_before_any_is_read() {
        let folder = mixed();
        let id = strings(&[Some("1")]);
        folder.write("d.parquet", &parquet_bytes(vec![("id", id)], 1, true));
        let error = folder.corpus(&["a.jsonl", "d.parquet"], Columns::default()).unwrap_err();
        assert!(error.starts_with("DIR/d.parquet: no text column"), "{error}");
        folder.write("d.parquet", b"PAR1 no Parquet");
        let error = folder.corpus(&[""], Columns::default()).unwrap_err();
        assert!(error.starts_with("DIR/d.parquet: cannot be decoded as Parquet; check"), "{error}");
    }

    #[test]
    fn a_file_that_vanishes_is_named() {
        let folder = mixed();
        let corpus = folder.corpus(&["a.jsonl", "b.tsv"], Columns::default()).unwrap();
        std::fs::remove_file(format!("{}/b.tsv", folder.path())).unwrap();
        let rows = folder.read(&corpus);
        assert_eq!(rows.last().unwrap(), "DIR/b.tsv: cannot be read");
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_is_named() {
        let folder = mixed();
        let corpus = folder.corpus(&["a.jsonl", "b.tsv"], Columns::default()).unwrap();
        folder.write("a.jsonl", b"{\"_id\":\"a1\",\"text\":\"x\"}\n");
        let rows = folder.read(&corpus);
        assert!(rows[1].starts_with("DIR/a.jsonl: the file was cut while it was read"), "{rows:?}");
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn a_long_line_is_refused() {
        let folder = mixed();
        for (name, limit, rows) in
            [("a.jsonl", 35, 2), ("a.jsonl", 34, 1), ("b.tsv", 7, 2), ("b.tsv", 6, 1)]
        {
            let mut corpus = folder.corpus(&[name], Columns::default()).unwrap();
            corpus.options.limits.reader_bytes = 4 * limit;
            let read = folder.read(&corpus);
            let refused = read.last().unwrap().contains(&format!("longer than {limit} bytes"));
            assert_eq!((read.len(), refused), (rows, rows == 1), "{name} {limit}: {read:?}");
        }
    }

    #[test]
    fn a_long_document_is_refused_wherever_it_stands() {
        let folder = mixed();
        for (name, place, bytes) in [
            ("a.jsonl", "DIR/a.jsonl:1", 2),
            ("b.tsv", "DIR/b.tsv:3", 4),
            ("c.parquet", "DIR/c.parquet row 1", 2),
        ] {
            let mut corpus = folder.corpus(&[name], Columns::default()).unwrap();
            corpus.options.limits.document_bytes = bytes;
            assert_eq!(folder.read(&corpus).len(), 2, "{name}");
            corpus.options.limits.document_bytes = bytes - 1;
            let max = bytes - 1;
            let refused = format!("{place}: the document has {bytes} bytes, {max} are allowed");
            assert!(folder.read(&corpus)[0].starts_with(&refused), "{:?}", folder.read(&corpus));
        }
    }

    #[test]
    fn an_id_may_occur_once() {
        let folder = mixed();
        let check = |inputs: &[&str], expected: &str| {
            let rows = folder.read(&folder.corpus(inputs, Columns::default()).unwrap());
            assert_eq!(rows.last().unwrap(), expected, "{inputs:?}");
        };
        folder.write("d.tsv", b"d1\tx\nd2\ty\nd1\tz\n");
        check(
            &["d.tsv"],
            "DIR/d.tsv:3: document id \"d1\" occurs at DIR/d.tsv:1 already; ids must be unique",
        );
        folder.write("d.tsv", b"d1\tx\n2\ty\n");
        check(
            &["a.jsonl", "d.tsv"],
            "DIR/d.tsv:2: document id \"2\" occurs at DIR/a.jsonl:3 already; ids must be unique",
        );
        folder.write("d.tsv", b"d1\tx\nc2\ty\n");
        check(
            &["c.parquet", "d.tsv"],
            "DIR/d.tsv:2: document id \"c2\" occurs at DIR/c.parquet row 2 already; ids must be unique",
        );
    }

    #[test]
    fn a_collision_of_hashes_is_no_duplicate() {
        let folder = mixed();
        let corpus = folder.corpus(&[""], Columns::default()).unwrap();
        let mut rows = corpus.rows();
        assert!(rows.seen.insert_hash(ids::hash(&DocId::new("b2").unwrap())));
        assert_eq!(rows.filter(Result::is_ok).count(), 6);
    }

    #[test]
    fn the_first_place_of_an_id_is_found() {
        let folder = mixed();
        let corpus = folder.corpus(&[""], Columns::default()).unwrap();
        let find = |id: &str, before_row| {
            let place = corpus.first_place_of(&DocId::new(id).unwrap(), before_row).unwrap();
            place.map(|place| place.to_string().replace(folder.path(), "DIR"))
        };
        assert_eq!(find("b1", 3).as_deref(), Some("DIR/b.tsv:3"));
        assert_eq!(find("b1", 2), None);
        assert_eq!(find("nowhere", 1000), None);
    }

    #[test]
    fn rows_can_go_to_another_thread() {
        fn send<T: Send>() {}
        send::<Rows>();
        send::<Corpus>();
    }
}
