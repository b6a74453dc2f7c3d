//! Reads Parquet batch by batch: a file, column names and limits come in, rows go out. Damage and panics of
//! the decoder become errors. Knows nothing of other formats.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, SchemaRef};
use hyperrag_core::{Document, DocumentField};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::ParquetMetaData;

use crate::columns::Columns;
use crate::delta::check_counts;
use crate::error::CorpusError;
use crate::limits::Limits;
use crate::pages::LargestPages;
use crate::place::Place;
use crate::row::{Row, check_length, document_id};

/// Largest number of rows decoded at a time.
const BATCH_ROWS: u64 = 256;
/// Size of the footer, which begins with the length of the metadata before it, in bytes.
const FOOTER_BYTES: u64 = 8;

type Cause = Box<dyn Error + Send + Sync>;

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
    /// Columns of the file that are read, ascending.
    needed: Vec<usize>,
    /// Positions of id, title and text among the needed columns.
    columns: [Option<usize>; 3],
    batch: Option<RowBatch>,
}

/// Columns of a batch. Rows before `next` have been returned.
struct RowBatch {
    id: StringArray,
    title: Option<StringArray>,
    text: StringArray,
    next: usize,
}

/// Checks metadata and columns and returns the number of rows. Reads no row.
pub(crate) fn check(
    file: &Arc<Path>,
    columns: &Columns,
    limits: &Limits,
) -> Result<u64, CorpusError> {
    let opened = Opened::open(file, limits)?;
    find_columns(file, opened.metadata.schema(), columns)?;
    Ok(opened.rows)
}

/// A Parquet file with metadata that are read and checked.
struct Opened {
    path: Arc<Path>,
    file: File,
    metadata: ArrowReaderMetadata,
    /// Number of rows by the metadata.
    rows: u64,
    /// Size of the whole file, in bytes.
    bytes: u64,
}

impl Opened {
    fn open(path: &Arc<Path>, limits: &Limits) -> Result<Self, CorpusError> {
        let io = |source| CorpusError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let mut footer = [0; FOOTER_BYTES as usize];
        // The decoder refuses a file that is too short for a footer.
        if let Some(start) = bytes.checked_sub(FOOTER_BYTES) {
            file.read_exact_at(&mut footer, start).map_err(io)?;
        }
        let [a, b, c, d, ..] = footer;
        let (length, max) = (u64::from(u32::from_le_bytes([a, b, c, d])), limits.metadata_bytes());
        if length > max && length <= bytes {
            return Err(CorpusError::Metadata { path: path.to_path_buf(), bytes: length, max });
        }
        // An embedded Arrow schema is ignored, so a string column is Utf8, whether the writer had it as a
        // view, a dictionary or large.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        guarded(path, 0, || -> Result<_, Cause> {
            let metadata = ArrowReaderMetadata::load(&file, options)?;
            let rows = check_metadata(metadata.metadata(), bytes)?;
            Ok(Self { path: Arc::clone(path), file, metadata, rows, bytes })
        })
    }

    /// Returns the number of rows of a row group that may be decoded together, so that the largest pages of
    /// the columns `needed` and the values in them stay within `max` bytes. If a single row takes more,
    /// returns its bytes as the inner error.
    fn batch_rows(
        &self,
        group: usize,
        needed: &[usize],
        max: u64,
    ) -> Result<Result<u64, u64>, Cause> {
        let schema = self.metadata.parquet_schema();
        let (mut pages, mut row, mut delta) = (0, 0, Vec::new());
        for (leaf, column) in self.metadata.metadata().row_group(group).columns().iter().enumerate()
        {
            if !needed.contains(&schema.get_column_root_idx(leaf)) {
                continue;
            }
            let (start, bytes) = column.byte_range();
            let LargestPages { stored, decoded, values, any_delta } =
                LargestPages::of(&self.file, start, bytes, column.compression())?;
            delta.extend(any_delta.then_some(column));
            // The page as stored; the page and a dictionary decoded; the lengths of values.
            pages += stored + 2 * decoded + 8 * values;
            // An array of values takes up to twice their bytes while it grows.
            row += 2 * decoded;
        }
        let rows = max.saturating_sub(pages) / row.max(1);
        if rows == 0 {
            return Ok(Err(pages + row));
        }
        delta.into_iter().try_for_each(|column| check_counts(&self.file, column))?;
        Ok(Ok(rows.min(BATCH_ROWS)))
    }
}

