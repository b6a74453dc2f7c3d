//! Signals that ask the program to stop, also those that its parent set to be ignored.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::started::{after, by};
use crate::support::{DONE, HEEDING, INTERRUPTED, Scratch, jsonl, passages};

const BUILD: &str = "build corpus.jsonl --store store TINY --unit-rows 8";

fn corpus() -> Scratch {
    let scratch = Scratch::new();
    let rows = (0..6).flat_map(|time| {
        passages().into_iter().map(move |mut row| {
            row["_id"] = json!(format!("{}-{time}", row["_id"].as_str().unwrap()));
            row
        })
    });
    scratch.write("corpus.jsonl", jsonl(&rows.collect::<Vec<_>>()));
    scratch
}

/// Starts a build that heeds the signals that `build` does not ignore, and waits until a shard is
/// sealed.
fn started(scratch: &Scratch, build: &Command) -> Child {
    let mut heeding = by(&HEEDING, build);
    let child = heeding.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let (child, start) = (child.unwrap(), Instant::now());
    let journal = scratch.path("store/journal-000001.log");
    while journal.metadata().map_or(0, |file| file.len()) == 0 {
        assert!(start.elapsed() < Duration::from_secs(120), "nothing was sealed");
        sleep(Duration::from_millis(2));
    }
    child
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status();
    assert!(sent.unwrap().success(), "{signal}: the build was over too soon");
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    type Ignoring = fn(&Command) -> Command;
    let ways: [(&str, Ignoring, &[&str]); 3] = [
        ("nohup", |build| by(&["nohup"], build), &["HUP"]),
        ("trap INT", |build| after("trap '' INT", build), &["INT"]),
        ("trap all", |build| after("trap '' INT TERM HUP", build), &["INT", "TERM", "HUP", "INT"]),
    ];
    for (way, ignoring, signals) in ways {
        let scratch = corpus();
        let child = started(&scratch, &ignoring(&scratch.command(BUILD)));
        signals.iter().for_each(|signal| send(signal, &child));
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(DONE), "{way}: {stderr}");
        assert!(stderr.contains("stored 960 documents"), "{way}: {stderr}");
    }
}

#[test]
fn a_signal_that_is_not_ignored_stops_a_build_that_can_be_gone_on_with() {
    for (ignored, signal) in [("INT", "TERM"), ("INT", "HUP"), ("HUP", "INT")] {
        let scratch = corpus();
        let build = scratch.command_after(&format!("trap '' {ignored}"), BUILD);
        let child = started(&scratch, &build);
        send(ignored, &child);
        send(signal, &child);
        let outcome = scratch.check(BUILD, child.wait_with_output().unwrap());
        assert_eq!(outcome.code, INTERRUPTED, "{signal}: {}", outcome.stderr);
        let finished = &scratch.ok(&format!("{BUILD} --json")).json()[0];
        assert_eq!(finished["documents"], 960);
        assert!(finished["shards_before"].as_u64().unwrap() > 0, "{finished}");
    }
}

#[test]
fn a_reader_that_has_had_enough_ends_a_query_quietly() {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store store TINY");
    for format in ["text", "trec", "jsonl"] {
        let line = format!("query --store store TINY --queries QUERIES --format {format}");
        let mut child = scratch.spawn(&line);
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*stderr), (Some(DONE), ""), "{format}");
    }
}
