//! Queries line by line: one line in, one record out, whatever the line.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};

use serde_json::Value;

use crate::support::{DEGRADED, DONE, Outcome, Scratch, jsonl, passages};

fn built() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..8]));
    scratch.ok("build corpus.jsonl --store store TINY");
    scratch
}

/// Lines that fail, with words of their errors.
fn refused() -> [(Vec<u8>, &'static str); 5] {
    [
        (b"".to_vec(), "the query is empty"),
        (b" \t ".to_vec(), "the query is empty"),
        (b"caf\xe9".to_vec(), "not UTF-8"),
        ("é".repeat(700_000).into_bytes(), "longer than 1048576 bytes"),
        ("bees ".repeat(2100).into_bytes(), "room for 2048 together; shorten the query to 1792"),
    ]
}

/// A client that writes a line and waits for its record before it writes the next.
fn each_in_turn(mut stdin: ChildStdin, stdout: ChildStdout) {
    let mut records = BufReader::new(stdout).lines();
    let mut ask = |line: &[u8]| -> Value {
        stdin.write_all(line).unwrap();
        stdin.write_all(b"\n").unwrap();
        serde_json::from_str(&records.next().unwrap().unwrap()).unwrap()
    };
    let first = ask(b"how do bees dance");
    assert_eq!(first["query_id"], "1");
    for (number, (line, words)) in (2..).zip(refused()) {
        let record = ask(&line);
        assert_eq!(record["query_id"], number.to_string(), "{words}");
        assert!(record["error"].as_str().unwrap().contains(words), "{record}");
    }
    let again = ask(b"how do bees dance");
    assert_eq!((&again["query_id"], &again["query"]), (&"7".into(), &first["query"]));
}

#[test]
fn a_client_gets_a_record_for_each_line_before_it_writes_the_next() {
    let scratch = built();
    for command in ["query --depth 3", "answer --depth 3 --passages 1 --max-tokens 2"] {
        let mut started = scratch.command(&format!("{command} --store store TINY --json -"));
        started.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = started.spawn().unwrap();
        each_in_turn(child.stdin.take().unwrap(), child.stdout.take().unwrap());
        assert_eq!(child.wait().unwrap().code(), Some(DEGRADED), "{command}");
    }
}

#[test]
fn in_other_forms_a_line_that_fails_has_a_sentence() {
    let scratch = built();
    let mut lines = refused().map(|(line, _)| line).join(&b'\n');
    lines.extend(b"\nbees");
    for format in ["text", "trec"] {
        let line = format!("query --store store TINY --depth 3 --format {format} -");
        let mut command = assert_cmd::Command::from_std(scratch.command(&line));
        let outcome = scratch.check(&line, command.write_stdin(lines.clone()).output().unwrap());
        assert_eq!(outcome.code, DEGRADED, "{}", outcome.stderr);
        outcome.says(&refused().map(|(_, words)| words));
        outcome.says(&["stdin:3", "stdin:4", "query 1: ", "query 2: ", "query 5: "]);
        assert!(!outcome.stdout.contains("error"), "{}", outcome.stdout);
    }
}

#[test]
fn what_finds_nothing_is_said() {
    let scratch = built();
    let piped = |line: &str, stdin: &str| -> Outcome { scratch.run_with_stdin(line, stdin) };
    for (command, what) in [
        ("query", "no document has any of its words"),
        ("answer --max-tokens 2", "no passage was found"),
    ] {
        let line = format!("{command} --store store TINY --json");
        let some = piped(&format!("{line} -"), "bees\nxylophonist\n");
        some.says(&[&format!("warning: query 2: {what}")]);
        assert_eq!((some.code, some.json().len()), (DONE, 2));
        let none = piped(&format!("{line} -"), &"xylophonist\n".repeat(12));
        none.says(&[&format!("query 10: {what}"), "2 more queries "]);
        assert!(!none.stderr.contains("query 11"), "{}", none.stderr);
        assert_eq!((none.code, none.json().len()), (DONE, 12));
        let alone = scratch.ok(&format!("{line} xylophonist"));
        alone.says(&[&format!("warning: query 1: {what}")]);
        assert_eq!((alone.json().len(), alone.stderr.lines().count()), (1, 1), "{}", alone.stderr);
    }
    let asked_for = "answer --store store TINY --max-tokens 2 --passages 0 xylophonist";
    assert!(!scratch.ok(asked_for).stderr.contains("no passage"));
}
