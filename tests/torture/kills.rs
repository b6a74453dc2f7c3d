//! Processes that end, and processes that meet.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use hyperrag_store::{StoreError, StoreWriter};
use tempfile::TempDir;

use crate::Tally;
use crate::seeded::Seeded;
use crate::started::after;
use crate::store::{Pristine, testdata};
use crate::world::{Tree, read_tree};

/// Opens one store with several writers at once: one wins, the others say why they do not.
pub(crate) fn races(pristine: &Pristine, trials: u64) -> Tally {
    let mut tally = Tally { trials, ..Tally::default() };
    for _ in 0..trials {
        let folder = TempDir::new().unwrap();
        let root = folder.path().join("store");
        let barrier = std::sync::Barrier::new(2);
        // Each holds its result until both have tried.
        let open = || {
            barrier.wait();
            let opened = StoreWriter::open(&root, &pristine.fingerprint, None);
            barrier.wait();
            opened.map(|_| ())
        };
        let ends = thread::scope(|scope| {
            let writers = [scope.spawn(open), scope.spawn(open)];
            writers.map(|writer| writer.join().unwrap())
        });
        match ends {
            [Ok(()), Err(StoreError::Locked { .. })] | [Err(StoreError::Locked { .. }), Ok(())] => {
                tally.detected += 1;
            }
            _ => tally.wrong += 1,
        }
    }
    tally
}

fn build(folder: &TempDir, store: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hyperrag"));
    let arguments = ["build", &testdata("corpus.parquet"), "--store", store];
    command.args(arguments).args(["--model", &testdata("tiny.gguf"), "--unit-rows", "16"]);
    command.args(["--device", "cpu"]).current_dir(folder.path()).stderr(Stdio::null());
    command
}

/// Returns shards and chunk files of a store; none if a build was killed before it made its folder.
fn sealed(folder: &TempDir, store: &str) -> Tree {
    let mut files = read_tree(&folder.path().join(store));
    files.retain(|name, bytes| {
        bytes.is_some() && (name.starts_with("shards") || name.starts_with("chunks"))
    });
    files
}

/// Starts builds with signals ignored, as nohup does, and sends them signals at random moments. Each
/// must end with the bytes of an undisturbed build.
pub(crate) fn ignored_signals(seed: u64, trials: u64) -> Tally {
    let mut random = Seeded(seed ^ 0x5161);
    let folder = TempDir::new().unwrap();
    assert!(build(&folder, "whole").status().unwrap().success());
    let whole = sealed(&folder, "whole");
    let mut tally = Tally { trials, ..Tally::default() };
    for _ in 0..trials {
        let mut shell = after("trap '' INT TERM HUP", &build(&folder, "store"));
        let mut child = shell.stderr(Stdio::null()).spawn().unwrap();
        // Not before the shell has begun to ignore them.
        while !folder.path().join("store").exists() {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(random.below(100) as u64));
        for signal in ["-INT", "-TERM", "-HUP", "-INT"] {
            let id = child.id().to_string();
            // It may be over already.
            let _ = Command::new("kill").args([signal, &id]).stderr(Stdio::null()).status();
        }
        match child.wait().unwrap().success() && sealed(&folder, "store") == whole {
            true => tally.harmless += 1,
            false => tally.wrong += 1,
        }
        std::fs::remove_dir_all(folder.path().join("store")).unwrap();
    }
    tally
}

/// Kills builds at random moments. Each continues, must end with the bytes of an undisturbed build, and
/// may redo one unit at most.
pub(crate) fn kills(seed: u64, trials: u64) -> Tally {
    let mut random = Seeded(seed ^ 0x9999);
    let folder = TempDir::new().unwrap();
    assert!(build(&folder, "whole").status().unwrap().success());
    let whole = sealed(&folder, "whole");
    let mut tally = Tally::default();
    let mut store = 0;
    while tally.trials < trials {
        store += 1;
        let name = format!("store{store}");
        loop {
            let mut child = build(&folder, &name).spawn().unwrap();
            thread::sleep(Duration::from_millis(random.below(700) as u64));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "seed {seed}: a resumed build failed");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            tally.trials += 1;
            // Sealed files are whole, whatever else was in progress.
            let wrong = sealed(&folder, &name).iter().any(|(file, bytes)| {
                file.extension().is_none_or(|e| e != "tmp") && whole.get(file) != Some(bytes)
            });
            match wrong {
                true => tally.wrong += 1,
                false => tally.detected += 1,
            }
        }
        if sealed(&folder, &name) != whole {
            tally.wrong += 1;
        }
        std::fs::remove_dir_all(folder.path().join(&name)).unwrap();
    }
    tally
}
