//! The spelling and help of the command line. It runs no command.

pub(crate) mod answer;
pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod eval;
pub(crate) mod keep;
pub(crate) mod model;
pub(crate) mod partition;
pub(crate) mod plan;
pub(crate) mod query;
#[cfg(test)]
mod reference;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::cli::answer::AnswerArgs;
use crate::cli::bench::{BenchKind, DeviceBenchArgs};
use crate::cli::build::BuildArgs;
use crate::cli::eval::{EvalArgs, TuneArgs};
use crate::cli::keep::{
    CompactArgs, DeleteArgs, ExportArgs, InfoArgs, RepairArgs, ReplicateArgs, UpgradeArgs,
    VerifyArgs,
};
use crate::cli::model::ModelCommand;
use crate::cli::partition::MergeArgs;
use crate::cli::plan::PlanArgs;
use crate::cli::query::QueryArgs;

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
    /// Make one store of what several processes have built with `build --partition`. Run again, it goes on
    /// where it stopped.
    Merge(MergeArgs),
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
    /// Send a finished store to a place that several machines read from: a bucket, Redis or a folder. Run
    /// again, it goes on where it stopped.
    Export(ExportArgs),
    /// Say what a store costs, and when not to have one: bytes, hours and money to build, and when a stored
    /// block beats recomputing it. Needs neither data nor hardware.
    Plan(Box<PlanArgs>),
    /// List the devices of this machine, and which one `--device auto` takes.
    Devices,
    /// Time a GPU: prefill, reuse and recompute with random weights of well-known models' sizes.
    BenchDevice(DeviceBenchArgs),
}
