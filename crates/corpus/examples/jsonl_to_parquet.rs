//! Converts a corpus to one Parquet file: `jsonl_to_parquet IN.jsonl OUT.parquet`.
//!
//! The project's `testdata/corpus.parquet` was made with it.

use std::error::Error;
use std::fs::File;
use std::io::{Write, stderr};
use std::process::ExitCode;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::StringArray;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use hyperrag_core::{Document, sentence};
use hyperrag_corpus::{Columns, Corpus};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// Number of rows of a row group.
const GROUP_ROWS: usize = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [input, output] => convert(input, output),
        _ => Err("usage: jsonl_to_parquet IN.jsonl OUT.parquet".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "{}", sentence(&*error));
            ExitCode::FAILURE
        }
    }
}

fn convert(input: &str, output: &str) -> Result<(), Box<dyn Error>> {
    let corpus = Corpus::open(&[input.to_owned()], Columns::default())?;
    let fields = ["_id", "title", "text"].map(|name| Field::new(name, DataType::Utf8, false));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(9)?))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build();
    let file = File::create(output)?;
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?;
    let mut documents = Vec::new();
    for row in corpus.rows() {
        documents.push(row?.document);
        if documents.len() == GROUP_ROWS {
            writer.write(&batch(&schema, &documents)?)?;
            documents.clear();
        }
    }
    writer.write(&batch(&schema, &documents)?)?;
    writer.close()?;
    Ok(())
}

fn batch(schema: &SchemaRef, documents: &[Document]) -> Result<RecordBatch, Box<dyn Error>> {
    let column = |value: fn(&Document) -> &str| {
        Arc::new(StringArray::from_iter_values(documents.iter().map(value))) as _
    };
    let columns = vec![
        column(|document| document.id.as_str()),
        column(|document| &document.title),
        column(|document| &document.text),
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