/// Returns the number of rows. The metadata give it twice and must agree, and the columns must lie within the
/// file.
fn check_metadata(metadata: &ParquetMetaData, file_bytes: u64) -> Result<u64, Cause> {
    let total = metadata.file_metadata().num_rows();
    let mut sum = 0_u64;
    for group in metadata.row_groups() {
        let rows = u64::try_from(group.num_rows())?;
        sum = sum.checked_add(rows).ok_or("too many rows")?;
        for column in group.columns() {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let (start, bytes) = (u64::try_from(start)?, u64::try_from(column.compressed_size())?);
            if start.checked_add(bytes).is_none_or(|end| end > file_bytes) {
                let name = column.column_path().string();
                return Err(format!("column {name:?} goes beyond the end of the file").into());
            }
        }
    }
    if u64::try_from(total)? != sum {
        return Err(format!("the file has {total} rows, its row groups together {sum}").into());
    }
    Ok(sum)
}

/// Returns the positions of id, title and text among the columns of the file.
fn find_columns(
    file: &Path,
    schema: &SchemaRef,
    columns: &Columns,
) -> Result<[Option<usize>; 3], CorpusError> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let id = columns.require(DocumentField::Id, &names, file.display())?;
    let title = columns.title(&names, file.display())?;
    let text = columns.require(DocumentField::Text, &names, file.display())?;
    let found = [
        (DocumentField::Id, Some(id)),
        (DocumentField::Title, title),
        (DocumentField::Text, Some(text)),
    ];
    for (field, index) in found {
        let Some(index) = index else { continue };
        let kind = schema.field(index).data_type();
        let fits = match kind {
            DataType::Utf8 => true,
            kind => field == DocumentField::Id && kind.is_integer(),
        };
        if !fits {
            return Err(CorpusError::ColumnType {
                path: file.to_path_buf(),
                field,
                name: names[index].to_owned(),
                found: kind.to_string(),
            });
        }
    }
    Ok(found.map(|(_, index)| index))
}

