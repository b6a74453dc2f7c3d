//! `query`, and what every command that ranks has in common with it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::model::ModelArgs;

/// Form in which results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people.
    Text,
    /// One JSON object a query.
    Jsonl,
    /// A TREC run.
    Trec,
}

/// Treatment of a stored block that is damaged in the store and its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnDamage {
    /// Compute it again from its token ids.
    Recompute,
    /// Stop, with exit code 4.
    Fail,
    /// Score its document by its other chunks, or leave it out.
    Skip,
}

/// Treatment of a candidate that the store does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnMissing {
    /// Rerank the next one in its place; the exit code is 3.
    Skip,
    /// Fail the query, and go on with the others.
    Fail,
}

/// Fusion of the model's score with the retriever's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fuse {
    /// The model's score alone.
    None,
    /// Both as z-scores over the query's candidates, weighted by --fuse-weight.
    Zscore,
    /// Reciprocal rank fusion.
    Rrf,
}

/// Choice between loading blocks and computing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plan {
    /// Load blocks, and compute some of those that are far (Redis, S3) where that is sooner, by speeds
    /// that are measured on the way. The scores are the same bits on a CPU, and differ by at most 0.02
    /// on a GPU.
    Auto,
    /// Load all.
    Load,
    /// Compute all.
    Recompute,
}

/// Document's score from the scores of its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Aggregate {
    /// The best.
    Max,
    /// Their mean.
    Mean,
    /// Score of the first chunk.
    First,
}

/// A share from 0 to 1.
pub(super) fn parse_share(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("give a number from 0 to 1".to_owned()),
    }
}

/// A tag of a run.
fn parse_tag(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err("give a word without blanks".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// Store, model and queries of a search.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// Folder of the store, or the URL of a place that it was exported to: `s3://BUCKET/PREFIX`,
    /// `redis://HOST:PORT` or `file:///DIR`. All but the blocks is fetched once. For `query` also a list
    /// of stores that answer as one: a file NAME.json, or a folder with a collection.json.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR|URL")]
    pub(crate) store: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Queries: JSON, TSV, CSV or Parquet, as a corpus may be; `-` for stdin. Ids are in `_id`, `id`,
    /// `qid`, `query_id` or `query-id`, texts in `text`, `query` or `question`; TSV and CSV without a
    /// header have id and text.
    #[arg(long, value_name = "FILE")]
    pub(crate) queries: Option<PathBuf>,
    /// Documents to rerank a query.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) depth: usize,
    #[command(flatten)]
    pub(crate) tiers: TierArgs,
}

/// Places that blocks are read from.
#[derive(Debug, Args)]
pub(crate) struct TierArgs {
    /// Places of blocks, in the order in which they are asked, with commas between them or one a flag
    /// [default: store]: `ram:4GiB`, `cache:DIR:400GiB`, `store` (its folder and replicas, or the URL of --store),
    /// `folder:DIR`, `redis://HOST:PORT,HOST:PORT?role=home`, `rediss://...`, `s3://BUCKET/PREFIX`.
    /// Secrets come from HYPERRAG_REDIS_USERNAME, HYPERRAG_REDIS_PASSWORD, HYPERRAG_REDIS_CA and
    /// AWS_*. Every byte is checked; what no place has is computed again.
    #[arg(long, value_name = "TIERS")]
    pub(crate) tiers: Vec<String>,
    /// Say after the last query what each tier gave.
    #[arg(long)]
    pub(crate) explain: bool,
}

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// The query; `-` reads one a line from stdin, and each line has one result or error.
    #[arg(conflicts_with = "queries")]
    pub(crate) text: Option<String>,
    #[command(flatten)]
    pub(crate) search: SearchArgs,
    /// Rerank the documents that this TREC run names for each query of --queries, instead of BM25's. The
    /// best --depth by the run's scores are taken, as trec_eval orders them: higher scores first, equal ones
    /// by id from high to low. Ranks and the order of lines do not count.
    #[arg(long, value_name = "RUN", requires = "queries", conflicts_with = "text")]
    pub(crate) candidates: Option<PathBuf>,
    /// Treatment of a document in --candidates that the store does not have.
    #[arg(long, value_enum, default_value_t = OnMissing::Skip)]
    pub(crate) on_missing: OnMissing,
    /// Leave out the document whose id is the query's, as for ArguAna, before --depth is counted.
    #[arg(long)]
    pub(crate) exclude_self: bool,
    /// Documents to print a query.
    #[arg(short = 'k', long = "top", default_value_t = 10, value_name = "N")]
    pub(crate) top: usize,
    /// Output format; --json means jsonl. In all of them, documents of equal scores stand by id from high
    /// to low, as trec_eval orders a run. Ids have no blanks, quotes are part of an id; a blank in an id of
    /// an older store is written as %20 or the like in a TREC run.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Last field of each line of a TREC run.
    #[arg(long, default_value = "hyperrag", value_name = "NAME", value_parser = parse_tag)]
    pub(crate) tag: String,
    #[command(flatten)]
    pub(crate) ranking: RankingArgs,
}

/// Scoring and ranking of candidates.
#[derive(Debug, Args)]
pub(crate) struct RankingArgs {
    /// Fuse the model's score with the retriever's, that of BM25 or of the run in --candidates.
    #[arg(long, value_enum, default_value_t = Fuse::Zscore)]
    pub(crate) fuse: Fuse,
    /// The model's share in --fuse zscore, from 0 to 1.
    #[arg(long, default_value_t = 0.6, value_name = "SHARE", value_parser = parse_share)]
    pub(crate) fuse_weight: f32,
    /// Document's score from the scores of its chunks.
    #[arg(long, value_enum, default_value_t = Aggregate::Max)]
    pub(crate) aggregate: Aggregate,
    /// Compute every candidate's KV again instead of reading it, as --plan recompute.
    #[arg(long, conflicts_with = "plan")]
    pub(crate) recompute: bool,
    /// Blocks that are loaded, and those that are computed. Without it auto, where computed blocks have the bits of
    /// stored ones (on a CPU, by the kernel that made the store); else load.
    #[arg(long, value_enum)]
    pub(crate) plan: Option<Plan>,
    /// Treatment of a stored block that is damaged and that no replica has.
    #[arg(long, value_enum, default_value_t = OnDamage::Recompute)]
    pub(crate) on_damage: OnDamage,
}
