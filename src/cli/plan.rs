//! Flags of `plan`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hyperrag_core::KvDtype;

use crate::input::quantity::{parse_bytes, parse_count, parse_positive, parse_share};
use crate::input::storage::{StorageFlag, parse_storage};

/// Reading of a score, as far as it costs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScorerCost {
    /// Log-probabilities of all tokens of the query: the language-model head for each.
    Likelihood,
    /// Logits of one or two words at the last position.
    Label,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) model: PlanModelArgs,
    #[command(flatten)]
    pub(crate) corpus: PlanCorpusArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Kind of storage that may hold all blocks: a name of the price table, or one with numbers of its own,
    /// `NAME:price=0.03,bandwidth=8GB,latency=0.1ms,request=4e-7` (dollars a GB a month, bytes a second that one
    /// device reads, time to the first byte, dollars a read, and size=4GiB for --simulate); may be given several times [default: ram, nvme, s3].
    #[arg(long, value_name = "NAME[:KEY=VALUE,...]", value_parser = parse_storage, help_heading = "Prices")]
    pub(crate) storage: Vec<StorageFlag>,
    /// Price table in TOML, over the built-in one: tables `[hardware.NAME]` and `[storage.NAME]`, as
    /// --print-prices shows them.
    #[arg(long, value_name = "FILE", help_heading = "Prices")]
    pub(crate) prices: Option<PathBuf>,
    /// Print the built-in price table with its date, and stop.
    #[arg(long, help_heading = "Prices")]
    pub(crate) print_prices: bool,
    #[command(flatten)]
    pub(crate) simulation: SimulationArgs,
    /// Write a chart to this file too, as SVG: money over queries a second, and time over bandwidth.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) chart: Option<PathBuf>,
}

/// The model, or its sizes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct PlanModelArgs {
    /// Model: smollm2-135m, qwen2.5-0.5b, qwen3-0.6b, llama-3.2-1b, gemma-2b, gemma2-2b, gemma3-270m, gemma3-1b,
    /// the path of a GGUF file, of a config.json or of a folder with one, or an id of the hub that is on this
    /// machine. Weights are not read.
    #[arg(long, value_name = "NAME|PATH|ID", conflicts_with_all = ["layers", "kv_heads", "head_dim", "hidden", "weights", "heads", "vocabulary"])]
    pub(crate) model: Option<String>,
    /// Decoder layers, in the place of --model.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024), requires_all = ["kv_heads", "head_dim", "hidden", "weights"])]
    pub(crate) layers: Option<u32>,
    /// KV heads.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024), requires = "layers")]
    pub(crate) kv_heads: Option<u32>,
    /// Dimensions of a head.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096), requires = "layers")]
    pub(crate) head_dim: Option<u32>,
    /// Dimensions of the hidden state.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536), requires = "layers")]
    pub(crate) hidden: Option<u32>,
    /// Weights that a token is multiplied with, embedding and head left out, such as 2G: two floating-point
    /// operations each.
    #[arg(long, value_name = "N", value_parser = parse_count, requires = "layers")]
    pub(crate) weights: Option<f64>,
    /// Query heads [default: --hidden over --head-dim].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536), requires = "layers")]
    pub(crate) heads: Option<u32>,
    /// Number of token ids, for the language-model head of --scorer likelihood [default: 0].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), requires = "layers")]
    pub(crate) vocabulary: Option<u32>,
    /// Type of the stored K and V: bf16, f32, int8, int5 or int4.
    #[arg(long = "kv-dtype", value_name = "TYPE", default_value_t = KvDtype::Bf16)]
    pub(crate) kv_dtype: KvDtype,
    /// Reading of a score.
    #[arg(long, value_enum, default_value_t = ScorerCost::Likelihood)]
    pub(crate) scorer: ScorerCost,
}

