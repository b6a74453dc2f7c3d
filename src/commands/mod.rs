//! One file a command: it parses its arguments, calls the engine and prints. No command knows another.

mod answer;
mod bench;
mod bench_device;
mod bench_quality;
mod build;
mod compact;
mod delete;
mod devices;
mod eval;
mod eval_qa;
mod export;
mod info;
mod merge;
mod model;
mod plan;
mod query;
mod query_collection;
mod repair;
mod replicate;
mod tune;
mod upgrade;
mod verify;

use anyhow::Result;
use hyperrag_engine::open::collection_list::collection_at;
use hyperrag_engine::threads::start_threads;

use crate::cli::bench::BenchKind;
use crate::cli::eval::EvalCommand;
use crate::cli::{Cli, Command};
use crate::exit::Status;

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Result<Status> {
    start_threads()?;
    match cli.command {
        Command::Model(command) => model::model(&command, cli.json),
        Command::Build(args) => build::build(&args, cli.json),
        Command::Merge(args) => merge::merge(&args, cli.json),
        Command::Query(args) => match collection_at(&args.search.store) {
            Some(list) => query_collection::query_collection(&args, &list, cli.json),
            None => query::query(&args, cli.json),
        },
        Command::Answer(args) => answer::answer(&args, cli.json),
        Command::Bench(BenchKind::Speed(args)) => bench::bench(&args, cli.json),
        Command::Bench(BenchKind::Quality(args)) => bench_quality::bench_quality(&args, cli.json),
        Command::Eval(args) => match &args.command {
            Some(EvalCommand::Qa(args)) => eval_qa::eval_qa(args, cli.json),
            None => eval::eval(&args, cli.json),
        },
        Command::Tune(args) => tune::tune(&args, cli.json),
        Command::Delete(args) => delete::delete(&args, cli.json),
        Command::Compact(args) => compact::compact(&args, cli.json),
        Command::Info(args) => info::info(&args, cli.json),
        Command::Verify(args) => verify::verify(&args, cli.json),
        Command::Upgrade(args) => upgrade::upgrade(&args, cli.json),
        Command::Repair(args) => repair::repair(&args, cli.json),
        Command::Replicate(args) => replicate::replicate(&args, cli.json),
        Command::Export(args) => export::export(&args, cli.json),
        Command::Plan(args) => plan::plan(&args, cli.json),
        Command::Devices => devices::devices(cli.json),
        Command::BenchDevice(args) => bench_device::bench_device(&args, cli.json),
    }
}
