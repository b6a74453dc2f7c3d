//! Temporary folders and Parquet files for the tests of several modules.

use std::fs;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::{ArrayRef, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::SchemaDescriptor;

use crate::columns::Columns;
use crate::corpus::Corpus;

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

    fn shorten(&self, text: &str) -> String {
        text.replace(self.path(), "DIR")
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
