//! Lists of stores that answer as one.

use serde_json::Value;

use crate::support::{
    DAMAGED, DEGRADED, FAILED, MISMATCH, Outcome, Scratch, USAGE, jsonl, passages,
};

/// Builds a store of all passages, three of their parts, and a list of these.
fn world() -> Scratch {
    let scratch = Scratch::new();
    let rows = passages();
    scratch.write("all.jsonl", jsonl(&rows));
    scratch.ok("build all.jsonl TINY --store whole --unit-rows 16");
    for (name, part) in [("a", &rows[..90]), ("b", &rows[90..97]), ("c", &rows[97..])] {
        scratch.write("part.jsonl", jsonl(part));
        scratch.ok(&format!("build part.jsonl TINY --store parts/{name} --unit-rows 16"));
    }
    scratch.write("parts/collection.json", r#"{"format": 1, "stores": ["a", "b", "c"]}"#);
    scratch
}

/// Returns results with all that does not depend on time.
fn results(outcome: &Outcome) -> Vec<Value> {
    let mut results = outcome.json();
    for result in &mut results {
        for time in ["retrieve_seconds", "rerank_seconds"] {
            result["stats"][time] = Value::Null;
        }
    }
    results
}

#[test]
fn a_list_of_stores_gives_the_hits_and_scores_of_one() {
    let scratch = world();
    for flags in ["", "--fuse none", "--fuse rrf --depth 3", "--recompute --aggregate mean"] {
        let line = format!("query TINY --json --queries QUERIES --depth 20 -k 20 {flags} --store");
        let line = line.replacen(
            "--depth 20",
            if flags.contains("--depth") { "" } else { "--depth 20" },
            1,
        );
        let whole = results(&scratch.ok(&format!("{line} whole")));
        assert!(whole.iter().any(|result| result["hits"].as_array().unwrap().len() > 2));
        for store in ["parts", "parts/collection.json"] {
            assert_eq!(results(&scratch.ok(&format!("{line} {store}"))), whole, "{flags} {store}");
        }
    }
    for format in ["trec", "text"] {
        let line = format!("query TINY --format {format} --queries QUERIES --store");
        let whole = scratch.ok(&format!("{line} whole")).stdout;
        assert_eq!(scratch.ok(&format!("{line} parts")).stdout, whole);
    }
    let none = scratch.ok("query TINY --store parts xylophone");
    none.says(&["no document has any of its words"]);
}

#[test]
fn damage_in_one_store_is_told_and_changes_no_score() {
    let scratch = world();
    let line = "query TINY --json --queries QUERIES --depth 20 -k 20 --store parts";
    let before = results(&scratch.ok(line));
    scratch.damage("parts/c/shards/000001.kv", |bytes| {
        let start = bytes.len() / 2;
        bytes[start..].iter_mut().for_each(|byte| *byte ^= 1);
    });
    let damaged = scratch.ends(DEGRADED, line);
    damaged.says(&["parts/c/shards/000001.kv", "computed again"]);
    for (now, before) in results(&damaged).iter().zip(&before) {
        assert_eq!(now["hits"], before["hits"]);
    }
    scratch.ends(DAMAGED, &format!("{line} --on-damage fail"));
}

#[test]
fn stores_that_do_not_belong_together_are_refused() {
    let scratch = world();
    let list = |text: &str| scratch.write("parts/collection.json", text);
    let line = "query TINY --store parts bees";
    scratch.ok("build part.jsonl TINY --store parts/other --chunk-tokens 200");
    list(r#"{"format": 1, "stores": ["a", "other"]}"#);
    scratch.ends(MISMATCH, line).says(&["parts/other", "chunk_tokens", "256", "200"]);
    list(r#"{"format": 1, "stores": ["a", "gone"]}"#);
    scratch.ends(FAILED, line).says(&["parts/gone"]);
    for (text, what) in [
        (r#"{"format": 1, "stores": ["a", "a"]}"#, "it names a twice"),
        (r#"{"format": 9, "stores": ["a"]}"#, "its format is 9"),
        (r#"["a"]"#, "no list of stores"),
    ] {
        list(text);
        scratch.ends(FAILED, line).says(&["collection.json: not a usable list of stores", what]);
    }
    std::os::unix::fs::symlink("a", scratch.path("parts/link")).unwrap();
    list(r#"{"format": 1, "stores": ["a", "link"]}"#);
    scratch.ends(FAILED, line).says(&["parts/a and parts/link are one store"]);
    scratch.write("list.json", r#"{"format": 1, "stores": ["parts/a", "list.json"]}"#);
    let inner = "list.json is a list of stores, and a list names stores alone";
    scratch.ends(FAILED, "query TINY --store list.json bees").says(&[inner]);
    let other = "parts/collection.json: a list of stores, which only query takes";
    for command in ["info", "verify", "answer TINY bees"] {
        scratch.ends(USAGE, &format!("{command} --store parts")).says(&[other]);
    }
    list(r#"{"format": 1, "stores": ["a", "b"]}"#);
    for flags in ["--tiers ram:1MiB", "--explain", "--exclude-self"] {
        scratch.ends(USAGE, &format!("{line} {flags}")).says(&["a list of stores takes no"]);
    }
    // A folder with a manifest is a store, whatever lies beside it.
    scratch.write("whole/collection.json", "no list");
    scratch.ok("query TINY --store whole bees");
}
