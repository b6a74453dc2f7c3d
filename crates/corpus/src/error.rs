//! Errors of reading a corpus, each with its place, its cause and a remedy.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use hyperrag_core::{DocId, InvalidId};

use crate::{Column, Place};

/// Reason why the corpus, or a row of it, cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// No input was named.
    #[error("no input: name Parquet, JSONL or TSV files, a folder of them, or a pattern")]
    NoInput,
    /// An input that does not exist.
    #[error("{}: no such file or folder", path.display())]
    NotFound {
        /// Path as the user named it.
        path: PathBuf,
    },
    /// A pattern that is not valid.
    #[error("{pattern}: not a valid pattern: quote its brackets as [[] and []]")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Position and description of the fault.
        #[source]
        source: glob::PatternError,
    },
    /// A pattern that matches nothing.
    #[error("{pattern}: no file matches this pattern")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A folder without files of a known kind.
    #[error(
        "{}: the folder holds no .parquet, .pq, .jsonl, .ndjson or .tsv file; for files in folders \
         below it use a pattern such as '{}/**/*.parquet'",
        path.display(), path.display()
    )]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A file whose extension is not known.
    #[error(
        "{}: not a known kind of file: the name must end in .parquet, .pq, .jsonl, .ndjson, .json \
         (one object a line) or .tsv",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A pipe or device.
    #[error("{}: not a regular file; the corpus is read more than once: write it to a file", path.display())]
    NotAFile {
        /// Path of the pipe or device.
        path: PathBuf,
    },
    /// A file or folder that the operating system refuses to read.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// No column, or no key of a JSON object, for the id or the text.
    #[error("{place}: no {column} column: looked for {wanted}, found {found}; name it with {}", column.flag())]
    MissingColumn {
        /// The file, or the line of a JSONL file.
        place: String,
        /// Column that was looked for.
        column: Column,
        /// Names that would be accepted.
        wanted: String,
        /// Names found.
        found: String,
    },
    /// A Parquet column whose type cannot be used.
    #[error(
        "{}: column {name:?} has type {found}, the {column} must be {}; convert it or name another \
         column with {}",
        path.display(), column.rule(), column.flag()
    )]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// Content that the column must have.
        column: Column,
        /// Name of the column.
        name: String,
        /// Type of the column.
        found: String,
    },
    /// A file that is damaged, is no Parquet file, or uses a feature that cannot be decoded.
    #[error(
        "{}: cannot be decoded as Parquet{}; check the file or write it again",
        path.display(), after(*row)
    )]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Number of rows read before.
        row: u64,
        /// Cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A Parquet file whose metadata take more memory than reading may.
    #[error(
        "{}: its metadata take {bytes} bytes, --memory allows {max}; give more, or write it as \
         several files", path.display()
    )]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Size of the metadata, in bytes.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A Parquet file with pages that take more memory than reading may.
    #[error(
        "{}: rows {first} to {last} stand in pages that take {needed} bytes, --memory allows {max}; \
         give more, or write the file with smaller pages", path.display()
    )]
    Pages {
        /// The file.
        path: PathBuf,
        /// First row of the row group, counted from 1.
        first: u64,
        /// Last row of the row group.
        last: u64,
        /// Bytes that decoding one row may take.
        needed: u64,
        /// The limit.
        max: u64,
    },
    /// A document that is too long.
    #[error(
        "{place}: the document has {bytes} bytes, --max-document-bytes allows {max}; split it or \
         allow more"
    )]
    DocumentTooLong {
        /// The row.
        place: Place,
        /// Bytes of its title and text.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A line that takes more memory than reading may.
    #[error(
        "{place}: the line is longer than {bytes_max} bytes, as --memory allows; split the document, \
         or give more"
    )]
    LineTooLong {
        /// The line.
        place: Place,
        /// The limit.
        bytes_max: usize,
    },
    /// A line that is not UTF-8.
    #[error("{place}: not valid UTF-8 at byte {byte} of the line; convert the file to UTF-8")]
    NotUtf8 {
        /// The line.
        place: Place,
        /// First invalid byte of the line, counted from 1.
        byte: usize,
    },
    /// A line that is not a JSON object.
    #[error("{place}: not valid JSON: {message}; every line must be one whole object")]
    Json {
        /// The line.
        place: Place,
        /// Message of serde_json, with the column in place of its line number, which is always 1.
        message: String,
    },
    /// A value of a kind that an id, title or text cannot have.
    #[error("{place}: the {column} is {found}, it must be {}", column.rule())]
    Value {
        /// The row.
        place: Place,
        /// Column of the value.
        column: Column,
        /// Kind of the value.
        found: &'static str,
    },
    /// An id that is not accepted.
    #[error("{place}: {reason}; change the id or name another column with --id-column")]
    Id {
        /// The row.
        place: Place,
        /// Rule that the id breaks.
        reason: InvalidId,
    },
    /// The first line of a TSV file is no header and has an unknown number of fields.
    #[error(
        "{place}: the number of fields is {fields}; it must be 2 (id, text), 3 (id, title, text) or \
         4 (id, url, title, text), or the first line must name the columns"
    )]
    TsvFields {
        /// The line.
        place: Place,
        /// Number of fields of the line.
        fields: usize,
    },
    /// A line of a TSV file has more or fewer fields than the first.
    #[error(
        "{place}: the number of fields is {fields}, that of the first line {expected}; a tab or a \
         line end inside a text must be replaced by a blank"
    )]
    TsvUneven {
        /// The line.
        place: Place,
        /// Number of fields of the line.
        fields: usize,
        /// Number of fields of the first line.
        expected: usize,
    },
    /// Two documents with the same id.
    #[error("{second}: document id {:?} occurs at {first} already; ids must be unique", id.as_str())]
    DuplicateId {
        /// The id.
        id: DocId,
        /// Place of its first occurrence.
        first: Place,
        /// Place of its second occurrence.
        second: Place,
    },
}

fn after(row: u64) -> String {
    if row == 0 { String::new() } else { format!(" after row {row}") }
}
