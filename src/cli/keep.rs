//! Flags of the commands that describe, change and mend a store.

use std::path::PathBuf;

use clap::Args;
use hyperrag_core::KvDtype;
use hyperrag_retrieval::Analyzer;

use crate::cli::model::ModelArgs;

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Folder of the store, or the URL of a place that it was exported to.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR|URL")]
    pub(crate) store: PathBuf,
    /// The store's model, to say how much its sharing of KV heads saves.
    #[arg(long, value_name = "NAME|PATH|ID")]
    pub(crate) model: Option<String>,
    /// Ask these places of blocks what they are, and for some blocks of the store; as for `query`.
    #[arg(long, value_name = "TIERS")]
    pub(crate) tiers: Vec<String>,
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
    /// Folder of the store, or the URL of a place that it was exported to.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR|URL")]
    pub(crate) store: PathBuf,
    /// Also compute every block's identity from its token ids, and look up every document in the
    /// index.
    #[arg(long)]
    pub(crate) deep: bool,
    /// Read the blocks from this place that the store was exported to, and not from the folder:
    /// `s3://BUCKET/PREFIX`, `redis://HOST:PORT`, `file:///DIR`.
    #[arg(long, value_name = "URL", conflicts_with = "recompute")]
    pub(crate) tier: Option<String>,
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
pub(crate) struct ExportArgs {
    /// Folder of the store.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// Place of the export: `s3://BUCKET/PREFIX`, `redis://HOST:PORT,HOST:PORT?copies=1`, `rediss://...`,
    /// `file:///DIR` or a folder. Secrets come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
    /// AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL, and HYPERRAG_REDIS_USERNAME,
    /// HYPERRAG_REDIS_PASSWORD and HYPERRAG_REDIS_CA.
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,
    /// Shards that are sent at one time; 0 is one a core.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) jobs: usize,
    /// Read every block back and compare it, and not one in a hundred.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Replace what the place has, though it is of a later generation or another store.
    #[arg(long)]
    pub(crate) replace: bool,
    /// Say what would be sent, and send nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// Folder of the store.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// The very model that the store was made with, as for its build. Without it: the one that the store
    /// notes, else smollm2-135m.
    #[arg(long, env = "HYPERRAG_MODEL", value_name = "NAME|PATH|ID")]
    pub(crate) model: Option<String>,
    /// Tokenizer in the place of the model's own, as for the store's build.
    #[arg(long, env = "HYPERRAG_TOKENIZER", value_name = "PATH")]
    pub(crate) tokenizer: Option<String>,
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
    /// Take what is damaged from this place, which the store was exported to, before anything is computed.
    #[arg(long, value_name = "URL")]
    pub(crate) from: Option<String>,
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
