//! Flags of `build`, and of a corpus's columns.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use hyperrag_core::KvDtype;
use hyperrag_retrieval::{Analyzer, UnknownLanguage};

use crate::cli::model::ModelArgs;
use crate::cli::partition::PartitionArgs;

/// Format of input that its name does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// Parquet.
    Parquet,
    /// JSON: an object a line, or one array of objects.
    #[value(alias = "jsonl", alias = "ndjson")]
    Json,
    /// Fields between tabs.
    Tsv,
    /// Fields between commas, some in quotes.
    Csv,
}

/// Meaning of quotes in TSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Quoting {
    /// None: they are part of the text, as in MS MARCO; a line is a document.
    None,
    /// They enclose a field, as in CSV, and as pandas writes TSV.
    Csv,
}

/// Treatment of a row that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnBadRow {
    /// Stop and name it.
    Fail,
    /// Leave it out: the first ten are named, all are counted, and the exit code is 3.
    Skip,
}

/// Columns and form of a corpus.
#[derive(Clone, Debug, Args)]
pub(crate) struct ColumnArgs {
    /// Column of the ids; without it the first there is of `_id`, `id`, `doc_id`, `docid`, `docno`,
    /// `document_id`, `pid` and `passage_id`.
    #[arg(long, value_name = "NAME")]
    pub(crate) id_column: Option<String>,
    /// Column of the titles; without it the first there is of `title`, `heading`, `headline` and
    /// `name`.
    #[arg(long, value_name = "NAME")]
    pub(crate) title_column: Option<String>,
    /// Column of the texts; without it the first there is of `text`, `contents`, `body`, `content`,
    /// `passage` and `passage_text`. In Parquet a field of a struct is named with a dot (`doc.text`),
    /// and the strings of a list are joined by line ends if its column is named.
    #[arg(long, value_name = "NAME")]
    pub(crate) text_column: Option<String>,
    /// Format of the files that are named one by one; without it the name tells it, and for stdin and
    /// pipes the first bytes: `{` or `[` for JSON, a tab in the first line for TSV.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) input_format: Option<InputFormat>,
    /// Meaning of quotes in TSV. In CSV they always enclose fields.
    #[arg(long, value_enum, default_value_t = Quoting::None)]
    pub(crate) quoting: Quoting,
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Parquet, JSON (an object a line, or one array), TSV or CSV files, all but Parquet also as .gz or
    /// .zst; folders of them, glob patterns, pipes, or - for stdin. `s3://BUCKET/KEY` is an object, and
    /// `s3://BUCKET/FOLDER/` all objects directly in a folder. Of Parquet in a bucket only the needed columns
    /// are fetched, a row group at a time, to a temporary file (TMPDIR). What comes through a pipe is first
    /// copied to one. A first line of TSV or CSV that names columns is a header.
    #[arg(required = true)]
    pub(crate) inputs: Vec<PathBuf>,
    /// Folder of the store; with --partition also `s3://BUCKET/PREFIX` or `file:///DIR`.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR|URL")]
    pub(crate) store: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) partition: PartitionArgs,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    /// Positions of a chunk at most, prefix, title and infix included [default: 256; with --append
    /// the store's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(32..=4096))]
    pub(crate) chunk_tokens: Option<u32>,
    /// Input rows of a shard [default: 256; with --append the store's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) unit_rows: Option<u32>,
    /// Language of the texts: BM25 leaves out its stop words and stems the others; none for words as
    /// they are; auto for that of the first documents, which is printed. Whatever the language, Chinese,
    /// Japanese, Korean, Thai and other scripts without blanks are found by their characters and pairs
    /// of these, all forms of a character in Unicode (NFKC) are one, and words have at most 255 bytes
    /// [default: english; with --append the store's].
    #[arg(long, value_name = "NAME")]
    pub(crate) language: Option<LanguageChoice>,
    /// Type of the stored K and V: bf16, f32, or, on a CPU only, int8, int5 or int4 with a half, a
    /// third or a quarter of bf16's bytes [default: bf16; with --append the store's].
    #[arg(long = "kv-dtype", alias = "element", value_name = "TYPE")]
    pub(crate) kv_dtype: Option<KvDtype>,
    /// Folder to keep a copy of the store in, brought up to date when the build ends; may be given
    /// several times.
    #[arg(long = "replica", value_name = "DIR")]
    pub(crate) replicas: Vec<PathBuf>,
    /// Add the input to a store that is built: new documents are added, changed ones replace their
    /// former versions, the same ones are left out. Queries see all of it at its end.
    #[arg(long)]
    pub(crate) append: bool,
    /// Forget what an unfinished --append has sealed, and begin anew.
    #[arg(long, requires = "append")]
    pub(crate) restart: bool,
    /// Take only the documents that this TREC run names, for instance another retriever's candidates.
    #[arg(long, value_name = "RUN")]
    pub(crate) only: Option<PathBuf>,
    /// Treatment of a row that cannot be read: not JSON, not UTF-8, without an id or text, too long.
    #[arg(long, value_enum, default_value_t = OnBadRow::Fail)]
    pub(crate) on_bad_row: OnBadRow,
    /// Take only the first N rows of the input, those that --on-bad-row skips not counted.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Bytes that the store may take, its index and a merge of that included; K, M, G and T stand for
    /// powers of 1024. A build that would take more stops and can be gone on with.
    #[arg(long, value_name = "N", value_parser = parse_bytes)]
    pub(crate) max_bytes: Option<u64>,
    /// Bytes of memory that the build may take beyond the model's weights, at least 256M; beside it,
    /// reading keeps 24 bytes a document. K, M, G and T stand for powers of 1024. Where many threads
    /// or a GPU compute long batches, more is faster.
    #[arg(long, default_value = "1G", value_name = "N", value_parser = parse_bytes)]
    pub(crate) memory: u64,
    /// Bytes of a document's title and text, at most: a longer one is refused [default: a 64th of
    /// --memory, 16M].
    #[arg(long, value_name = "N", value_parser = parse_document_bytes)]
    pub(crate) max_document_bytes: Option<u64>,
    /// Read and count everything, print documents, tokens, bytes and time, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// A language, or that of the first documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LanguageChoice {
    Auto,
    Named(Analyzer),
}

impl FromStr for LanguageChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            name => name.parse().map(Self::Named).map_err(|error: UnknownLanguage| {
                format!("{error}; auto for that of the first documents")
            }),
        }
    }
}

/// Parses a number of bytes with or without a unit.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let power = match &text[digits.len()..] {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        unit => return Err(format!("{unit:?} is no unit: use K, M, G or T")),
    };
    let number: u64 = digits.parse().map_err(|_| "give a number, as in 500M".to_owned())?;
    number.checked_mul(1024_u64.pow(power)).ok_or_else(|| "it is too large".to_owned())
}

/// Parses a number of bytes like [`parse_bytes`], up to the limit of a chunk file.
pub(super) fn parse_document_bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).and_then(|bytes| match bytes <= 1 << 30 {
        true => Ok(bytes),
        false => Err("a document may have 1G at most".to_owned()),
    })
}
