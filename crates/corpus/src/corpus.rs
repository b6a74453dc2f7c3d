//! Reads a corpus row by row: paths and column names come in, documents with their places go out. Keeps the
//! hashes of ids to find duplicates. Knows neither chunks nor the store.

use std::collections::HashSet;
use std::iter::FusedIterator;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyperrag_core::DocId;

use crate::columns::Columns;
use crate::error::CorpusError;
use crate::format::Format;
use crate::ids::IdSet;
use crate::input::{self, Input};
use crate::jsonl::JsonlRows;
use crate::limits::Limits;
use crate::parquet::ParquetRows;
use crate::place::Place;
use crate::row::Row;
use crate::taken::ColumnsTaken;
use crate::tsv::TsvRows;

/// Documents of some files, in the order of the files and of their rows.
///
/// The files must not change while it is in use, because each iterator reads them anew.
#[derive(Clone, Debug)]
pub struct Corpus {
    inputs: Arc<[Input]>,
    files: Vec<PathBuf>,
    columns: Columns,
    limits: Limits,
    /// Documents that count; `None` if all do.
    only: Option<Arc<HashSet<DocId>>>,
}

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
    /// An input is a file, a folder (its own `.parquet`, `.pq`, `.jsonl`, `.ndjson` and `.tsv` files, sorted
    /// by name) or a pattern such as `data/**/*.parquet`. A file that is named twice is read once.
    ///
    /// # Errors
    /// [`CorpusError`] with the input and its fault.
    pub fn open(inputs: &[String], columns: Columns) -> Result<Self, CorpusError> {
        Self::open_within(inputs, columns, Limits::default())
    }

    /// Opens a corpus like [`Corpus::open`], with other limits than the usual ones.
    ///
    /// # Errors
    /// [`CorpusError`] with the input and its fault.
    pub fn open_within(
        inputs: &[String],
        columns: Columns,
        limits: Limits,
    ) -> Result<Self, CorpusError> {
        let inputs = input::resolve(inputs, &columns, &limits)?;
        let files = inputs.iter().map(|input| input.file.to_path_buf()).collect();
        Ok(Self { inputs: inputs.into(), files, columns, limits, only: None })
    }

    /// Restricts the corpus to these documents. Other rows are read and checked, then left out.
    #[must_use]
    pub fn only(self, documents: HashSet<DocId>) -> Self {
        Self { only: Some(Arc::new(documents)), ..self }
    }

    /// Lists the files, in the order in which they are read.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Amount of data to read.
    #[must_use]
    pub fn size(&self) -> CorpusSize {
        let bytes = self.inputs.iter().map(|input| input.bytes).sum();
        let rows = self.inputs.iter().try_fold(0_u64, |sum, input| sum.checked_add(input.rows?));
        CorpusSize { bytes, rows: rows.filter(|_| self.only.is_none()) }
    }

    /// Tells the columns that the documents are read from; `None` if no file names its columns. Of a file of
    /// lines the first are read.
    #[must_use]
    pub fn columns_taken(&self) -> Option<ColumnsTaken> {
        let mut all: Option<ColumnsTaken> = None;
        for input in self.inputs.iter() {
            let Some(taken) = self.taken_from(input) else { continue };
            match &mut all {
                Some(all) => all.add(&input.file, taken.columns),
                all => *all = Some(taken),
            }
        }
        all
    }

    fn taken_from(&self, input: &Input) -> Option<ColumnsTaken> {
        let Input { file, format, taken, .. } = input;
        // Rows that cannot be read are told of where they are read.
        match format {
            Format::Parquet => taken.clone(),
            Format::Jsonl => {
                JsonlRows::open(file, &self.columns, &self.limits).ok()?.columns_taken()
            }
            Format::Tsv => TsvRows::open(file, &self.columns, &self.limits).ok()?.columns_taken(),
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
            match records.next_row()? {
                Some(row) if row.document.id == *id => return Ok(Some(row.place)),
                Some(_) => {}
                None => break,
            }
        }
        Ok(None)
    }

    fn records(&self) -> Records {
        Records {
            inputs: Arc::clone(&self.inputs),
            columns: self.columns.clone(),
            limits: self.limits,
            next_input: 0,
            current: None,
        }
    }
}

/// Iterator over the rows of a corpus. It ends after the first error.
pub struct Rows {
    corpus: Corpus,
    records: Records,
    seen: IdSet,
    /// Number of rows read, those left out included.
    rows: u64,
    /// Bytes of the rows left out since the last row returned.
    bytes: u64,
    done: bool,
}

impl Rows {
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
        let Some(row) = self.records.next_row()? else { return Ok(None) };
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
    limits: Limits,
    next_input: usize,
    current: Option<CorpusReader>,
}

/// Reader of one file, by its format.
enum CorpusReader {
    Parquet(Box<ParquetRows>),
    Jsonl(JsonlRows),
    Tsv(TsvRows),
}

impl Records {
    fn next_row(&mut self) -> Result<Option<Row>, CorpusError> {
        loop {
            if let Some(reader) = &mut self.current
                && let Some(row) = reader.next_row()?
            {
                return Ok(Some(row));
            }
            let Some(input) = self.inputs.get(self.next_input) else { return Ok(None) };
            self.current = Some(self.open(&input.file, input.format)?);
            self.next_input += 1;
        }
    }

    fn open(&self, file: &Arc<Path>, format: Format) -> Result<CorpusReader, CorpusError> {
        let (columns, limits) = (&self.columns, &self.limits);
        Ok(match format {
            Format::Parquet => {
                CorpusReader::Parquet(Box::new(ParquetRows::open(file, columns, limits)?))
            }
            Format::Jsonl => CorpusReader::Jsonl(JsonlRows::open(file, columns, limits)?),
            Format::Tsv => CorpusReader::Tsv(TsvRows::open(file, columns, limits)?),
        })
    }
}

impl CorpusReader {
    fn next_row(&mut self) -> Result<Option<Row>, CorpusError> {
        match self {
            Self::Parquet(rows) => rows.next_row(),
            Self::Jsonl(rows) => rows.next_row(),
            Self::Tsv(rows) => rows.next_row(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_long_line_is_refused() {
        let folder = mixed();
        for (name, limit, rows) in
            [("a.jsonl", 35, 2), ("a.jsonl", 34, 1), ("b.tsv", 7, 2), ("b.tsv", 6, 1)]
        {
            let mut corpus = folder.corpus(&[name], Columns::default()).unwrap();
            corpus.limits.reader_bytes = 4 * limit;
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
            corpus.limits.document_bytes = bytes;
            assert_eq!(folder.read(&corpus).len(), 2, "{name}");
            corpus.limits.document_bytes = bytes - 1;
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