/// The corpus and its queries.
#[derive(Debug, Args)]
#[command(next_help_heading = "Corpus and queries")]
pub(crate) struct PlanCorpusArgs {
    /// Chunks of the corpus; k, M, G and T stand for powers of 1000, as in 8.5M.
    #[arg(long, value_name = "N", value_parser = parse_count, conflicts_with_all = ["documents", "bytes"])]
    pub(crate) chunks: Option<f64>,
    /// Documents of the corpus, each of --tokens tokens.
    #[arg(long, value_name = "N", value_parser = parse_count, requires = "tokens", conflicts_with = "bytes")]
    pub(crate) documents: Option<f64>,
    /// Tokens of a document on average.
    #[arg(long, value_name = "N", value_parser = parse_count, requires = "documents")]
    pub(crate) tokens: Option<f64>,
    /// Bytes that all blocks may take, such as 40TB or 64GiB: as many chunks as they hold.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) bytes: Option<f64>,
    /// Tokens of a chunk, prompt included.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=32768))]
    pub(crate) chunk_tokens: u32,
    /// Tokens of a query, prompt included.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=32768))]
    pub(crate) query_tokens: u32,
    /// Candidates of a query: documents with all their chunks if --documents is given, else chunks.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) depth: u32,
    /// Queries a second, on average over a month.
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_count)]
    pub(crate) queries_per_second: f64,
    /// Chunks that are computed anew in a month, as a share of all: 730 for a corpus that changes every hour.
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = parse_share)]
    pub(crate) changed_a_month: f64,
}

impl PlanCorpusArgs {
    /// Returns the number of chunks of a document; 1 if the corpus is given in chunks or bytes.
    pub(crate) fn chunks_a_document(&self) -> f64 {
        let tokens = self.documents.and(self.tokens);
        tokens.map_or(1.0, |tokens| (tokens / f64::from(self.chunk_tokens)).ceil().max(1.0))
    }

    /// Returns the mean number of tokens of a chunk: a document is cut into equal parts here.
    pub(crate) fn tokens_a_chunk(&self) -> f64 {
        let tokens = self.documents.and(self.tokens);
        tokens.map_or(self.chunk_tokens.into(), |tokens| tokens / self.chunks_a_document())
    }

    /// Returns the number of chunks that are candidates of a query.
    pub(crate) fn chunks_a_query(&self) -> f64 {
        f64::from(self.depth) * self.chunks_a_document()
    }
}

/// The hardware that computes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Hardware")]
pub(crate) struct ComputeArgs {
    /// Hardware of the price table; a100, h100 and two-cores are built in.
    #[arg(long, value_name = "NAME", default_value = "a100")]
    pub(crate) hardware: String,
    /// Number of devices, for the hours of a build and the largest rate of queries.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) devices: u32,
    /// Floating-point operations a second of a device, such as 312T, in the place of the table's.
    #[arg(long, value_name = "N", value_parser = parse_count, conflicts_with = "tokens_per_second")]
    pub(crate) flops: Option<f64>,
    /// Share of these that a model reaches, in the place of the table's.
    #[arg(long, value_name = "SHARE", value_parser = parse_positive, conflicts_with = "tokens_per_second")]
    pub(crate) efficiency: Option<f64>,
    /// Tokens a second that a device computes of this model, measured by `bench`, in the place of an estimate.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) tokens_per_second: Option<f64>,
    /// Tokens of queries a second that a device scores on stored blocks [default: --tokens-per-second].
    #[arg(long, value_name = "N", value_parser = parse_count, requires = "tokens_per_second")]
    pub(crate) query_tokens_per_second: Option<f64>,
    /// Dollars an hour of a device, in the place of the table's.
    #[arg(long, value_name = "DOLLARS", value_parser = parse_positive)]
    pub(crate) dollars_per_hour: Option<f64>,
}

/// A trace of queries.
#[derive(Debug, Args)]
#[command(next_help_heading = "Simulation")]
pub(crate) struct SimulationArgs {
    /// Run a seeded trace of queries over the kinds of storage in the order of --storage: those with a size are
    /// caches, filled by what is read behind them; the last holds all blocks.
    #[arg(long)]
    pub(crate) simulate: bool,
    /// Take the lists of candidates from this TREC run, in the place of drawn ones; its documents are all blocks
    /// that there are.
    #[arg(long, value_name = "FILE", requires = "simulate")]
    pub(crate) run: Option<PathBuf>,
    /// Queries of the trace. The first sixth fills the caches and is not counted [default: ten for each distinct
    /// query].
    #[arg(long, value_name = "N", requires = "simulate", value_parser = clap::value_parser!(u32).range(12..=10_000_000))]
    pub(crate) trace_queries: Option<u32>,
    /// Distinct queries whose lists are drawn [default: so many that a chunk is in six lists, as SciFact's are].
    #[arg(long, value_name = "N", requires = "simulate", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) distinct_queries: Option<u32>,
    /// Skew by which queries repeat: the n-th is asked 1/n^SKEW times as often as the first.
    #[arg(long, value_name = "SKEW", default_value = "1", requires = "simulate", value_parser = parse_share)]
    pub(crate) query_skew: f64,
    /// Seed of all draws.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "simulate")]
    pub(crate) seed: u64,
}
