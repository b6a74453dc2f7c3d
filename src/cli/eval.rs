//! Flags of `eval` and `tune`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hyperrag_eval::{Measure, Measures};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EvalCommand>,
    /// TREC runs: query Q0 document rank score tag. Documents are ranked by score in single precision,
    /// equal scores by id from high to low, as trec_eval does; ranks are not looked at. With several
    /// runs, each is compared with the baseline, or else with the first.
    #[arg(long = "run", value_name = "RUN", num_args = 1.., required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// Judgements: of TREC, or of BEIR with its header.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) qrels: Option<PathBuf>,
    /// Run to compare with: differences, their 95 % intervals and a paired randomisation test. Of
    /// several runs p is adjusted too, measure by measure, as Holm does.
    #[arg(long, value_name = "RUN")]
    pub(crate) baseline: Option<PathBuf>,
    /// Leave out each document whose id is its query's, as beir does for ArguAna.
    #[arg(long)]
    pub(crate) exclude_self: bool,
    /// Measures by their names in ir_measures: nDCG, AP, RR and Judged with @k or without; R@k, P@k,
    /// Success@k, ERR@k; Bpref, Rprec, infAP, SetP, SetR, SetF, SetAP; RBP(rel=1,p=0.8). Most take
    /// rel, the smallest grade that is relevant, as P(rel=2)@10; nDCG takes gains or dcg, as
    /// "nDCG(gains={0:0,1:1,2:4})@10" or "nDCG(dcg='exp-log2')@10". MAP, MRR@k, NDCG are other names.
    #[arg(long = "measure", default_value = "nDCG@10,AP,RR,R@100", value_name = "NAME,...")]
    pub(crate) measures: Vec<Measures>,
    /// Print every query's values too, before those of all; JSON always has them.
    #[arg(long)]
    pub(crate) per_query: bool,
    /// Draw gains and losses by query in the first measure, of one run against another, to this file.
    #[arg(long, value_name = "FILE")]
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
    /// Questions with their right answers: JSONL with `_id` and `answers`, a list of texts; SQuAD's
    /// file, where a question without an answer asks for an empty one; or JSONL with `question` and
    /// `answer`, a list, as of NQ-open. Without ids `question` is matched with `query`.
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
