//! Flags of `eval` and `tune`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hyperrag_eval::Measure;

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
