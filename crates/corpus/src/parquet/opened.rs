//! A Parquet file whose metadata are read and checked: a path and limits come in; the file, and how many of
//! its rows may be decoded together, go out. Damage and panics of the decoder become errors.

use std::error::Error;
use std::fs::File;
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

/// Largest number of rows decoded at a time.
const BATCH_ROWS: u64 = 256;
/// Size of the footer, which begins with the length of the metadata before it, in bytes.
const FOOTER_BYTES: u64 = 8;
/// Bytes that a value of a list takes beside its text: a view, its levels, and both again while they grow.
const LIST_VALUE_BYTES: u64 = 48;

pub(crate) type Cause = Box<dyn Error + Send + Sync>;

/// A Parquet file with metadata that are read and checked.
pub(crate) struct Opened {
    pub(crate) path: Arc<Path>,
    pub(crate) file: File,
    pub(crate) metadata: ArrowReaderMetadata,
    /// Number of rows by the metadata.
    pub(crate) rows: u64,
    /// Size of the whole file, in bytes.
    pub(crate) bytes: u64,
}

impl Opened {
    pub(crate) fn open(path: &Arc<Path>, limits: &Limits) -> Result<Self, CorpusError> {
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
            let metadata = match ArrowReaderMetadata::load(&file, options.clone()) {
                Ok(metadata) => metadata,
                Err(error) => load_mended(&file, bytes, length, options)?.ok_or(error)?,
            };
            let rows = check_metadata(metadata.metadata(), bytes)?;
            Ok(Self { path: Arc::clone(path), file, metadata, rows, bytes })
        })
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
                LargestPages::of(&self.file, start, bytes, column.compression())?;
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
                row += list_bytes(&self.file, column, decoded)?;
            }
        }
        let rows = max.saturating_sub(pages) / row.max(1);
        if rows == 0 {
            return Ok(Err(pages.saturating_add(row)));
        }
        delta.into_iter().try_for_each(|column| check_counts(&self.file, column))?;
        Ok(Ok(rows.min(BATCH_ROWS)))
    }
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
