//! The fields of every command's JSON, which `docs/reference/json.md` lists: what is there stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Scratch, copy_folder, testdata};

const PAGE: &str = "docs/reference/json.md";

const HEAD: &str = "# JSON

`--json` prints one object a line for each query of `query` and `answer`, and one object or list for every
other command. Fields that are listed here stay; new ones may come. `{}` stands for a name such as that of a
measure, `[]` for the elements of a list. A query of a batch that fails has an object with `query_id` and `error`
alone. A test makes this page
(`WRITE_DOCS=1 cargo test --release --test cli json`) and fails where a field is missing.
";

/// Commands on a small store, in their order; the others prepare it.
const COMMANDS: [(&str, &str); 31] = [
    ("model list", "model list"),
    ("model info", "model info TINY_PATH"),
    ("devices", "devices"),
    ("build --dry-run", "build CORPUS --store store TINY --limit 40 --dry-run"),
    ("build", "build CORPUS --store store TINY --limit 40 --unit-rows 16"),
    ("build --append", "build more.jsonl --store store TINY --append"),
    (
        "build --partition",
        "build CORPUS --store parts TINY --limit 40 --unit-rows 16 --partition 1/1",
    ),
    ("merge", "merge --store parts"),
    ("query", "query --store store TINY --queries QUERIES --depth 9"),
    (
        "query --tiers",
        "query --store store TINY --queries QUERIES --depth 9 --tiers ram:1MiB,store",
    ),
    ("answer", "answer --store store TINY --queries two.jsonl --depth 5 --max-tokens 3"),
    ("bench", "bench --store store TINY --queries QUERIES --query-count 2 --depth 4"),
    (
        "bench --tiers",
        "bench --store store TINY --queries QUERIES --query-count 1 --depth 4 --tiers ram:1MiB,store",
    ),
    (
        "bench quality",
        "bench quality CORPUS TINY --queries QUERIES --qrels QRELS --query-count 3 --depth 4 --variants f32/f32,bf16/f32",
    ),
    ("eval", "eval --run run --qrels QRELS --baseline run --measure nDCG@10"),
    ("eval of several runs", "eval --run run run --qrels QRELS --measure nDCG@10"),
    ("eval qa", "eval qa --answers answers --gold gold"),
    ("tune", "tune --hits hits --qrels QRELS"),
    ("replicate", "replicate --store store --to copy"),
    ("info", "info --store store"),
    ("info --tiers", "info --store store --tiers store,ram:1MiB"),
    ("delete", "delete --store store --ids gone"),
    ("compact", "compact --store store"),
    ("verify", "verify --store store --replicas"),
    ("export", "export --store store --to place"),
    ("verify --tier", "verify --store store --tier place"),
    ("repair --dry-run", "repair --store store TINY --dry-run"),
    ("repair", "repair --store store TINY"),
    ("upgrade --dry-run", "upgrade --store old TINY --dry-run"),
    ("plan", "plan --model gemma-2b --bytes 40TB --queries-per-second 9"),
    (
        "plan --simulate",
        "plan --model tiny --chunks 1000 --simulate --storage ram:size=1MB --storage s3:price=9",
    ),
];

/// Objects whose keys are data: one stands for all.
fn is_map(path: &str) -> bool {
    path.ends_with("per_query") || path.ends_with("values")
}

/// The type of `value` at `path`, and of all below it.
fn fields(value: &Value, path: &str, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    if !path.is_empty() {
        found.entry(path.to_owned()).or_default().insert(kind);
    }
    match value {
        Value::Array(values) => {
            values.iter().for_each(|value| fields(value, &format!("{path}[]"), found));
        }
        Value::Object(map) => {
            let dot = if path.is_empty() { "" } else { "." };
            for (key, value) in map {
                let key = if is_map(path) { "{}" } else { key };
                fields(value, &format!("{path}{dot}{key}"), found);
            }
        }
        _ => {}
    }
}

/// The lines of a command's fields.
fn listed(found: &BTreeMap<String, BTreeSet<&'static str>>) -> String {
    let mut lines = String::new();
    for (path, kinds) in found.iter().filter(|(path, _)| !path.ends_with("[]")) {
        let kinds: Vec<&str> = kinds.iter().copied().collect();
        let _ = writeln!(lines, "{path}: {}", kinds.join(" or "));
    }
    lines
}

#[test]
fn the_page_lists_every_field() {
    let scratch = Scratch::new();
    scratch.write("more.jsonl", "{\"_id\": \"p001\", \"text\": \"Another text.\"}\n");
    scratch.write(
        "two.jsonl",
        "{\"_id\": \"a\", \"text\": \"bees\"}\n{\"_id\": \"b\", \"text\": \"bread\"}\n",
    );
    scratch.write("gone", "p002\n");
    scratch.write("gold", "{\"_id\": \"a\", \"answers\": [\"honey\"]}\n");
    scratch.write("answers", "{\"query_id\": \"a\", \"answer\": \"honey\"}\n");
    copy_folder(Path::new(&testdata("stores/v1")), &scratch.path("old"));
    let mut page = HEAD.to_owned();
    for (name, line) in COMMANDS {
        let line = line.replace("QRELS", &testdata("qrels.tsv"));
        let line = line.replace("TINY_PATH", &testdata("tiny.gguf"));
        let stdout = scratch.ok(&format!("{line} --json")).stdout;
        if name == "query" {
            scratch.write("hits", &stdout);
            scratch.write("run", scratch.ok(&format!("{line} --format trec")).stdout);
        }
        let mut found = BTreeMap::new();
        for value in stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            fields(&value, "", &mut found);
        }
        let _ = write!(page, "\n## {name}\n\n```text\n{}```\n", listed(&found));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if std::env::var_os("WRITE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    let written: Vec<&str> = written.lines().collect();
    for (made, written) in page.lines().zip(&written) {
        assert_eq!(&made, written, "{PAGE}");
    }
    assert_eq!(page.lines().count(), written.len(), "{PAGE}");
}
