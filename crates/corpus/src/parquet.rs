//! Reads Parquet batch by batch: a file that is read by ranges, column names and limits come in, rows go out. A value that cannot be
//! read is an error of its row. Knows nothing of other formats.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::RecordBatch;
use hyperrag_core::{Document, DocumentField};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};

use crate::columns::Columns;
use crate::error::CorpusError;
use crate::limits::Limits;
use crate::parquet::opened::{Cause, Opened, guarded};
use crate::parquet::sources::Source;
use crate::parquet::values::Values;
use crate::place::Place;
use crate::ranges::RangeFile;
use crate::row::{Row, check_length, document_id};
use crate::taken::ColumnsTaken;

mod groups;
mod opened;
mod records;
mod sources;
mod values;

/// Rows of a Parquet file. Only the needed columns are read, a batch at a time. A batch has as many rows of a
/// row group as its largest pages leave memory for.
pub(crate) struct ParquetRows {
    opened: Opened,
    limits: Limits,
    /// Number of rows returned.
    row: u64,
    /// The row group to read next.
    next_group: usize,
    /// Number of rows up to the end of the current row group.
    group_end: u64,
    reader: Option<ParquetRecordBatchReader>,
    /// Columns of id, title and text.
    sources: [Option<Source>; 3],
    /// Leaves that are read, ascending.
    leaves: Vec<usize>,
    batch: Option<RowBatch>,
}

/// Values of a batch. Rows before `next` have been returned.
struct RowBatch {
    rows: usize,
    id: Values,
    title: Option<Values>,
    text: Option<Values>,
    next: usize,
}

/// Number of rows of a file, and its columns if it has any.
pub(crate) struct Checked {
    pub(crate) rows: u64,
    pub(crate) taken: Option<ColumnsTaken>,
}

/// Checks metadata and columns. Reads no row.
pub(crate) fn check(
    file: RangeFile,
    columns: &Columns,
    limits: &Limits,
) -> Result<Checked, CorpusError> {
    let Opened { file, metadata, rows } = Opened::open(file, limits)?;
    let found = sources::find(&file.path, &metadata, rows, columns)?;
    let taken = (rows > 0).then(|| sources::taken(metadata.schema(), &found));
    Ok(Checked { rows, taken })
}

impl ParquetRows {
    pub(crate) fn open(
        file: RangeFile,
        columns: &Columns,
        limits: &Limits,
    ) -> Result<Self, CorpusError> {
        let mut opened = Opened::open(file, limits)?;
        let path = Arc::clone(&opened.file.path);
        let sources = sources::find(&path, &opened.metadata, opened.rows, columns)?;
        let read = sources.iter().flatten().filter(|source| source.kind.is_some());
        let mut leaves: Vec<usize> = read.flat_map(|source| source.leaves.clone()).collect();
        leaves.sort_unstable();
        leaves.dedup();
        if let Some(schema) = sources::with_views(opened.metadata.schema(), &sources) {
            let options = ArrowReaderOptions::new().with_schema(schema);
            let metadata = Arc::clone(opened.metadata.metadata());
            opened.metadata =
                guarded(&path, 0, || ArrowReaderMetadata::try_new(metadata, options))?;
        }
        let (limits, batch, reader) = (*limits, None, None);
        Ok(Self {
            opened,
            limits,
            row: 0,
            next_group: 0,
            group_end: 0,
            reader,
            sources,
            leaves,
            batch,
        })
    }

    /// Returns the next row. After an error of a row the rows behind it can be read.
    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, CorpusError> {
        let batch = loop {
            match &mut self.batch {
                Some(batch) if batch.next < batch.rows => break batch,
                _ => {}
            }
            // Freed before the next one is decoded.
            self.batch = None;
            self.batch = self.next_batch()?;
            if self.batch.is_none() && !self.open_group()? {
                return Ok(None);
            }
        };
        let index = batch.next;
        batch.next += 1;
        self.row += 1;
        let place = Place::row(&self.opened.file.path, self.row);
        let document = batch.document(index, &place, &self.limits)?;
        let bytes = self.bytes_up_to(self.row) - self.bytes_up_to(self.row - 1);
        Ok(Some(Row { document, place, bytes }))
    }

