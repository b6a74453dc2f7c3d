//! Flags of `build`, and of a corpus's columns.

use std::path::PathBuf;

use clap::Args;
use hyperrag_core::KvDtype;
use hyperrag_retrieval::Analyzer;

use crate::cli::model::ModelArgs;

/// Columns of a corpus.
#[derive(Clone, Debug, Args)]
pub(crate) struct ColumnArgs {
    /// Column of the ids; without it `_id`, `id`, `doc_id` or `docid`.
    #[arg(long, value_name = "NAME")]
    pub(crate) id_column: Option<String>,
    /// Column of the titles; without it `title`.
    #[arg(long, value_name = "NAME")]
    pub(crate) title_column: Option<String>,
    /// Column of the texts; without it `text`, `contents` or `body`.
    #[arg(long, value_name = "NAME")]
    pub(crate) text_column: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Parquet, JSONL or TSV files, folders of them, or glob patterns.
    #[arg(required = true)]
    pub(crate) inputs: Vec<String>,
    /// Folder of the store.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR")]
    pub(crate) store: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
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
    /// they are [default: english; with --append the store's].
    #[arg(long, value_name = "NAME")]
    pub(crate) language: Option<Analyzer>,
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
    /// Take only the first N rows of the input.
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
