//! Errors of reading a corpus, each with its place, its cause and a remedy. A remedy in settings of the
//! program is a [`Hint`].

use std::error::Error;
use std::io;
use std::path::PathBuf;

use hyperrag_core::{Classified, DocId, DocumentField, ErrorKind, Hint, InvalidId, TierError};

use crate::place::{Place, listed};

/// Reason why the corpus, or a row of it, cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// No input was named.
    #[error("no input: name Parquet, JSON, TSV or CSV files, a folder of them, or a pattern")]
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
        source: globset::Error,
    },
    /// A pattern that matches nothing.
    #[error("{pattern}: no file matches this pattern")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A folder without files of a known kind.
    #[error(
        "{}: the folder holds no .parquet, .pq, .jsonl, .ndjson, .tsv or .csv file, nor one of these \
         with .gz or .zst; for files in folders below it use a pattern such as '{}/**/*.parquet'",
        path.display(), path.display()
    )]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A URL that names neither an object nor a folder of some.
    #[error(
        "{name}: there is no such object, and none directly below it; a pattern is not read there: name a folder, as \
         in s3://BUCKET/FOLDER/"
    )]
    NoObject {
        /// URL without options.
        name: String,
    },
    /// A folder of a bucket without files of a known kind.
    #[error(
        "{name}: it holds no .parquet, .pq, .jsonl, .ndjson, .tsv or .csv object, nor one of these with .gz \
         or .zst; objects in folders below it are not read"
    )]
    EmptyPrefix {
        /// URL without options.
        name: String,
    },
    /// A place outside this machine that does not give a file.
    #[error("{name}: the place {source}")]
    Elsewhere {
        /// Name of the file, or URL without options.
        name: String,
        /// Cause.
        source: TierError,
    },
    /// A file outside this machine that has other contents than when the corpus was opened.
    #[error("{}: it was replaced or removed while it was in use; run the command again", path.display())]
    Replaced {
        /// Name of the file.
        path: PathBuf,
    },
    /// A file whose extension is not known.
    #[error(
        "{}: not a known kind of file: the name must end in .parquet, .pq, .jsonl, .ndjson, .json, .tsv \
         or .csv, the last five also with .gz or .zst",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A device or socket, or a pipe in a folder.
    #[error("{}: no plain file; only a pipe that is named itself is read too", path.display())]
    NotAFile {
        /// Path of the device, socket or pipe.
        path: PathBuf,
    },
    /// A pipe whose first bytes tell no format.
    #[error(
        "{}: not a known kind of text: it begins neither with a JSON object or array nor with fields \
         between tabs", path.display()
    )]
    UnknownText {
        /// Name of the pipe.
        path: PathBuf,
    },
    /// A Parquet file in a pipe.
    #[error("{}: Parquet cannot be read from a pipe; write it to a file", path.display())]
    ParquetInPipe {
        /// Name of the pipe.
        path: PathBuf,
    },
    /// A pipe whose contents cannot be kept.
    #[error(
        "{}: cannot be copied to a temporary file in {}, from which the corpus is read more than once",
        name.display(), folder.display()
    )]
    Copy {
        /// Name of the pipe.
        name: PathBuf,
        /// Folder of the temporary file.
        folder: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A compressed file that is damaged or cut short.
    #[error("{place}: the compressed data are damaged or end too early")]
    Decompress {
        /// The line where reading stopped.
        place: Place,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A zstd file whose window takes more memory than reading may.
    #[error("{}: decompressing it takes more memory than reading may", path.display())]
    Window {
        /// The file.
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
    /// A file that became shorter while the corpus was in use.
    #[error("{}: the file was cut while it was read: it had {before} bytes and has {now}", path.display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// Bytes when the corpus was opened.
        before: u64,
        /// Bytes now.
        now: u64,
    },
    /// No column for the id or the text.
    #[error("{place}: no {field} column: looked for {wanted}, found {found}")]
    MissingColumn {
        /// The file, or the line of its header.
        place: String,
        /// Field that was looked for.
        field: DocumentField,
        /// Names that would be accepted.
        wanted: String,
        /// Names found.
        found: String,
    },
    /// No key of a JSON object for the id or the text.
    #[error("{place}: no {field} column: looked for {wanted}, found {found}")]
    MissingKey {
        /// The row.
        place: Place,
        /// Field that was looked for.
        field: DocumentField,
        /// Names that would be accepted.
        wanted: String,
        /// Names found.
        found: String,
    },
    /// A Parquet column whose type cannot be used.
    #[error("{}: column {name:?} has type {found}, the {field} must be {}", path.display(), rule(*field))]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// Field that the column must hold.
        field: DocumentField,
        /// Name of the column.
        name: String,
        /// Type of the column.
        found: String,
    },
    /// A Parquet column of lists that was not named.
    #[error(
        "{}: column {name:?} has lists of strings, which are joined by line ends if the column is \
         named",
        path.display()
    )]
    ListColumn {
        /// The file.
        path: PathBuf,
        /// Field that the column would hold.
        field: DocumentField,
        /// Name of the column.
        name: String,
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
    #[error("{}: its metadata take {bytes} bytes, {max} are allowed", path.display())]
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
        "{}: rows {first} to {last} stand in pages that take {needed} bytes, {max} are allowed",
        path.display()
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
    #[error("{place}: the document has {bytes} bytes, {max} are allowed")]
    DocumentTooLong {
        /// The row.
        place: Place,
        /// Bytes of its title and text.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A line that takes more memory than reading may.
    #[error("{place}: the line is longer than {bytes_max} bytes, the limit")]
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
    #[error("{place}: not valid JSON: {message}; every {} must be one whole object", row(place))]
    Json {
        /// The line.
        place: Place,
        /// Message of serde_json, with the column in place of its line number, which is always 1.
        message: String,
    },
    /// A JSON array that is cut short or has a fault between its elements.
    #[error("{place}: not a whole JSON array: {what}")]
    Array {
        /// The last row that was read.
        place: Place,
        /// Fault.
        what: &'static str,
    },
    /// A quote that opens a field and is never closed.
    #[error("{place}: a quote that begins in this record is never closed")]
    OpenQuote {
        /// Line where the record begins.
        place: Place,
    },
    /// A value of a kind that an id, title or text cannot have.
    #[error("{place}: the {field} is {found}, it must be {}", rule(*field))]
    Value {
        /// The row.
        place: Place,
        /// Field of the value.
        field: DocumentField,
        /// Kind of the value.
        found: &'static str,
    },
    /// A value in a file of a binary format that is not UTF-8.
    #[error("{place}: the {field} is not valid UTF-8 at byte {byte}; write it as UTF-8")]
    ValueUtf8 {
        /// The row.
        place: Place,
        /// Field of the value.
        field: DocumentField,
        /// First invalid byte of the value, counted from 1.
        byte: usize,
    },
    /// An id that is a whole number too large for its type to be exact.
    #[error(
        "{place}: the id {id} is a floating-point number so large that it may have been rounded; \
         write the ids as strings or as integers of 64 bits (DuckDB writes HUGEINT, and every sum, so: \
         cast them to VARCHAR)"
    )]
    RoundedId {
        /// The row.
        place: Place,
        /// Number in the file.
        id: f64,
    },
    /// A 128-bit integer that is negative or very large.
    #[error(
        "{place}: the {field} is an integer of 128 bits that is negative or from 2^127 on, which the \
         file does not tell apart; write it as a string"
    )]
    SignOfInteger {
        /// The row.
        place: Place,
        /// Field of the value.
        field: DocumentField,
    },
    /// An id that is not accepted.
    #[error("{place}: {reason}")]
    Id {
        /// The row.
        place: Place,
        /// Rule that the id breaks.
        reason: InvalidId,
    },
    /// The first line of a table is no header and has an unknown number of fields.
    #[error(
        "{place}: the number of fields is {fields}; it must be 2 (id, text), 3 (id, title, text) or \
         4 (id, url, title, text), or the first line must name the columns"
    )]
    TableFields {
        /// The line.
        place: Place,
        /// Number of fields of the line.
        fields: usize,
    },
    /// A line of a table has more or fewer fields than the first.
    #[error(
        "{place}: the number of fields is {fields}, that of the first line {expected}; a text with a \
         delimiter or a line end must stand in quotes that are read, or have blanks for them"
    )]
    TableUneven {
        /// The line.
        place: Place,
        /// Number of fields of the line.
        fields: usize,
        /// Number of fields of the first line.
        expected: usize,
    },
    /// A line of queries without a tab.
    #[error("{place}: expected an id, a tab and the query")]
    QueryFields {
        /// The line.
        place: Place,
        /// Number of fields of the line.
        fields: usize,
    },
    /// Several rows that cannot be read.
    #[error("{first}; {count} rows cannot be read{}: {}", unread(*is_all), listed(places, *count))]
    BadRows {
        /// The first one's error.
        first: Box<CorpusError>,
        /// Places of the first ones.
        places: Vec<Place>,
        /// Number of these rows.
        count: u64,
        /// Whether there are no more: the rows after them were read.
        is_all: bool,
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

impl CorpusError {
    /// Whether the fault is that of one row, so that the rows after it can be read.
    #[must_use]
    pub fn is_of_row(&self) -> bool {
        self.place_of_row().is_some()
    }

    /// Returns the place of the row, if the fault is that of one row.
    pub(crate) fn place_of_row(&self) -> Option<&Place> {
        match self {
            Self::MissingKey { place, .. }
            | Self::DocumentTooLong { place, .. }
            | Self::LineTooLong { place, .. }
            | Self::NotUtf8 { place, .. }
            | Self::Json { place, .. }
            | Self::Value { place, .. }
            | Self::ValueUtf8 { place, .. }
            | Self::RoundedId { place, .. }
            | Self::SignOfInteger { place, .. }
            | Self::Id { place, .. }
            | Self::TableUneven { place, .. }
            | Self::QueryFields { place, .. } => Some(place),
            _ => None,
        }
    }
}

impl Classified for CorpusError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } | Self::Copy { .. } => ErrorKind::Refused,
            Self::Elsewhere { source, .. } => source.kind(),
            _ => ErrorKind::Input,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::MissingColumn { field, .. }
            | Self::MissingKey { field, .. }
            | Self::ListColumn { field, .. } => Some(Hint::NameColumn(*field)),
            Self::ColumnType { field, .. } | Self::Value { field, .. } => {
                Some(Hint::OtherColumn(*field))
            }
            Self::Id { .. } => Some(Hint::OtherColumn(DocumentField::Id)),
            Self::UnknownFormat { .. } | Self::UnknownText { .. } => Some(Hint::NameFormat),
            Self::TableUneven { .. } => Some(Hint::ReadQuotes),
            Self::Json { .. } | Self::NotUtf8 { .. } | Self::ValueUtf8 { .. } => {
                Some(Hint::SkipBadRows)
            }
            Self::BadRows { first, .. } => first.hint(),
            Self::Copy { .. } => Some(Hint::OtherTemporaryFolder),
            Self::Window { .. } => {
                Some(Hint::MoreMemory { or: "compress it with a smaller window" })
            }
            Self::DocumentTooLong { .. } => Some(Hint::LongerDocuments),
            Self::LineTooLong { .. } => Some(Hint::MoreMemory { or: "split the document" }),
            Self::Metadata { .. } => Some(Hint::MoreMemory { or: "write it as several files" }),
            Self::Pages { .. } => {
                Some(Hint::MoreMemory { or: "write the file with smaller pages" })
            }
            _ => None,
        }
    }
}

/// Returns the kinds of values that a field may have.
fn rule(field: DocumentField) -> &'static str {
    match field {
        DocumentField::Id => "a string or a whole number",
        DocumentField::Title | DocumentField::Text => "a string or null",
    }
}

/// Names a row at this place.
fn row(place: &Place) -> &'static str {
    if place.is_line { "line" } else { "row" }
}

fn unread(is_all: bool) -> &'static str {
    if is_all { "" } else { ", and perhaps others after them" }
}

fn after(row: u64) -> String {
    if row == 0 { String::new() } else { format!(" after row {row}") }
}
