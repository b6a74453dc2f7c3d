//! Workers that a scheduler has started on this machine. In: variables of their environment. Out: their processes,
//! which a test stops and kills in the middle of their work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use super::Services;
use crate::support::{jsonl, passages};

/// Flags of a build of [`rows`]: 64 units, which are four spans of a second each.
pub(super) const SETTINGS: &str = "--unit-rows 20";

/// Returns the passages eight times, under ids of their own.
pub(super) fn rows() -> String {
    let copy = |n: usize| {
        let mut rows = passages();
        for row in &mut rows {
            row["_id"] = json!(format!("{}-{n}", row["_id"].as_str().unwrap()));
        }
        jsonl(&rows)
    };
    (0..8).map(copy).collect()
}

/// Returns a `PATH` with the program and the services before all else.
pub(super) fn path(services: &Services) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_hyperrag")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    format!("{}:{}:{path}", program.display(), services.bin().display())
}

/// Lists the processes that have all these variables, each given as `NAME=value`.
pub(super) fn processes(wanted: &[&str]) -> Vec<u32> {
    let has_all = |id: &u32| {
        // Those of a process that has ended, or that is another user's, are not told.
        let variables = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        let has = |wanted: &&str| variables.split(|b| *b == 0).any(|v| v == wanted.as_bytes());
        wanted.iter().all(has)
    };
    let entries = fs::read_dir("/proc").unwrap();
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(has_all).collect()
}

/// Sends a signal, such as `KILL`, to a process, which must be there.
pub(super) fn signal(id: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status();
    assert!(sent.unwrap().success(), "{name}: the process is gone");
}

/// Returns the file that tells of the first claim on a span.
pub(super) fn claim(store: &Path, span: u32) -> PathBuf {
    store.join(format!("build/spans/{span:06}.0"))
}

/// Stops the worker with these variables, which has just claimed `span`. Returns its process.
pub(super) fn freeze(store: &Path, span: u32, variables: &[&str]) -> u32 {
    let program = fs::canonicalize(env!("CARGO_BIN_EXE_hyperrag")).unwrap();
    let runs = |id: &u32| fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|at| at == program);
    let worker = processes(variables).into_iter().find(runs);
    let id = worker.expect("the worker of a span that was just begun");
    signal(id, "STOP");
    while !is_stopped(id) {
        sleep(Duration::from_millis(1));
    }
    let done = store.join(format!("build/done/{span:06}"));
    assert!(!done.exists(), "the worker was faster than this test");
    id
}

fn is_stopped(id: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    status.lines().any(|line| line.starts_with("State:") && line.contains("(stopped)"))
}
