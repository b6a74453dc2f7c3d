//! Temporary folders, Parquet files and a place outside this machine for the tests of several modules.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arrow_array::RecordBatch;
use arrow_array::{ArrayRef, StringArray};
use bytes::Bytes;
use hyperrag_core::{FileVersion, FolderEntry, RangeError, RangePlace, RangeRead, TierError};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::SchemaDescriptor;

use crate::columns::Columns;
use crate::corpus::Corpus;
use crate::options::ReadOptions;

/// A temporary folder.
pub(crate) struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// Writes a file and the folders above it, and returns its path.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Opens `inputs`, which are names in this folder.
    pub(crate) fn corpus(&self, inputs: &[&str], columns: Columns) -> Result<Corpus, String> {
        let inputs: Vec<String> =
            inputs.iter().map(|input| format!("{}/{input}", self.path())).collect();
        Corpus::open(&inputs, columns).map_err(|error| self.shorten(&error.to_string()))
    }

    /// Returns the rows as `id/title/text`, and the error that ended them.
    pub(crate) fn read(&self, corpus: &Corpus) -> Vec<String> {
        let rows = corpus.rows().map(|row| match row {
            Ok(row) => {
                let document = row.document;
                format!("{}/{}/{}", document.id, document.title, document.text)
            }
            Err(error) => self.shorten(&error.to_string()),
        });
        rows.collect()
    }

    /// Opens `inputs`, which are names below this folder, from a place that has its files as they are now.
    pub(crate) fn corpus_elsewhere(
        &self,
        inputs: &[&str],
        place: &Elsewhere,
    ) -> Result<Corpus, String> {
        let inputs: Vec<String> =
            inputs.iter().map(|input| format!("mem://{}/{input}", self.path())).collect();
        let (columns, options) = (Columns::default(), ReadOptions::default());
        let corpus = Corpus::open_anywhere(&inputs, columns, options, Some(place));
        corpus.map_err(|error| self.shorten(&error.to_string()))
    }

    fn shorten(&self, text: &str) -> String {
        text.replace(self.path(), "DIR")
    }
}

/// Place outside this machine whose `mem://` URLs lead to the files of this one, with a count of the bytes read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Elsewhere {
    pub(crate) read: Arc<AtomicU64>,
    /// Versions of files by their names, where they are not the first.
    pub(crate) versions: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// A file of the place.
#[derive(Debug)]
struct MemoryFile {
    place: Elsewhere,
    version: FileVersion,
    bytes: Vec<u8>,
}

impl Elsewhere {
    fn e_tag(&self, name: &str) -> String {
        self.versions.lock().unwrap().get(name).copied().unwrap_or_default().to_string()
    }

    /// Returns the bytes read since the last call.
    pub(crate) fn take_read(&self) -> u64 {
        self.read.swap(0, Ordering::Relaxed)
    }
}

impl RangePlace for Elsewhere {
    fn open(&self, url: &str) -> Result<Option<Arc<dyn RangeRead>>, TierError> {
        // Options tell places apart, and are no part of a name.
        let url = url.split_once('?').map_or(url, |(url, _)| url);
        let path = url.strip_prefix("mem://");
        let path = path.ok_or_else(|| TierError::Refused("no mem://".to_owned()))?;
        let Ok(bytes) = fs::read(path) else { return Ok(None) };
        let e_tag = self.e_tag(url);
        let version = FileVersion { name: url.to_owned(), bytes: bytes.len() as u64, e_tag };
        Ok(Some(Arc::new(MemoryFile { place: self.clone(), version, bytes })))
    }

    fn list(&self, folder: &str) -> Result<Vec<FolderEntry>, TierError> {
        let folder = folder.trim_end_matches('/');
        let entries = fs::read_dir(folder.trim_start_matches("mem://"));
        let names = entries.into_iter().flatten().flatten().filter(|entry| entry.path().is_file());
        let url = |name: &str| format!("{folder}/{name}");
        let urls = names.map(|entry| url(&entry.file_name().to_string_lossy()));
        let mut listed: Vec<_> = urls.map(|url| FolderEntry { name: url.clone(), url }).collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }
}

impl RangeRead for MemoryFile {
    fn version(&self) -> &FileVersion {
        &self.version
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes, RangeError> {
        if self.place.e_tag(&self.version.name) != self.version.e_tag {
            return Err(RangeError::Changed);
        }
        self.place.read.fetch_add(range.end - range.start, Ordering::Relaxed);
        Ok(Bytes::copy_from_slice(&self.bytes[range.start as usize..range.end as usize]))
    }
}

/// Makes a column of strings.
pub(crate) fn strings(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Writes a Parquet file and returns its bytes.
pub(crate) fn parquet_bytes(
    columns: Vec<(&str, ArrayRef)>,
    group_rows: usize,
    zstd: bool,
) -> Vec<u8> {
    let level = ZstdLevel::default();
    let properties = WriterProperties::builder()
        .set_compression(if zstd { Compression::ZSTD(level) } else { Compression::UNCOMPRESSED })
        .set_max_row_group_row_count(Some(group_rows));
    parquet_with(columns, properties.build())
}

/// Writes a Parquet file with columns of these types in the file's own schema, e.g. `message m { required
/// fixed_len_byte_array(16) id (UUID); }`, and returns its bytes.
pub(crate) fn parquet_typed(schema: &str, columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let columns = columns.into_iter().map(|(name, column)| (name, column, false));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let schema = SchemaDescriptor::new(Arc::new(parse_message_type(schema).unwrap()));
    let options = ArrowWriterOptions::new().with_parquet_schema(schema);
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new_with_options(&mut bytes, batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// Writes a Parquet file with these properties and returns its bytes.
pub(crate) fn parquet_with(
    columns: Vec<(&str, ArrayRef)>,
    properties: WriterProperties,
) -> Vec<u8> {
    let columns = columns.into_iter().map(|(name, column)| (name, column, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}
