//! Commands of the guide's cluster, run as they stand there, on other ports.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Services, free_ports};
use crate::docs::{blocks, prepared, root};
use crate::support::{all_files, testdata};

/// First of the six ports of the page, which follow each other.
const FIRST: u16 = 7101;

/// Kills the servers that the page has started as daemons, below a folder.
struct Daemons(PathBuf);

impl Drop for Daemons {
    fn drop(&mut self) {
        for path in all_files(&self.0).iter().filter(|path| path.ends_with("redis.pid")) {
            let id = fs::read_to_string(path).unwrap_or_default();
            // The number may be another's by now.
            let at = fs::read_link(format!("/proc/{}/cwd", id.trim()));
            if at.is_ok_and(|folder| Some(folder.as_path()) == path.parent()) {
                // An error says that it has ended.
                drop(Command::new("kill").args(["-KILL", id.trim()]).output());
            }
        }
    }
}

/// Returns a page's shell commands, as one script.
fn script(page: &str) -> String {
    let blocks = blocks(page, "sh");
    assert!(blocks.len() > 2, "{} blocks", blocks.len());
    blocks.join("\n")
}

#[test]
fn the_cluster_of_the_guide_is_started_filled_asked_and_loses_a_node() {
    let Some(services) = Services::find() else { return };
    let page = fs::read_to_string(root().join("docs/guide/cluster.md")).unwrap();
    let mut script = script(&page);
    // Without these it would show nothing.
    for part in
        ["redis-cli --cluster create", "hyperrag export", "kill -9", "cmp before.run after.run"]
    {
        assert!(script.contains(part), "the page lost {part:?}");
    }
    for (old, new) in (FIRST..).zip(free_ports::<6>()) {
        assert!(script.contains(&old.to_string()), "{old} is no port of the page");
        script = script.replace(&old.to_string(), &new.to_string());
    }
    let scratch = prepared();
    scratch.ok("build corpus.parquet --store my.store TINY");
    let _daemons = Daemons(fs::canonicalize(scratch.path("")).unwrap());
    let program = Path::new(env!("CARGO_BIN_EXE_hyperrag")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{}:{path}", program.display(), services.bin().display());
    // Its daemons hold what they have of its output, so that goes to a file.
    let out = fs::File::create(scratch.path("out")).unwrap();
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "300", "bash", "-eux", "-o", "pipefail", "-c", &script]);
    command
        .current_dir(scratch.path(""))
        .env("PATH", path)
        .env("HYPERRAG_HOME", scratch.path("home"));
    command.env("HYPERRAG_MODEL", testdata("tiny.gguf"));
    command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
    let done = command.status().unwrap();
    let said = fs::read_to_string(scratch.path("out")).unwrap();
    assert!(done.success(), "{done}: {said}");
    assert!(!fs::read(scratch.path("before.run")).unwrap().is_empty(), "{said}");
    assert!(!said.contains("computed again"), "{said}");
}
