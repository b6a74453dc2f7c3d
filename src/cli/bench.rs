//! `bench` and `bench quality`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgMatches, Args, Command, Error, FromArgMatches};
use hyperrag_core::KvDtype;
use hyperrag_eval::Measure;
use hyperrag_model::{ComputeDtype, DeviceChoice};
use hyperrag_retrieval::Analyzer;

use crate::cli::build::ColumnArgs;
use crate::cli::model::ModelArgs;
use crate::cli::query::{Aggregate, SearchArgs};

/// Subject of `bench`: speed, or with its subcommand quality.
#[derive(Debug)]
pub(crate) enum BenchKind {
    Speed(Box<BenchArgs>),
    Quality(Box<QualityArgs>),
}

const QUALITY: &str = "quality";

/// By hand: a derived optional subcommand would need `--store` beside it.
impl FromArgMatches for BenchKind {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(match matches.subcommand_matches(QUALITY) {
            Some(matches) => Self::Quality(Box::new(QualityArgs::from_arg_matches(matches)?)),
            None => Self::Speed(Box::new(BenchArgs::from_arg_matches(matches)?)),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for BenchKind {
    fn augment_args(command: Command) -> Command {
        let quality = QualityArgs::augment_args(Command::new(QUALITY));
        BenchArgs::augment_args(command)
            .subcommand(quality)
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Time reuse against recompute on this store, on the same candidates.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) search: SearchArgs,
    /// Queries to run at most.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) query_count: usize,
    /// Timed runs of each query in each mode.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) runs: usize,
    /// Write the figures as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Score on this device too, from stored blocks, and compare; fails where scores differ by more
    /// than kernels may.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) against: Option<DeviceChoice>,
    /// Time the first run too, cold buffers and all.
    #[arg(long)]
    pub(crate) no_warmup: bool,
    /// Write the token ids of the first query and of its candidates, and the candidates' scores, to
    /// this file as JSON, and time nothing.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "against"])]
    pub(crate) workload: Option<PathBuf>,
}

/// Compare the rankings that element types and arithmetic give, with each other and with BM25's.
///
/// Needs no store: the candidates' blocks are computed here, document by document, and dropped once
/// they are scored for all queries. Each variant computes its own, so that its scores are those of a
/// store built with it, to the bit.
#[derive(Debug, Args)]
pub(crate) struct QualityArgs {
    /// The corpus: files, folders, patterns, pipes or -, as for `hyperrag build`.
    #[arg(required = true)]
    pub(crate) inputs: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Queries: JSON, TSV, CSV or Parquet, as a corpus may be; `-` for stdin. Ids are in `_id`, `id`,
    /// `qid`, `query_id` or `query-id`, texts in `text`, `query` or `question`; TSV and CSV without a
    /// header have id and text. Those without judgements are left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) queries: PathBuf,
    /// Judgements: of TREC, or of BEIR with its header.
    #[arg(long, value_name = "FILE")]
    pub(crate) qrels: PathBuf,
    /// Rank the documents of this TREC run instead of BM25's.
    #[arg(long, value_name = "RUN")]
    pub(crate) candidates: Option<PathBuf>,
    /// Documents to rank a query.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) depth: usize,
    /// Types of K and V, each perhaps with the type of weights and products after a slash (else that
    /// of --dtype) and the positions of a chunk after an @ (int8/bf16@128); the first is what the
    /// others are compared with.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "f32/f32,bf16/f32,int8/f32,int5/f32,int4/f32,bf16/bf16",
        value_name = "KV[/DTYPE][@CHUNK],..."
    )]
    pub(crate) variants: Vec<VariantName>,
    /// Round the blocks of one prefill in f32 for all types, instead of a prefill for each: several
    /// times faster, and near what stores hold, whose prefill reads K and V rounded already.
    #[arg(long)]
    pub(crate) round: bool,
    /// Take only N of the judged queries.
    #[arg(long, value_name = "N")]
    pub(crate) query_count: Option<usize>,
    /// Draws these queries, and those of --recompute-queries.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Queries that are scored a second time, from blocks computed again for each: the scores must
    /// have the same bits.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) recompute_queries: usize,
    /// Positions of a chunk at most.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(CHUNK))]
    pub(crate) chunk_tokens: u32,
    /// Language of the texts, by whose rules BM25 cuts words; none for words as they are.
    #[arg(long, default_value_t = Analyzer::ENGLISH, value_name = "NAME")]
    pub(crate) language: Analyzer,
    /// Document's score from the scores of its chunks.
    #[arg(long, value_enum, default_value_t = Aggregate::Max)]
    pub(crate) aggregate: Aggregate,
    /// Measure, as in `hyperrag eval`.
    #[arg(long, default_value = "nDCG@10", value_name = "NAME")]
    pub(crate) measure: Measure,
    /// Write the figures as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Draw the measure against queries a second and against bytes a document to this SVG file: each
    /// variant fused, at several depths, and where the knee is.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Write TREC runs of the retriever and of every variant to this folder, and the scores as
    /// `query --json` prints them.
    #[arg(long, value_name = "DIR")]
    pub(crate) runs_dir: Option<PathBuf>,
}

/// Positions that a chunk may have.
const CHUNK: std::ops::RangeInclusive<i64> = 32..=4096;

/// A type of K and V, perhaps with that of weights and products and the positions of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VariantName {
    /// Text as it was given.
    pub(crate) text: String,
    pub(crate) kv_dtype: KvDtype,
    pub(crate) dtype: Option<ComputeDtype>,
    pub(crate) chunk_tokens: Option<u32>,
}

impl FromStr for VariantName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (types, chunk) = match text.split_once('@') {
            None => (text, None),
            Some((types, chunk)) => (types, Some(chunk)),
        };
        let chunk_tokens = chunk.map(|chunk| match chunk.parse::<u32>() {
            Ok(tokens) if CHUNK.contains(&tokens.into()) => Ok(tokens),
            _ => Err(format!(
                "{chunk:?} are no positions of a chunk: give {} to {}",
                CHUNK.start(),
                CHUNK.end()
            )),
        });
        let (kv_dtype, dtype) = match types.split_once('/') {
            None => (types, None),
            Some((kv_dtype, dtype)) => (kv_dtype, Some(dtype)),
        };
        let kv_dtype = kv_dtype.parse().map_err(|error| format!("{error}"))?;
        let dtype = dtype.map(|dtype| dtype.parse().map_err(|error| format!("{error}")));
        let dtype: Option<ComputeDtype> = dtype.transpose()?;
        Ok(Self { text: text.to_owned(), kv_dtype, dtype, chunk_tokens: chunk_tokens.transpose()? })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_parsed() {
        let int4: VariantName = "int4/bf16".parse().unwrap();
        assert_eq!((int4.kv_dtype, int4.dtype), (KvDtype::Int4, Some(ComputeDtype::Bf16)));
        assert_eq!("f32".parse::<VariantName>().unwrap().dtype, None);
        let short: VariantName = "bf16@128".parse().unwrap();
        assert_eq!((short.dtype, short.chunk_tokens), (None, Some(128)));
        for (wrong, said) in [
            ("f16", "f32, int8"),
            ("int8/int4", "f16, bf16, f32 or int8"),
            ("/f32", "\"\""),
            ("f32@9", "32 to 4096"),
        ] {
            let error = wrong.parse::<VariantName>().unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
