//! The chunk file of a shard: chunks and documents come in, Parquet goes out, and back. It knows neither
//! blocks nor the manifest, so the caller checks digests.

use std::io::{self, Write};
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, UInt32Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array, UInt64Array};
use hyperrag_core::{Chunk, ChunkId, DocId, Document, Slot};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// Chunks of a shard by slot, and the documents that they were cut from. From these every block can be
/// computed and every document indexed again.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardChunks {
    /// Chunk of each slot.
    pub chunks: Vec<Chunk>,
    /// Documents, in order of their first slot.
    pub documents: Vec<IndexedDocument>,
}

/// A document with its row in the input and its blocks in the shard.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexedDocument {
    /// Row of the input, counted from 0.
    pub row: u64,
    /// The document.
    pub document: Document,
    /// Slot of the document's first chunk.
    pub first_slot: Slot,
    /// Number of the document's chunks.
    pub chunks: u32,
}

/// Writes the chunk file of a shard, one row a chunk. The first chunk of a document holds title and text.
pub(crate) fn write(file: impl Write + Send, contents: &ShardChunks) -> io::Result<()> {
    let first: std::collections::HashMap<u32, &IndexedDocument> =
        contents.documents.iter().map(|document| (document.first_slot.0, document)).collect();
    let mut tokens = ListBuilder::new(UInt32Builder::new());
    let (mut rows, mut titles, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    let mut row = 0;
    for (slot, chunk) in (0..).zip(&contents.chunks) {
        tokens.values().append_slice(&chunk.tokens);
        tokens.append(true);
        let document = first.get(&slot).map(|document| &document.document);
        row = first.get(&slot).map_or(row, |document| document.row);
        rows.push(row);
        titles.push(document.map(|document| document.title.as_str()));
        texts.push(document.map(|document| document.text.as_str()));
    }
    let chunks = contents.chunks.iter();
    let columns: [(&str, ArrayRef); 7] = [
        (
            "document_id",
            Arc::new(StringArray::from_iter_values(chunks.clone().map(|c| c.id.document.as_str()))),
        ),
        ("ordinal", Arc::new(UInt32Array::from_iter_values(chunks.clone().map(|c| c.id.ordinal)))),
        ("length", Arc::new(UInt32Array::from_iter_values(chunks.map(|c| c.tokens.len() as u32)))),
        ("tokens", Arc::new(tokens.finish())),
        ("row", Arc::new(UInt64Array::from(rows))),
        ("title", Arc::new(StringArray::from(titles))),
        ("text", Arc::new(StringArray::from(texts))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| {
        let nullable = matches!(name, "title" | "text");
        (name, column, nullable)
    }));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by("hyperrag".to_owned())
        .build();
    let write = |batch: RecordBatch| {
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
        writer.write(&batch)?;
        writer.close()
    };
    batch.map_err(parquet::errors::ParquetError::from).and_then(write).map(drop).map_err(into_io)
}

/// Returns the cause if it is an I/O error, so that the caller can tell a full disk from other errors.
fn into_io(error: parquet::errors::ParquetError) -> io::Error {
    match error {
        parquet::errors::ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        error => io::Error::other(error),
    }
}

/// Reads the bytes of a chunk file. The caller has checked their digest.
pub(crate) fn read(bytes: Vec<u8>) -> Result<ShardChunks, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| error.to_string())?;
    let mut contents = ShardChunks { chunks: Vec::new(), documents: Vec::new() };
    for batch in reader {
        let batch = batch.map_err(|error| error.to_string())?;
        read_batch(&batch, &mut contents).ok_or("its columns are not those of a chunk file")?;
    }
    Ok(contents)
}

fn read_batch(batch: &RecordBatch, contents: &mut ShardChunks) -> Option<()> {
    let column = |name: &str| batch.column_by_name(name);
    let ids = column("document_id")?.as_string_opt::<i32>()?;
    let ordinals = column("ordinal")?.as_primitive_opt::<UInt32Type>()?;
    let tokens = column("tokens")?.as_list_opt::<i32>()?;
    let rows = column("row")?.as_primitive_opt::<UInt64Type>()?;
    let titles = column("title")?.as_string_opt::<i32>()?;
    let texts = column("text")?.as_string_opt::<i32>()?;
    for i in 0..batch.num_rows() {
        let document = DocId::stored(ids.value(i)).ok()?;
        let values = tokens.value(i);
        let values = values.as_primitive_opt::<UInt32Type>()?;
        let slot = Slot(u32::try_from(contents.chunks.len()).ok()?);
        if texts.is_valid(i) {
            let (title, text) = (titles.value(i).to_owned(), texts.value(i).to_owned());
            let document = Document { id: document.clone(), title, text };
            let indexed =
                IndexedDocument { row: rows.value(i), document, first_slot: slot, chunks: 0 };
            contents.documents.push(indexed);
        }
        contents.documents.last_mut()?.chunks += 1;
        let id = ChunkId { document, ordinal: ordinals.value(i) };
        contents.chunks.push(Chunk { id, tokens: values.values().to_vec() });
    }
    Some(())
}
