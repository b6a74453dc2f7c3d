//! What disks, kills and other writers do to a store, counted: `make torture` prints the table.
//!
//! Every trial damages a real store of the tiny model, reads all of it as a query would, and mends
//! the files again. Quick by default; `TORTURE=full` runs all trials, `SEED=N` repeats a run.

#![expect(clippy::print_stdout, reason = "it prints a table")]

mod faults;
mod kills;
mod live;
mod replicas;
#[path = "../cli/seeded.rs"]
mod seeded;
mod store;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use faults::Fault;
use store::Pristine;

/// Bytes of memory that all of it may take: no length on the disk is believed before it is checked.
const MEMORY_MAX: u64 = 256 << 20;

/// What trials of one fault came to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) trials: u64,
    /// Reading or `verify` says that something is wrong.
    pub(crate) detected: u64,
    /// Nothing reads differently, and nothing says that it does.
    pub(crate) harmless: u64,
    /// The files in which that was so.
    pub(crate) harmless_in: BTreeSet<PathBuf>,
    /// A block, a chunk or a hit differs from what was written and nobody noticed, or a score
    /// differs after blocks were computed again.
    pub(crate) wrong: u64,
    /// Blocks that could neither be read nor computed again, although the fault left enough.
    pub(crate) lost: u64,
}

fn row(name: &str, tally: &Tally) -> bool {
    let Tally { trials, detected, harmless, wrong, lost, .. } = tally;
    println!("| {name} | {trials} | {detected} | {harmless} | {wrong} | {lost} |");
    *wrong == 0 && *lost == 0 && detected + harmless == *trials && *trials > 0
}

fn main() -> ExitCode {
    let full = std::env::var("TORTURE").is_ok_and(|value| value == "full");
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let trials = |all: u64| if full { all } else { all.div_ceil(40) };
    let pristine = Pristine::build();
    println!("seed {seed}, {} bytes in {} files", pristine.bytes(), pristine.files().len());
    println!(
        "\n| fault | trials | detected | harmless | wrong | lost |\n|---|---|---|---|---|---|"
    );
    let (mut fine, mut harmless_in) = (true, BTreeSet::new());
    for (fault, all) in [
        (Fault::Flip, 10_000),
        (Fault::Overwrite, 2000),
        (Fault::ZeroPage, 2000),
        (Fault::SwapBlocks, 2000),
        (Fault::ForeignBlock, 2000),
        (Fault::Truncate, 2000),
        (Fault::Remove, 200),
        (Fault::HostileLength, 1000),
    ] {
        let tally = faults::run(fault, &pristine, seed, trials(all));
        fine &= row(fault.name(), &tally);
        harmless_in.extend(tally.harmless_in);
    }
    let reads = if full { 300_000 } else { 10_000 };
    let (tally, note) = replicas::independent_faults(&pristine, seed, reads);
    fine &= row("two copies, each block damaged at 2 %", &tally);
    let queries = live::queries(seed, trials(1000));
    fine &= row("queries beside append, delete and compact", &queries);
    fine &= row("two writers at once", &kills::races(&pristine, trials(100)));
    fine &= row("SIGKILL, then resume", &kills::kills(seed, trials(200)));
    println!("\n{note}\nHarmless changes, after which everything read as before: {harmless_in:?}.");
    if let Some(peak) = hyperrag_pipeline::peak_memory_bytes() {
        println!("Peak memory: {} MiB.", peak >> 20);
        fine &= peak < MEMORY_MAX;
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
