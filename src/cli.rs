//! The spelling and help of the command line. It runs no command.

mod answer;
mod bench;
mod query;
#[cfg(test)]
mod reference;

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};
use hyperrag_core::KvDtype;
use hyperrag_eval::Measure;
use hyperrag_model::{ComputeDtype, DeviceChoice, DtypeChoice};
use hyperrag_retrieval::Analyzer;

pub(crate) use answer::AnswerArgs;
pub(crate) use bench::{BenchArgs, BenchKind, QualityArgs, VariantName};
pub(crate) use query::{Aggregate, Format, Fuse, OnDamage, QueryArgs, RankingArgs, SearchArgs};

/// Reranks with a decoder-only language model over KV caches computed once, offline.
#[derive(Debug, Parser)]
#[command(name = "hyperrag", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 done but degraded, 4 store damaged, \
    5 store and model do not match, 130 interrupted."
)]
pub(crate) struct Cli {
    /// Print JSON on stdout.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Settings file; without it `hyperrag.toml` in this folder, if there is one.
    #[arg(long, global = true, env = "HYPERRAG_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the settings as resolved from flags, environment and file, and stop.
    #[arg(long, global = true)]
    pub(crate) print_config: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring a model to this machine, or describe one.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Read a corpus once and store the KV of its chunks. Run again, it goes on where it stopped.
    Build(BuildArgs),
    /// Retrieve with BM25, rerank from stored KV, print.
    Query(QueryArgs),
    /// Answer a question from the passages that are found for it, which are listed below the answer.
    Answer(AnswerArgs),
    /// Time reuse against recompute on this store, on the same candidates; `bench quality` compares
    /// the rankings of several element types.
    Bench(BenchKind),
    /// Evaluate a TREC run by judgements, or answers by right ones.
    Eval(EvalArgs),
    /// Find the weight for `query --fuse zscore`: chosen on one half of the queries, reported on the
    /// other.
    Tune(TuneArgs),
    /// Remove documents from a store. Their bytes stay until it is compacted.
    Delete(DeleteArgs),
    /// Free the bytes of documents that were deleted or replaced. Queries go on undisturbed.
    Compact(CompactArgs),
    /// Describe a store.
    Info(InfoArgs),
    /// Check every byte of a store; write nothing.
    Verify(VerifyArgs),
    /// Mend what is damaged in a store: from its replicas, else from what it holds itself.
    Repair(RepairArgs),
    /// Bring a store to the present version of the format. Blocks are copied, not computed again.
    Upgrade(UpgradeArgs),
    /// Copy a store to another folder, or bring the copy up to it. Queries read from there what is
    /// damaged here.
    Replicate(ReplicateArgs),
    /// List the devices of this machine, and which one `--device auto` takes.
    Devices,
    /// Time a GPU: prefill, reuse and recompute with random weights of well-known models' sizes.
    BenchDevice(DeviceBenchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DeviceBenchArgs {
    /// Device to time; cpu is the GPU's code on the CPU, to try the command.
    #[arg(long, env = "HYPERRAG_DEVICE", default_value_t = DeviceChoice::Cuda(0), value_name = "DEVICE")]
    pub(crate) device: DeviceChoice,
    /// Type of weights and products: f16, bf16 or f32.
    #[arg(long = "dtype", alias = "compute", env = "HYPERRAG_COMPUTE", default_value_t = ComputeDtype::F16, value_name = "TYPE")]
    pub(crate) dtype: ComputeDtype,
    /// Models whose sizes are taken; all without it.
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub(crate) shapes: Vec<String>,
    /// Candidates.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) depth: usize,
    /// Positions of a candidate.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) chunk_tokens: u32,
    /// Tokens of the query.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) query_tokens: u32,
    /// Write the figures as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Timed runs of each figure; the median counts.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) runs: usize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Fetch a model by name, and check it; or one of the Hugging Face hub, into the hub's cache.
    Pull {
        /// Name that `model list` shows, or an id of the hub: `ORG/NAME[@REVISION]`, or
        /// `ORG/NAME/FILE.gguf[@REVISION]`.
        name: String,
    },
    /// List the models that can be fetched, and which are here.
    List,
    /// Describe a model: sizes, KV heads, bytes a token.
    Info {
        /// Name, the path of a GGUF file or of a folder with safetensors, or an id of the hub.
        #[arg(default_value = "smollm2-135m")]
        name: String,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ModelArgs {
    /// Model: a name of `model list`, the path of a GGUF file or of a folder with config.json and
    /// safetensors, or an id of the Hugging Face hub, `ORG/NAME[@REVISION]`.
    #[arg(
        long,
        env = "HYPERRAG_MODEL",
        default_value = "smollm2-135m",
        value_name = "NAME|PATH|ID"
    )]
    pub(crate) model: String,
    /// Profile: plain, chat, chat-gemma, chat-llama3, ctxl-rerank-v2, or a TOML file. Without it: that
    /// of the store; for a new one the chat whose turns the model knows, else plain.
    #[arg(long, env = "HYPERRAG_PROFILE", value_name = "NAME|FILE")]
    pub(crate) profile: Option<String>,
    /// Device that computes: cpu, cuda, cuda:N, or auto for the GPU if one answers, else the CPU.
    #[arg(long, env = "HYPERRAG_DEVICE", default_value_t = DeviceChoice::Auto, value_name = "DEVICE")]
    pub(crate) device: DeviceChoice,
    /// Type of weights and products: f16, bf16 or f32 on a GPU, int8, bf16 or f32 on a CPU, where
    /// bf16 halves the weights and is faster if the machine has instructions for it, and int8 is
    /// faster still and less exact. auto on a CPU is that of the store, and for a new one bf16 where
    /// AMX or AVX-512 BF16 multiplies it, else f32, which is the most exact; on a GPU it is f16.
    #[arg(
        long = "dtype",
        alias = "compute",
        env = "HYPERRAG_COMPUTE",
        default_value = "auto",
        value_name = "TYPE"
    )]
    pub(crate) dtype: DtypeChoice,
    /// Threads that compute on the CPU, at most 1024; 0 is one a core.
    #[arg(
        long,
        env = "HYPERRAG_THREADS",
        default_value_t = 0,
        value_name = "N",
        value_parser = RangedU64ValueParser::<usize>::new().range(..=1024)
    )]
    pub(crate) threads: usize,
}

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
fn parse_document_bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).and_then(|bytes| match bytes <= 1 << 30 {
        true => Ok(bytes),
        false => Err("a document may have 1G at most".to_owned()),
    })
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EvalCommand>,
    /// TREC run: query Q0 document rank score tag.
    #[arg(long, value_name = "RUN", required = true)]
    pub(crate) run: Option<PathBuf>,
    /// Judgements: of TREC, or of BEIR with its header.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) qrels: Option<PathBuf>,
    /// Run to compare with: differences, their 95 % intervals and a paired randomisation test.
    #[arg(long, value_name = "RUN")]
    pub(crate) baseline: Option<PathBuf>,
    /// Measures by their names in ir_measures: nDCG, AP and RR with @k or without, R@k, P@k,
    /// Success@k.
    #[arg(
        long = "measure",
        value_delimiter = ',',
        default_value = "nDCG@10,AP,RR,R@100",
        value_name = "NAME,..."
    )]
    pub(crate) measures: Vec<Measure>,
    /// Print every query's values too; JSON always has them.
    #[arg(long)]
    pub(crate) per_query: bool,
    /// Draw gains and losses by query in the first measure to this file.
    #[arg(long, value_name = "FILE", requires = "baseline")]
    pub(crate) svg: Option<PathBuf>,
    /// Write the figures as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TuneArgs {
    /// Output of `hyperrag query --json`; -k must be as large as --depth there.
    #[arg(long, value_name = "FILE")]
    pub(crate) hits: PathBuf,
    /// Judgements: of TREC, or of BEIR with its header.
    #[arg(long, value_name = "FILE")]
    pub(crate) qrels: PathBuf,
    /// Measure to tune for, as in `hyperrag eval`.
    #[arg(long, default_value = "nDCG@10", value_name = "NAME")]
    pub(crate) measure: Measure,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Compare answers with right ones: exact match and F1, as SQuAD counts them.
    Qa(QaArgs),
}