    /// Passes over the rest of the current row group and those after it, as long as all of their rows are among
    /// the next `rows`. Returns the number of rows passed over, of which nothing is read.
    pub(crate) fn pass_groups(&mut self, rows: u64) -> u64 {
        let (before, end) = (self.row, self.row.saturating_add(rows));
        if self.group_end <= end {
            (self.reader, self.batch) = (None, None);
            let groups = self.opened.metadata.metadata().row_groups();
            for group in groups.iter().skip(self.next_group) {
                // The row counts of the metadata have been checked.
                let group_end = self.group_end + group.num_rows() as u64;
                if group_end > end {
                    break;
                }
                self.group_end = group_end;
                self.next_group += 1;
            }
            self.row = self.group_end;
        }
        self.row - before
    }

    /// Whether all rows were returned or passed over.
    pub(crate) fn is_at_end(&self) -> bool {
        self.row == self.opened.rows
    }

    /// Decodes the next rows of the current row group; `None` at its end.
    fn next_batch(&mut self) -> Result<Option<RowBatch>, CorpusError> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let (end, row) = (self.group_end, self.row);
        guarded(&self.opened.file.path, row, || -> Result<_, Cause> {
            match reader.next() {
                Some(batch) => RowBatch::new(&batch?, &self.sources).map(Some),
                None if row == end => Ok(None),
                None => Err(format!("a row group ends after row {row}, not {end}").into()),
            }
        })
    }

    /// Goes to the next row group. `false` if there is none.
    fn open_group(&mut self) -> Result<bool, CorpusError> {
        let (group, max) = (self.next_group, self.limits.reader_bytes);
        if group == self.opened.metadata.metadata().num_row_groups() {
            return Ok(false);
        }
        self.reader = None;
        self.opened.hold(group, &self.leaves, self.row)?;
        let Opened { file: RangeFile { path, held, .. }, metadata, .. } = &self.opened;
        // The row counts of the metadata have been checked.
        let rows = metadata.metadata().row_group(group).num_rows() as u64;
        let batch_rows = || self.opened.batch_rows(group, &self.leaves, max);
        let batch_rows = guarded(path, self.row, batch_rows)?.map_err(|needed| {
            let (path, first, last) = (path.to_path_buf(), self.row + 1, self.row + rows);
            CorpusError::Pages { path, first, last, needed, max }
        })?;
        let reader = guarded(path, self.row, || -> Result<_, Cause> {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
                held.try_clone()?,
                metadata.clone(),
            );
            let leaves = self.leaves.iter().copied();
            let mask = ProjectionMask::leaves(builder.parquet_schema(), leaves);
            let builder = builder.with_row_groups(vec![group]).with_projection(mask);
            Ok(builder.with_batch_size(usize::try_from(batch_rows)?).build()?)
        })?;
        self.reader = Some(reader);
        self.next_group += 1;
        self.group_end += rows;
        Ok(true)
    }

    /// Returns the share of the file's bytes that the first `rows` rows stand for.
    fn bytes_up_to(&self, rows: u64) -> u64 {
        let all = self.opened.rows;
        let share = u128::from(self.opened.file.bytes) * u128::from(rows) / u128::from(all.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

impl RowBatch {
    fn new(batch: &RecordBatch, sources: &[Option<Source>; 3]) -> Result<Self, Cause> {
        let read = || sources.iter().flatten().filter(|source| source.kind.is_some());
        let values = |source: &Option<Source>, field| {
            let Some(source) = source else { return Ok(None) };
            let Some(kind) = source.kind else { return Ok(None) };
            // Columns of a batch are in the order of the file.
            let mut before: Vec<usize> = read().map(Source::root).collect();
            before.sort_unstable();
            before.dedup();
            let at = before.iter().position(|root| *root == source.root());
            let column = at.and_then(|at| batch.columns().get(at));
            let values = column.and_then(|column| Values::of(column, &source.below, field, kind));
            values.map(Some).ok_or_else(|| Cause::from(format!("the {field} column is gone")))
        };
        let [id, title, text] = sources;
        Ok(Self {
            rows: batch.num_rows(),
            id: values(id, DocumentField::Id)?.ok_or("the id column has no value")?,
            title: values(title, DocumentField::Title)?,
            text: values(text, DocumentField::Text)?,
            next: 0,
        })
    }

    fn document(
        &self,
        index: usize,
        place: &Place,
        limits: &Limits,
    ) -> Result<Document, CorpusError> {
        let Some(id) = self.id.text(index, place, limits)? else {
            return Err(CorpusError::Value {
                place: place.clone(),
                field: DocumentField::Id,
                found: "null",
            });
        };
        let id = document_id(&id, place)?;
        let title = optional(self.title.as_ref(), index, place, limits)?;
        let text = optional(self.text.as_ref(), index, place, limits)?;
        check_length(&title, &text, place, limits)?;
        Ok(Document { id, title: title.into_owned(), text: text.into_owned() })
    }
}

/// Returns the text of a value that may be absent.
fn optional<'a>(
    values: Option<&'a Values>,
    index: usize,
    place: &Place,
    limits: &Limits,
) -> Result<Cow<'a, str>, CorpusError> {
    let text = values.map(|values| values.text(index, place, limits)).transpose()?;
    Ok(text.flatten().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::path::Path;

    use super::*;
    use crate::testing::{Folder, parquet_bytes, parquet_with, strings};
    use arrow_array::types::Int32Type;
    use arrow_array::{
        ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int8Array, Int16Array, Int32Array,
        Int64Array, LargeStringArray, StringArray, StringViewArray, UInt8Array, UInt16Array,
        UInt32Array, UInt64Array,
    };
    use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
    use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};

    fn read(columns: Vec<(&str, ArrayRef)>, named: Columns) -> Vec<String> {
        let folder = Folder::new();
        folder.write("c.parquet", &parquet_bytes(columns, 2, true));
        match folder.corpus(&["c.parquet"], named) {
            Ok(corpus) => folder.read(&corpus),
            Err(error) => vec![error],
        }
    }

    fn pair(a: &str, b: &str) -> ArrayRef {
        strings(&[Some(a), Some(b)])
    }

    #[test]
    fn strings_and_integers_of_all_kinds_are_read() {
        let ids: [ArrayRef; 9] = [
            Arc::new(Int8Array::from(vec![1, 2])),
            Arc::new(Int16Array::from(vec![1, 2])),
            Arc::new(Int32Array::from(vec![1, 2])),
            Arc::new(Int64Array::from(vec![1, 2])),
            Arc::new(UInt8Array::from(vec![1, 2])),
            Arc::new(UInt16Array::from(vec![1, 2])),
            Arc::new(UInt32Array::from(vec![1, 2])),
            Arc::new(UInt64Array::from(vec![1, 2])),
            pair("1", "2"),
        ];
        for id in ids {
            let columns = vec![("id", id), ("text", pair("a", "b"))];
            assert_eq!(read(columns, Columns::default()), ["1//a", "2//b"]);
        }
        let negative: ArrayRef = Arc::new(Int8Array::from(vec![i8::MIN, 0]));
        let columns = vec![("id", negative), ("text", pair("a", "b"))];
        assert_eq!(read(columns, Columns::default()), ["-128//a", "0//b"]);
        let large = UInt64Array::from(vec![u64::MAX]);
        let columns: Vec<(&str, ArrayRef)> =
            vec![("id", Arc::new(large)), ("text", strings(&[Some("a")]))];
        assert_eq!(read(columns, Columns::default()), ["18446744073709551615//a"]);
        let texts: [ArrayRef; 3] = [
            Arc::new(LargeStringArray::from(vec!["a", "b"])),
            Arc::new(StringViewArray::from(vec!["a", "b"])),
            Arc::new(DictionaryArray::<Int32Type>::from_iter(["a", "b"])),
        ];
        for text in texts {
            let columns =
                vec![("docid", Arc::clone(&text)), ("title", Arc::clone(&text)), ("body", text)];
            assert_eq!(read(columns, Columns::default()), ["a/a/a", "b/b/b"]);
        }
    }

    #[test]
    fn columns_are_found_and_nulls_read() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0]));
        let columns = vec![
            ("x", floats),
            ("Text", strings(&[None, Some("b")])),
            ("TITLE", strings(&[Some("A"), None])),
            ("_ID", pair("1", "2")),
        ];
        assert_eq!(read(columns.clone(), Columns::default()), ["1/A/", "2//b"]);
        let named =
            Columns { text: Some("title".into()), title: Some("_id".into()), ..Columns::default() };
        assert_eq!(read(columns, named), ["1/1/A", "2/2/"]);
    }

    #[test]
    fn unusable_columns_are_named() {
        let check = |columns: Vec<(&str, ArrayRef)>, named: Columns, expected: &str| {
            let error = read(columns, named).pop().unwrap();
            assert!(error.starts_with("DIR/c.parquet") && error.contains(expected), "{error}");
        };
        let two = || pair("1", "2");
        let expected = "no text column: looked for \"text\", \"contents\", \"body\", \"content\", \
                        \"passage\", \"passage_text\", found \"id\", \"txt\"";
        check(vec![("id", two()), ("txt", two())], Columns::default(), expected);
        let columns = vec![("key", two()), ("text", two())];
        check(columns.clone(), Columns::default(), "no id column: looked for");
        let named =
            Columns { id: Some("key".into()), title: Some("head".into()), ..Columns::default() };
        check(columns, named, "no title column: looked for \"head\"");
        let truths: ArrayRef = Arc::new(BooleanArray::from(vec![true, false]));
        let expected = "column \"id\" has type Boolean, the id must be a string or a whole number";
        check(vec![("id", Arc::clone(&truths)), ("text", two())], Columns::default(), expected);
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0]));
        check(vec![("id", two()), ("text", floats)], Columns::default(), "must be a string");
        let id = strings(&[Some("1"), None]);
        let expected = "c.parquet row 2: the id is null";
        check(vec![("id", id), ("text", two())], Columns::default(), expected);
        check(
            vec![("id", pair("1", "")), ("text", two())],
            Columns::default(),
            "row 2: the id is empty",
        );
    }

    #[test]
    fn rows_are_counted_and_their_bytes_sum_up() {
        let names: Vec<String> = (0..1000).map(|number| format!("d{number}")).collect();
        let values: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
        let columns = vec![("id", strings(&values)), ("text", strings(&values))];
        let folder = Folder::new();
        let bytes = parquet_bytes(columns, 300, true);
        folder.write("c.parquet", &bytes);
        folder.write(
            "empty.parquet",
            &parquet_bytes(vec![("id", strings(&[])), ("text", strings(&[]))], 1, true),
        );
        let corpus = folder.corpus(&["c.parquet", "empty.parquet"], Columns::default()).unwrap();
        assert_eq!(corpus.size().rows, Some(1000));
        let rows: Vec<Row> = corpus.rows().map(Result::unwrap).collect();
        assert_eq!(rows.iter().map(|row| row.bytes).sum::<u64>(), bytes.len() as u64);
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(
                (row.document.id.as_str(), row.place.row),
                (names[index].as_str(), index as u64 + 1)
            );
        }
    }

    /// Returns the file's rows, or the error of opening or reading it.
    fn read_damaged(folder: &Folder, bytes: &[u8], columns: &Columns) -> Vec<String> {
        folder.write("c.parquet", bytes);
        match folder.corpus(&["c.parquet"], columns.clone()) {
            Ok(corpus) => folder.read(&corpus),
            Err(error) => vec![error],
        }
    }

    #[test]
    fn a_truncated_file_is_an_error_at_every_length() {
        let folder = Folder::new();
        for zstd in [false, true] {
            let columns = vec![("id", pair("1", "2")), ("text", pair("aaaaaaaaaaaa", "b"))];
            let bytes = parquet_bytes(columns, 1, zstd);
            for length in 0..bytes.len() {
                let rows = read_damaged(&folder, &bytes[..length], &Columns::default());
                let [error] = rows.as_slice() else { panic!("{length}: {rows:?}") };
                assert!(
                    error.starts_with("DIR/c.parquet: cannot be decoded as Parquet; check"),
                    "{error}"
                );
            }
        }
    }

    /// Pages in this test have no checksum, so a flipped letter is read as another letter. A panic, a lost
    /// row or a message without the file's name must not happen.
    #[test]
    fn flipped_bits_are_an_error_or_the_same_number_of_rows() {
        let folder = Folder::new();
        let columns = Columns { title: Some("title".into()), ..Columns::default() };
        let mut errors = 0;
        for zstd in [false, true] {
            let parts = vec![
                ("id", pair("1", "2")),
                ("title", strings(&[Some("T"), None])),
                ("text", pair("aaaaaaaaaaaa", "b")),
            ];
            let bytes = parquet_bytes(parts, 1, zstd);
            for position in 0..bytes.len() {
                // All bits of the plain file, one bit of each byte of the compressed one.
                for bit in if zstd { position % 8..position % 8 + 1 } else { 0..8 } {
                    let mut damaged = bytes.clone();
                    damaged[position] ^= 1 << bit;
                    let rows = read_damaged(&folder, &damaged, &columns);
                    let last = rows.last().map_or("", String::as_str);
                    let error = last.starts_with("DIR/c.parquet");
                    assert!(error || rows.len() == 2, "byte {position} bit {bit}: {rows:?}");
                    errors += usize::from(error);
                }
            }
        }
        assert!(errors > 1000, "only {errors} flips were noticed");
    }

    /// Written by pyarrow 26 with `write_page_checksum=True`, without compression or dictionaries,
    /// so that nothing but the checksum can tell one letter from another.
    const CHECKSUMS: &[u8] = include_bytes!("../testdata/checksums.parquet");

    #[test]
    fn a_page_that_fails_its_checksum_is_an_error() {
        let folder = Folder::new();
        let whole = read_damaged(&folder, CHECKSUMS, &Columns::default());
        assert_eq!(whole[3], "d3/Title 3/The text of document 3 is plain.");
        for word in ["d0", "Title 2", "text of document 3"] {
            let mut windows = CHECKSUMS.windows(word.len());
            let at = windows.position(|window| window == word.as_bytes()).unwrap();
            let mut damaged = CHECKSUMS.to_vec();
            damaged[at] ^= 1;
            let rows = read_damaged(&folder, &damaged, &Columns::default());
            let expected = "DIR/c.parquet: cannot be decoded as Parquet; check";
            assert!(rows.len() == 1 && rows[0].starts_with(expected), "{word}: {rows:?}");
        }
    }

    fn file(folder: &Folder) -> RangeFile {
        let path: Arc<Path> = Path::new(&format!("{}/c.parquet", folder.path())).into();
        RangeFile::here(&path).unwrap()
    }

    /// Reads all rows and returns, for each, the number of rows of its batch.
    fn read_within(folder: &Folder, reader_bytes: u64) -> Result<Vec<usize>, String> {
        let file = file(folder);
        let limits = Limits { reader_bytes, ..Limits::default() };
        let shorten = |error: CorpusError| error.to_string().replace(folder.path(), "DIR");
        let rows = ParquetRows::open(file, &Columns::default(), &limits);
        let (mut rows, mut batches) = (rows.map_err(shorten)?, Vec::new());
        while rows.next_row().map_err(shorten)?.is_some() {
            batches.push(rows.batch.as_ref().unwrap().rows);
        }
        Ok(batches)
    }

    #[test]
    fn pages_decide_how_many_rows_are_decoded_together() {
        let folder = Folder::new();
        let ids: Vec<String> = (0..300).map(|id| id.to_string()).collect();
        let ids: ArrayRef = Arc::new(StringArray::from(ids));
        // One value makes a dictionary: a page with it, and pages of almost nothing.
        let long = "word ".repeat(100_000);
        let long: ArrayRef = Arc::new(StringArray::from(vec![long.as_str(); 300]));
        let short: ArrayRef = Arc::new(StringArray::from(vec!["word"; 300]));
        folder.write(
            "c.parquet",
            &parquet_bytes(vec![("id", ids.clone()), ("text", short)], 200, true),
        );
        let (first, second) = (vec![200; 200], vec![100; 100]);
        assert_eq!(read_within(&folder, 1 << 20), Ok([first, second].concat()));
        folder.write("c.parquet", &parquet_bytes(vec![("id", ids), ("text", long)], 200, true));
        let batches = read_within(&folder, 6 << 20).unwrap();
        assert_eq!((batches.len(), batches.iter().max()), (300, Some(&5)));
        let error = read_within(&folder, 1 << 20).unwrap_err();
        assert!(
            error.starts_with("DIR/c.parquet: rows 1 to 200 stand in pages that take 2"),
            "{error}"
        );
        let error = read_within(&folder, 1 << 10).unwrap_err();
        assert!(
            error.contains("its metadata take") && error.contains("bytes, 64 are allowed"),
            "{error}"
        );
    }

    #[test]
    fn what_takes_more_memory_than_its_pages_is_refused() {
        let limits = Limits { reader_bytes: 16 << 20, ..Limits::default() };
        let folder = Folder::new();
        let error = |bytes: &[u8]| {
            folder.write("c.parquet", bytes);
            let named = Columns { text: Some("text".into()), ..Columns::default() };
            let rows = ParquetRows::open(file(&folder), &named, &limits);
            rows.unwrap().next_row().unwrap_err().to_string()
        };
        // A million values of nothing take some bytes of levels, and 24 MB as an array.
        let nothing = StringArray::from(vec![None::<&str>; 1 << 20]);
        let lists = arrow_array::ListArray::new(
            Arc::new(arrow_schema::Field::new("item", arrow_schema::DataType::Utf8, true)),
            arrow_array::ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![
                None;
                1 << 20
            ])])
            .offsets()
            .clone(),
            Arc::new(nothing),
            None,
        );
        let columns = vec![("id", strings(&[Some("1")])), ("text", Arc::new(lists) as ArrayRef)];
        let properties = WriterProperties::builder().set_dictionary_enabled(true).build();
        let bytes = parquet_with(columns, properties);
        assert!(bytes.len() < 100_000, "{}", bytes.len());
        assert!(
            error(&bytes).contains("rows 1 to 1 stand in pages that take 5"),
            "{}",
            error(&bytes)
        );
        // A null of fixed length takes its bytes.
        let null =
            arrow_array::new_null_array(&arrow_schema::DataType::FixedSizeBinary(1 << 24), 2);
        let columns = vec![("id", pair("1", "2")), ("text", null)];
        let none = WriterProperties::builder().set_statistics_enabled(EnabledStatistics::None);
        let bytes = parquet_with(columns, none.build());
        assert!(bytes.len() < 10_000, "{}", bytes.len());
        assert!(error(&bytes).contains("stand in pages that take 3"), "{}", error(&bytes));
    }

    fn every_codec() -> [Compression; 7] {
        [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::BROTLI(BrotliLevel::default()),
            Compression::LZ4,
            Compression::LZ4_RAW,
            Compression::ZSTD(ZstdLevel::default()),
        ]
    }

    #[test]
    fn pages_of_every_codec_and_version_are_read_if_they_are_as_long_as_they_say() {
        let folder = Folder::new();
        let long = "word ".repeat(1000);
        let versions = [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0];
        for (codec, version) in every_codec().into_iter().flat_map(|c| versions.map(|v| (c, v))) {
            let columns = vec![("id", pair("1", "2")), ("text", pair(&long, "b"))];
            let properties = WriterProperties::builder()
                .set_compression(codec)
                .set_writer_version(version)
                .set_dictionary_enabled(false);
            let mut bytes = parquet_with(columns, properties.build());
            let rows = read_damaged(&folder, &bytes, &Columns::default());
            assert_eq!(rows, [format!("1//{long}"), "2//b".to_owned()], "{codec} {version:?}");

            let opened = Opened::open(file(&folder), &Limits::default()).unwrap();
            let (page, _) = opened.metadata.metadata().row_group(0).column(1).byte_range();
            // The size follows the page's type. The flip makes it larger or smaller.
            bytes[page as usize + 3] ^= 2;
            let rows = read_damaged(&folder, &bytes, &Columns::default());
            let refused = rows[0].starts_with("DIR/c.parquet: cannot be decoded as Parquet");
            assert!(refused || codec == Compression::UNCOMPRESSED, "{codec} {version:?}: {rows:?}");
        }
    }

    #[test]
    fn a_panic_is_an_error() {
        let check = |step: fn() -> Result<(), Cause>, expected: &str| {
            let error = guarded(Path::new("c.parquet"), 3, step).unwrap_err();
            assert!(error.to_string().starts_with("c.parquet: cannot be decoded as Parquet after"));
            assert_eq!(error.source().unwrap().to_string(), expected);
        };
        check(|| panic!("on purpose: {}", 1), "the decoder stopped: on purpose: 1");
        check(|| panic!("on purpose"), "the decoder stopped: on purpose");
    }
}
