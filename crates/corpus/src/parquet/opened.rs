//! A Parquet file whose metadata are read and checked: a file that is read by ranges and limits come in; the file
//! with a row group that is at hand, and how many of its rows may be decoded together, go out. Damage and panics of
//! the decoder become errors.

use std::error::Error;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::Encoding;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};

use crate::delta::check_counts;
use crate::error::CorpusError;
use crate::limits::Limits;
use crate::pages::LargestPages;
use crate::parquet::groups::with_typed_groups;
use crate::parquet::records::LargestList;
use crate::ranges::RangeFile;

/// End of every Parquet file.
const MAGIC: &[u8] = b"PAR1";
/// Largest number of rows decoded at a time.
const BATCH_ROWS: u64 = 256;
/// Size of the footer, which begins with the length of the metadata before it, in bytes.
const FOOTER_BYTES: u64 = 8;
/// Bytes at the end of a file elsewhere that are fetched together, since most metadata are in them.
const END_BYTES: u64 = 64 << 10;
/// Bytes that a value of a list takes beside its text: a view, its levels, and both again while they grow.
const LIST_VALUE_BYTES: u64 = 48;

pub(crate) type Cause = Box<dyn Error + Send + Sync>;

/// A Parquet file with metadata that are read and checked.
pub(crate) struct Opened {
    pub(crate) file: RangeFile,
    pub(crate) metadata: ArrowReaderMetadata,
    /// Number of rows by the metadata.
    pub(crate) rows: u64,
}

impl Opened {
    pub(crate) fn open(mut file: RangeFile, limits: &Limits) -> Result<Self, CorpusError> {
        let (path, bytes) = (Arc::clone(&file.path), file.bytes);
        let io = |source| CorpusError::Io { path: path.to_path_buf(), source };
        file.hold_end(END_BYTES)?;
        let mut footer = [0; FOOTER_BYTES as usize];
        // The decoder refuses a file that is too short for a footer.
        if let Some(start) = bytes.checked_sub(FOOTER_BYTES) {
            file.held.read_exact_at(&mut footer, start).map_err(io)?;
        }
        let [a, b, c, d, ..] = footer;
        let (length, max) = (u64::from(u32::from_le_bytes([a, b, c, d])), limits.metadata_bytes());
        if length > max && length <= bytes {
            return Err(CorpusError::Metadata { path: path.to_path_buf(), bytes: length, max });
        }
        if length + FOOTER_BYTES > END_BYTES && length <= bytes && footer.ends_with(MAGIC) {
            file.hold_end(length + FOOTER_BYTES)?;
        }
        // An embedded Arrow schema is ignored, so a string column is Utf8, whether the writer had it as a
        // view, a dictionary or large.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let (metadata, rows) = guarded(&path, 0, || -> Result<_, Cause> {
            let metadata = match ArrowReaderMetadata::load(&file.held, options.clone()) {
                Ok(metadata) => metadata,
                Err(error) => load_mended(&file.held, bytes, length, options)?.ok_or(error)?,
            };
            let rows = check_metadata(metadata.metadata(), bytes)?;
            Ok((metadata, rows))
        })?;
        Ok(Self { file, metadata, rows })
    }

    /// Puts the columns at `leaves` of a row group at hand. `row` is the number of rows read before.
    pub(crate) fn hold(
        &mut self,
        group: usize,
        leaves: &[usize],
        row: u64,
    ) -> Result<(), CorpusError> {
        if !self.file.is_elsewhere() {
            return Ok(());
        }
        let metadata = self.metadata.metadata().row_group(group);
        let ranges = guarded(&self.file.path, row, || -> Result<_, Cause> {
            let ranges = leaves.iter().map(|leaf| metadata.column(*leaf).byte_range());
            Ok(joined(ranges.map(|(start, bytes)| start..start.saturating_add(bytes)).collect()))
        })?;
        self.file.hold(&ranges)
    }

    /// Returns the number of rows of a row group that may be decoded together, so that the largest pages of
    /// the columns at `leaves` and the values in them stay within `max` bytes. If a single row takes more,
    /// returns its bytes as the inner error.
    pub(crate) fn batch_rows(
        &self,
        group: usize,
        leaves: &[usize],
        max: u64,
    ) -> Result<Result<u64, u64>, Cause> {
        let group = self.metadata.metadata().row_group(group);
        let columns = || leaves.iter().map(|leaf| group.column(*leaf));
        let (mut pages, mut row, mut lists, mut delta) = (0, 0, Vec::new(), Vec::new());
        for column in columns() {
            let (start, bytes) = column.byte_range();
            let LargestPages { stored, decoded, values, any_delta } =
                LargestPages::of(&self.file.held, start, bytes, column.compression())?;
            delta.extend(any_delta.then_some(column));
            // The page as stored; the page and a dictionary decoded; the lengths of values.
            pages += stored + 2 * decoded + 8 * values;
            // An array of values takes up to twice their bytes while it grows. A value of fixed length takes
            // its bytes even if it is null.
            let fixed = u64::try_from(column.column_descr().type_length()).unwrap_or_default();
            row += 2 * decoded.max(fixed);
            if column.column_descr().max_rep_level() > 0 {
                lists.push((column, decoded));
            }
        }
        // A list's pages are read once to measure it, so one of them has to fit.
        if pages <= max {
            for (column, decoded) in lists {
                row += list_bytes(&self.file.held, column, decoded)?;
            }
        }
        let rows = max.saturating_sub(pages) / row.max(1);
        if rows == 0 {
            return Ok(Err(pages.saturating_add(row)));
        }
        delta.into_iter().try_for_each(|column| check_counts(&self.file.held, column))?;
        Ok(Ok(rows.min(BATCH_ROWS)))
    }
}

/// Sorts ranges and joins those that touch.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Returns the bytes that the largest list of a column takes once it is decoded. Its values are views of the
/// bytes of its pages, unless an encoding shares prefixes between values: then each takes up to `decoded`
/// bytes of its own.
fn list_bytes(file: &File, column: &ColumnChunkMetaData, decoded: u64) -> Result<u64, Cause> {
    let LargestList { values, bytes } = LargestList::of(file, column)?;
    let value = match column.encodings().any(|encoding| encoding == Encoding::DELTA_BYTE_ARRAY) {
        true => LIST_VALUE_BYTES + decoded,
        false => LIST_VALUE_BYTES,
    };
    Ok(values.saturating_mul(value).saturating_add(2 * bytes))
}

/// Loads the `length` bytes of metadata of a file of `bytes` bytes if the decoder refuses them for a fault
/// that can be mended.
fn load_mended(
    file: &File,
    bytes: u64,
    length: u64,
    options: ArrowReaderOptions,
) -> Result<Option<ArrowReaderMetadata>, Cause> {
    let start = bytes.checked_sub(FOOTER_BYTES).and_then(|end| end.checked_sub(length));
    let Some(start) = start else { return Ok(None) };
    let mut metadata = vec![0; usize::try_from(length)?];
    file.read_exact_at(&mut metadata, start)?;
    let Some(mended) = with_typed_groups(&metadata) else { return Ok(None) };
    let metadata = Arc::new(ParquetMetaDataReader::decode_metadata(&mended)?);
    Ok(Some(ArrowReaderMetadata::try_new(metadata, options)?))
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

/// Runs a step of the decoder after `row` rows. The parquet crate has asserts that a damaged file can reach.
/// Such a panic ends the reading of this file like any other error, and whatever was being decoded is
/// dropped.
pub(crate) fn guarded<T, E: Into<Cause>>(
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