#[derive(Debug, Args)]
pub(crate) struct QaArgs {
    /// JSONL with `query_id` (or `_id`), `query` or both, and `answer`.
    #[arg(long, value_name = "FILE")]
    pub(crate) answers: PathBuf,
    /// JSONL with `_id` and `answers`, a list of right answers; without ids `question` is matched with
    /// `query`.
    #[arg(long, value_name = "FILE")]
    pub(crate) gold: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Folder of the store.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// The store's model, to say how much its sharing of KV heads saves.
    #[arg(long, value_name = "NAME|PATH|ID")]
    pub(crate) model: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Folder of the store.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// Ids of the documents, one a line; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    pub(crate) ids: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    /// Folder of the store.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR")]
    pub(crate) store: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Folder of the store.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// Also compute every block's identity from its token ids, and look up every document in the
    /// index.
    #[arg(long)]
    pub(crate) deep: bool,
    /// Also check the replicas that the store remembers.
    #[arg(long)]
    pub(crate) replicas: bool,
    /// Also compute blocks again from their token ids and compare all bytes. Takes the model and the
    /// kernel that made the store; shards that another kernel mended are left out.
    #[arg(long)]
    pub(crate) recompute: bool,
    /// Compute only N blocks again, evenly spread.
    #[arg(long, value_name = "N", requires = "recompute", conflicts_with = "part")]
    pub(crate) sample: Option<u64>,
    /// Compute only the blocks of every N-th shard again, beginning with the I-th: parts 1/N to N/N are
    /// all.
    #[arg(long, value_name = "I/N", requires = "recompute", value_parser = parse_part)]
    pub(crate) part: Option<(u32, u32)>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// Parses a part `I/N`, counted from 1.
fn parse_part(text: &str) -> Result<(u32, u32), String> {
    let numbers =
        text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    match numbers {
        Some((part, of)) if (1..=of).contains(&part) => Ok((part, of)),
        _ => Err("give a part of several, as in 1/8".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReplicateArgs {
    /// Folder of the store.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// Folder of the copy.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// Copy nothing: forget a copy, whether its folder is still there or not.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["to", "checksum"])]
    pub(crate) forget: Option<PathBuf>,
    /// Read every byte of what the copy has already, instead of its headers and tables.
    #[arg(long)]
    pub(crate) checksum: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// Folder of the store.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// The very model that the store was made with, as for its build.
    #[arg(
        long,
        env = "HYPERRAG_MODEL",
        default_value = "smollm2-135m",
        value_name = "NAME|PATH|ID"
    )]
    pub(crate) model: String,
    /// Print what would be done, and how much room it takes, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// Folder of the store.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// Print what would be done, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take the latest manifest that is left where the last one is lost, though the store may have had
    /// a later one: what was deleted, added or replaced since is undone.
    #[arg(long)]
    pub(crate) accept_older: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The type of the store's K and V; this and the next three are needed only where its manifest is lost.
    #[arg(long = "kv-dtype", alias = "element", default_value_t = KvDtype::Bf16, value_name = "TYPE")]
    pub(crate) kv_dtype: KvDtype,
    /// The store's positions of a chunk.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(32..=4096))]
    pub(crate) chunk_tokens: u32,
    /// The store's input rows of a shard.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) unit_rows: u32,
    /// The store's language.
    #[arg(long, default_value_t = Analyzer::ENGLISH, value_name = "NAME")]
    pub(crate) language: Analyzer,
}