impl ParquetRows {
    pub(crate) fn open(
        file: &Arc<Path>,
        columns: &Columns,
        limits: &Limits,
    ) -> Result<Self, CorpusError> {
        let opened = Opened::open(file, limits)?;
        let found = find_columns(file, opened.metadata.schema(), columns)?;
        let mut needed: Vec<usize> = found.into_iter().flatten().collect();
        needed.sort_unstable();
        needed.dedup();
        let columns = found.map(|index| needed.iter().position(|needed| Some(*needed) == index));
        Ok(Self {
            opened,
            limits: *limits,
            row: 0,
            next_group: 0,
            group_end: 0,
            reader: None,
            needed,
            columns,
            batch: None,
        })
    }

    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, CorpusError> {
        let batch = loop {
            match &mut self.batch {
                Some(batch) if batch.next < batch.id.len() => break batch,
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
        let place = Place::row(&self.opened.path, self.row);
        let document = batch.document(index, &place, &self.limits)?;
        let bytes = self.bytes_up_to(self.row) - self.bytes_up_to(self.row - 1);
        Ok(Some(Row { document, place, bytes }))
    }

    /// Decodes the next rows of the current row group; `None` at its end.
    fn next_batch(&mut self) -> Result<Option<RowBatch>, CorpusError> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let (end, row) = (self.group_end, self.row);
        guarded(&self.opened.path, row, || -> Result<_, Cause> {
            match reader.next() {
                Some(batch) => RowBatch::new(&batch?, self.columns).map(Some),
                None if row == end => Ok(None),
                None => Err(format!("a row group ends after row {row}, not {end}").into()),
            }
        })
    }

    /// Goes to the next row group. `false` if there is none.
    fn open_group(&mut self) -> Result<bool, CorpusError> {
        let (group, max) = (self.next_group, self.limits.reader_bytes);
        let Opened { path, file, metadata, .. } = &self.opened;
        if group == metadata.metadata().num_row_groups() {
            return Ok(false);
        }
        self.reader = None;
        // The row counts of the metadata have been checked.
        let rows = metadata.metadata().row_group(group).num_rows() as u64;
        let batch_rows = || self.opened.batch_rows(group, &self.needed, max);
        let batch_rows = guarded(path, self.row, batch_rows)?.map_err(|needed| {
            let (path, first, last) = (path.to_path_buf(), self.row + 1, self.row + rows);
            CorpusError::Pages { path, first, last, needed, max }
        })?;
        let reader = guarded(path, self.row, || -> Result<_, Cause> {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
                file.try_clone()?,
                metadata.clone(),
            );
            let needed = self.needed.iter().copied();
            let mask = ProjectionMask::roots(builder.parquet_schema(), needed);
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
        let Opened { bytes, rows: all, .. } = self.opened;
        let share = u128::from(bytes) * u128::from(rows) / u128::from(all.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

impl RowBatch {
    fn new(batch: &RecordBatch, columns: [Option<usize>; 3]) -> Result<Self, Cause> {
        let [id, title, text] = columns.map(|index| {
            let column = batch.columns().get(index?)?;
            texts(column)
        });
        let id = id.ok_or("the id column is gone")?;
        let text = text.ok_or("the text column is gone")?;
        Ok(Self { id, title, text, next: 0 })
    }

    fn document(
        &self,
        index: usize,
        place: &Place,
        limits: &Limits,
    ) -> Result<Document, CorpusError> {
        let Some(id) = value(&self.id, index) else {
            return Err(CorpusError::Value {
                place: place.clone(),
                field: DocumentField::Id,
                found: "null",
            });
        };
        let id = document_id(id, place)?;
        let title = self.title.as_ref().and_then(|title| value(title, index)).unwrap_or_default();
        let text = value(&self.text, index).unwrap_or_default();
        check_length(title, text, place, limits)?;
        Ok(Document { id, title: title.to_owned(), text: text.to_owned() })
    }
}

/// Returns a column of strings unchanged and a column of integers as digits.
fn texts(column: &ArrayRef) -> Option<StringArray> {
    match column.data_type() {
        DataType::Int8 => digits::<Int8Type>(column),
        DataType::Int16 => digits::<Int16Type>(column),
        DataType::Int32 => digits::<Int32Type>(column),
        DataType::Int64 => digits::<Int64Type>(column),
        DataType::UInt8 => digits::<UInt8Type>(column),
        DataType::UInt16 => digits::<UInt16Type>(column),
        DataType::UInt32 => digits::<UInt32Type>(column),
        DataType::UInt64 => digits::<UInt64Type>(column),
        _ => column.as_string_opt().cloned(),
    }
}

fn digits<T: ArrowPrimitiveType<Native: ToString>>(column: &ArrayRef) -> Option<StringArray> {
    let integers = column.as_primitive_opt::<T>()?.iter();
    Some(integers.map(|integer| integer.map(|integer| integer.to_string())).collect())
}

fn value(column: &StringArray, index: usize) -> Option<&str> {
    column.is_valid(index).then(|| column.value(index))
}

/// Runs a step of the decoder after `row` rows. The parquet crate has asserts that a damaged file can reach.
/// Such a panic ends the reading of this file like any other error, and whatever was being decoded is
/// dropped.
fn guarded<T, E: Into<Cause>>(
    path: &Path,
    row: u64,
    step: impl FnOnce() -> Result<T, E>,
) -> Result<T, CorpusError> {
    let result = match hyperrag_core::guarded(step) {
        Ok(result) => result.map_err(Into::into),
        Err(panic) => Err(format!("the decoder stopped: {panic}").into()),
    };
    result.map_err(|source| CorpusError::Parquet { path: path.to_path_buf(), row, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Folder, parquet_bytes, parquet_with, strings};
    use arrow_array::{
        BinaryArray, DictionaryArray, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
        LargeStringArray, StringViewArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
    };
    use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
    use parquet::file::properties::{WriterProperties, WriterVersion};

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
        let expected = "no text column: looked for \"text\", \"contents\", \"body\", found \"id\", \
                        \"txt\"";
        check(vec![("id", two()), ("txt", two())], Columns::default(), expected);
        let columns = vec![("key", two()), ("text", two())];
        check(columns.clone(), Columns::default(), "no id column: looked for");
        let named =
            Columns { id: Some("key".into()), title: Some("head".into()), ..Columns::default() };
        check(columns, named, "no title column: looked for \"head\"");
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0]));
        let expected = "column \"id\" has type Float64, the id must be a string or a whole number";
        check(vec![("id", Arc::clone(&floats)), ("text", two())], Columns::default(), expected);
        check(vec![("id", two()), ("text", floats)], Columns::default(), "must be a string");
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![b"a".as_slice(), b"b"]));
        check(vec![("id", two()), ("text", bytes)], Columns::default(), "has type Binary");
        let id = strings(&[Some("1"), None]);
        let expected = "c.parquet row 2: the id is null";
        check(vec![("id", id), ("text", two())], Columns::default(), expected);
        check(
            vec![("id", pair("1", "")), ("text", two())],
            Columns::default(),
            "row 2: the document id is empty",
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

    /// Reads all rows and returns, for each, the number of rows of its batch.
    fn read_within(folder: &Folder, reader_bytes: u64) -> Result<Vec<usize>, String> {
        let path: Arc<Path> = Path::new(&format!("{}/c.parquet", folder.path())).into();
        let limits = Limits { reader_bytes, ..Limits::default() };
        let shorten = |error: CorpusError| error.to_string().replace(folder.path(), "DIR");
        let rows = ParquetRows::open(&path, &Columns::default(), &limits);
        let (mut rows, mut batches) = (rows.map_err(shorten)?, Vec::new());
        while rows.next_row().map_err(shorten)?.is_some() {
            batches.push(rows.batch.as_ref().unwrap().id.len());
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

            let path: Arc<Path> = Path::new(&format!("{}/c.parquet", folder.path())).into();
            let opened = Opened::open(&path, &Limits::default()).unwrap();
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
