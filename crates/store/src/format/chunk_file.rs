//! The chunk file of a shard: chunks and documents come in, Parquet goes out, and back. It knows neither
//! blocks nor the manifest, so the caller checks digests.

use std::io::{self, Write};
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder, UInt32Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array, UInt64Array};
use hyperrag_core::{Chunk, ChunkId, DocId, Document, Slot};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::compute_leaves;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
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

/// Columns of a chunk file, in their order.
const COLUMNS: [Column; 7] = [
    Column { name: "document_id", nullable: false, array: document_ids },
    Column { name: "ordinal", nullable: false, array: ordinals },
    Column { name: "length", nullable: false, array: lengths },
    Column { name: "tokens", nullable: false, array: tokens },
    Column { name: "row", nullable: false, array: rows },
    Column { name: "title", nullable: true, array: titles },
    Column { name: "text", nullable: true, array: texts },
];

/// A column, and its values for the chunks of a shard.
struct Column {
    name: &'static str,
    nullable: bool,
    array: fn(&ShardChunks) -> ArrayRef,
}

/// Writes the chunk file of a shard, one row a chunk. The first chunk of a document holds title and text. One
/// column after the other is in memory, for each takes a long document several times.
pub(crate) fn write(file: impl Write + Send, contents: &ShardChunks) -> io::Result<()> {
    write_columns(file, contents).map_err(into_io)
}

fn write_columns(file: impl Write + Send, contents: &ShardChunks) -> Result<(), ParquetError> {
    let none = ShardChunks { chunks: Vec::new(), documents: Vec::new() };
    let empty = COLUMNS.map(|column| (column.name, (column.array)(&none), column.nullable));
    let schema = RecordBatch::try_from_iter_with_nullable(empty)?.schema();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by("hyperrag".to_owned())
        .build();
    let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?;
    let (mut writer, groups) = writer.into_serialized_writer()?;
    if !contents.chunks.is_empty() {
        let mut group = writer.next_row_group()?;
        // Every column has one leaf.
        let leaves = groups.create_column_writers(0)?.into_iter();
        for ((column, field), mut leaf) in COLUMNS.iter().zip(schema.fields()).zip(leaves) {
            for values in compute_leaves(field, &(column.array)(contents))? {
                leaf.write(&values)?;
            }
            leaf.close()?.append_to_row_group(&mut group)?;
        }
        group.close()?;
    }
    writer.close().map(drop)
}

fn document_ids(contents: &ShardChunks) -> ArrayRef {
    let ids = contents.chunks.iter().map(|chunk| chunk.id.document.as_str());
    Arc::new(StringArray::from_iter_values(ids))
}

fn ordinals(contents: &ShardChunks) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(contents.chunks.iter().map(|chunk| chunk.id.ordinal)))
}

fn lengths(contents: &ShardChunks) -> ArrayRef {
    let lengths = contents.chunks.iter().map(|chunk| chunk.tokens.len() as u32);
    Arc::new(UInt32Array::from_iter_values(lengths))
}

fn tokens(contents: &ShardChunks) -> ArrayRef {
    // Exact room: a buffer that grows to a long document's token ids would take three times theirs.
    let count = contents.chunks.iter().map(|chunk| chunk.tokens.len()).sum();
    let values = UInt32Builder::with_capacity(count);
    let mut tokens = ListBuilder::with_capacity(values, contents.chunks.len());
    for chunk in &contents.chunks {
        tokens.values().append_slice(&chunk.tokens);
        tokens.append(true);
    }
    Arc::new(tokens.finish())
}

fn rows(contents: &ShardChunks) -> ArrayRef {
    let mut row = 0;
    let rows = with_documents(contents).map(|document| {
        row = document.map_or(row, |document| document.row);
        row
    });
    Arc::new(UInt64Array::from_iter_values(rows))
}

fn titles(contents: &ShardChunks) -> ArrayRef {
    of_first_chunks(contents, |document| &document.title)
}

fn texts(contents: &ShardChunks) -> ArrayRef {
    of_first_chunks(contents, |document| &document.text)
}

/// Returns a column with a value at the first chunk of each document.
fn of_first_chunks(contents: &ShardChunks, value: fn(&Document) -> &String) -> ArrayRef {
    let values = || with_documents(contents).map(|document| Some(value(&document?.document)));
    let bytes = values().flatten().map(String::len).sum();
    let mut column = StringBuilder::with_capacity(contents.chunks.len(), bytes);
    values().for_each(|value| column.append_option(value));
    Arc::new(column.finish())
}

/// Returns the document of each chunk that is the first of one.
fn with_documents(contents: &ShardChunks) -> impl Iterator<Item = Option<&IndexedDocument>> {
    let mut documents = contents.documents.iter().peekable();
    (0..contents.chunks.len() as u32)
        .map(move |slot| documents.next_if(|document| document.first_slot.0 == slot))
}

/// Returns the cause if it is an I/O error, so that the caller can tell a full disk from other errors.
fn into_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
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
