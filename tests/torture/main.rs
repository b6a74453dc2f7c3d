//! Effects of disks, kills and other writers on a store, counted: `make torture` prints the table.
//!
//! A trial damages a real store of the tiny model, reads all of it as a query would, and restores the
//! files. Or it runs the program on a disk that fails at one call to the system, and checks the rest.
//! Quick by default; `TORTURE=full` runs all trials, `SEED=N` repeats a run, `ONLY=` and one of
//! `bytes`, `index`, `copies`, `calls`, `power`, `links`, `refused` and `memory` run a part.

#![expect(clippy::print_stdout, reason = "it prints a table")]

mod chains;
mod copies;
mod disk;
mod faults;
mod generations;
mod index;
mod kills;
mod links;
mod live;
mod memory;
mod power;
mod refused;
mod replicas;
#[path = "../cli/seeded.rs"]
mod seeded;
mod sites;
#[path = "../cli/started.rs"]
mod started;
mod store;
mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use faults::ReadError;
use sites::Job;
use store::Pristine;
use world::World;

/// Largest memory of the whole run, in bytes: no length on the disk is believed before it is checked.
const MEMORY_MAX: u64 = 256 << 20;

/// Number of failed calls for each command and fault, if not all are tried.
const CALLS_SAMPLED: usize = 1;

/// Results of the trials of one fault.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) trials: u64,
    /// Trials in which reading or `verify` says that something is wrong.
    pub(crate) detected: u64,
    /// Trials in which nothing reads differently and nothing is reported.
    pub(crate) harmless: u64,
    /// The files of the harmless trials.
    pub(crate) harmless_in: BTreeSet<PathBuf>,
    /// Trials in which a block, a chunk or a hit differs from what was written and nobody noticed, or a
    /// score differs after blocks were computed again.
    pub(crate) wrong: u64,
    /// Blocks that could neither be read nor computed again, although the fault left enough.
    pub(crate) lost: u64,
    /// Descriptions of what was wrong, one sentence each.
    pub(crate) misses: Vec<String>,
}

/// The request of the environment variables, and the outcome.
struct Torture {
    full: bool,
    seed: u64,
    fine: bool,
    notes: Vec<String>,
}

impl Torture {
    fn trials(&self, all: u64) -> u64 {
        if self.full { all } else { all.div_ceil(40) }
    }

    /// Prints a row of the table.
    fn row(&mut self, name: &str, tally: Tally) {
        let Tally { trials, detected, harmless, wrong, lost, misses, .. } = tally;
        println!("| {name} | {trials} | {detected} | {harmless} | {wrong} | {lost} |");
        self.fine &= wrong == 0 && lost == 0 && detected + harmless == trials && trials > 0;
        self.notes.extend(misses);
    }

    /// Damages bytes of a store, and lets processes end or meet.
    fn bytes(&mut self, pristine: &Pristine) {
        let mut harmless_in = BTreeSet::new();
        for (fault, all) in [
            (ReadError::Flip, 10_000),
            (ReadError::Overwrite, 2000),
            (ReadError::ZeroPage, 2000),
            (ReadError::SwapBlocks, 2000),
            (ReadError::ForeignBlock, 2000),
            (ReadError::Truncate, 2000),
            (ReadError::Remove, 200),
            (ReadError::HostileLength, 1000),
        ] {
            let mut tally = faults::run(fault, pristine, self.seed, self.trials(all));
            harmless_in.append(&mut tally.harmless_in);
            self.row(fault.name(), tally);
        }
        let reads = if self.full { 300_000 } else { 10_000 };
        let (tally, note) = replicas::independent_faults(pristine, self.seed, reads);
        self.row("two copies, each block damaged at 2 %", tally);
        let queries = live::queries(self.seed, self.trials(1000));
        self.row("queries beside append, delete and compact", queries);
        self.row("two writers at once", kills::races(pristine, self.trials(100)));
        self.row("SIGKILL at a random moment, resume", kills::kills(self.seed, self.trials(200)));
        let ignored = kills::ignored_signals(self.seed, self.trials(200));
        self.row("SIGINT, SIGTERM, SIGHUP, ignored from the start", ignored);
        self.notes.push(note);
        let harmless = "Harmless changes, after which everything read as before";
        self.notes.push(format!("{harmless}: {harmless_in:?}."));
    }

    /// Tests replicas that are older than their store, and replicas made while it changes.
    fn copies(&mut self) {
        let stale = generations::stale(self.seed, self.trials(364));
        self.row("older replicas, manifest damaged", stale);
        let copies = copies::beside_changes(self.seed, self.trials(500));
        self.row("replicate beside append, delete and compact", copies);
    }

    /// Tests a disk that fails below the program, at one call or from one on.
    fn calls(&mut self, world: &World, jobs: &[Job]) {
        let calls_max = if self.full { usize::MAX } else { CALLS_SAMPLED };
        for (name, tally) in sites::run(world, jobs, self.seed, calls_max) {
            self.row(name, tally);
        }
    }
}

fn main() -> ExitCode {
    if index::read_if_asked() {
        return ExitCode::SUCCESS;
    }
    let variable = |name| std::env::var(name).ok();
    let full = variable("TORTURE").is_some_and(|value| value == "full");
    let seed = variable("SEED").and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let only = variable("ONLY");
    let wanted = |part: &str| only.as_ref().is_none_or(|only| only == part);
    let mut torture = Torture { full, seed, fine: true, notes: Vec::new() };
    let pristine = Pristine::build();
    println!("seed {seed}, {} bytes in {} files", pristine.bytes(), pristine.files().len());
    println!(
        "\n| fault | trials | detected | harmless | wrong | lost |\n|---|---|---|---|---|---|"
    );
    if wanted("bytes") {
        torture.bytes(&pristine);
    }
    if wanted("copies") {
        torture.copies();
    }
    if wanted("index") {
        let changed = index::changed_under_readers(seed, torture.trials(1000));
        torture.row("an index changed under an open reader", changed);
    }
    let supported =
        cfg!(target_os = "linux") && cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
    if !supported {
        torture.notes.push("Not checked here: a disk that fails below the program.".to_owned());
    } else if wanted("calls") || wanted("power") || wanted("links") || wanted("refused") {
        let world = World::new();
        let jobs = sites::jobs(&world);
        if wanted("calls") {
            torture.calls(&world, &jobs);
        }
        if wanted("power") {
            let losses = power::losses(&world, &jobs, seed, torture.trials(1000));
            torture.row("power lost, run again", losses);
        }
        if wanted("links") {
            for (name, tally) in links::run(&world, seed, full) {
                torture.row(&name, tally);
            }
        }
        if wanted("refused") {
            for (name, tally) in refused::run(&world, seed, full) {
                torture.row(name, tally);
            }
        }
        if wanted("power") {
            for (name, tally) in chains::run(&world, seed, full) {
                torture.row(&name, tally);
            }
        }
    }
    // Before hostile inputs are made, which are large.
    let peak = hyperrag_eval::experiment::machine::peak_memory_bytes();
    if wanted("memory") {
        let trials = if full { 50 } else { 10 };
        let (tally, note) = memory::hostile(seed, trials);
        torture.row("input that asks for much memory", tally);
        torture.notes.push(note);
    }
    println!("\n{}", torture.notes.join("\n"));
    if let Some(peak) = peak {
        println!("Peak memory: {} MiB.", peak >> 20);
        torture.fine &= peak < MEMORY_MAX;
    }
    if torture.fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
