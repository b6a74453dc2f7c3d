//! Stores whose element types need a calibration: int5 and int4.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::support::{DAMAGED, DONE, FAILED, MISMATCH, Scratch, jsonl, passages, ranked};

const QUERY: &str = "query --store store TINY --json --queries QUERIES --depth 50 -k 50";

#[test]
fn reuse_equals_recompute_and_the_store_is_smaller() {
    let scratch = Scratch::new();
    for (kv_dtype, bytes) in [("int5", "96"), ("int4", "96")] {
        let store = format!("store-{kv_dtype}");
        scratch
            .ok(&format!("build CORPUS --store {store} TINY --unit-rows 64 --kv-dtype {kv_dtype}"));
        let query = QUERY.replace("--store store", &format!("--store {store}"));
        let reused = ranked(&scratch.ok(&query));
        assert_eq!(reused, ranked(&scratch.ok(&format!("{query} --recompute"))), "{kv_dtype}");
        let info = scratch.ok(&format!("info --store {store}")).stdout;
        assert!(
            info.lines().any(|line| line.starts_with("bytes a token") && line.ends_with(bytes)),
            "{info}"
        );
        assert!(info.contains("calibration"), "{info}");
        scratch.ok(&format!("verify --deep --store {store}"));
    }
    scratch
        .ends(MISMATCH, "build CORPUS --store store-int4 TINY --unit-rows 64")
        .says(&["element"]);
    // The same corpus gives the same calibration, another corpus another one.
    scratch
        .ok("build CORPUS --store store-int4 TINY --unit-rows 64 --kv-dtype int4")
        .says(&["up to date"]);
}

/// Returns the bits of every score, by query and document.
fn scores(scratch: &Scratch, query: &str) -> BTreeMap<(String, String), u32> {
    let answers = ranked(&scratch.ok(query)).into_iter();
    let scores = answers.flat_map(|(query, hits)| {
        hits.into_iter().map(move |(document, score)| ((query.clone(), document), score))
    });
    scores.collect()
}

/// Tests a statement of README, ARCHITECTURE.md and FORMAT.md.
#[test]
fn scores_follow_from_the_token_ids_and_of_few_bits_from_the_calibration_too() {
    let scratch = Scratch::new();
    let passages = passages();
    let (first, second) = passages.split_at(passages.len() / 2);
    scratch.write("first.jsonl", jsonl(first));
    scratch.write("second.jsonl", jsonl(second));
    scratch.write("q.tsv", "1\twhat do bees do in winter\n2\tbread and water\n");
    for (kv_dtype, equal) in [("bf16", true), ("int8", true), ("int5", false), ("int4", false)] {
        let scores = ["first second", "second first"].map(|order| {
            let (build, append) = order.split_once(' ').unwrap();
            let store = format!("{kv_dtype}-{build}");
            let settings = format!("--store {store} TINY --unit-rows 32 --kv-dtype {kv_dtype}");
            scratch.ok(&format!("build {build}.jsonl {settings}"));
            scratch.ok(&format!("build {append}.jsonl {settings} --append"));
            let query =
                format!("query --store {store} TINY --json --queries q.tsv --depth 160 -k 160");
            let stored = scores(&scratch, &query);
            assert_eq!(stored, scores(&scratch, &format!("{query} --recompute")), "{store}");
            stored
        });
        // The segments of an index decide which of several documents with the same score are found.
        let shared: Vec<_> = scores[0]
            .iter()
            .filter_map(|(key, score)| Some((score, scores[1].get(key)?)))
            .collect();
        assert!(shared.len() > 20, "{kv_dtype}");
        assert_eq!(shared.iter().all(|(a, b)| a == b), equal, "{kv_dtype}");
    }
}

#[test]
fn a_killed_build_keeps_its_calibration() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()));
    let build = "build corpus.jsonl --store store TINY --unit-rows 16 --kv-dtype int4";
    scratch.ok(&build.replace("--store store", "--store whole"));
    for wait in [30, 60, 90, 120, 150, 200] {
        let mut child = scratch.spawn(build);
        sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        if child.wait().unwrap().code() == Some(DONE) {
            break;
        }
    }
    scratch.ok(build);
    assert_eq!(scratch.contents("store"), scratch.contents("whole"));
    let bytes = |store: &str| fs::read(scratch.path(&format!("{store}/calibration.bin"))).unwrap();
    assert_eq!(bytes("store"), bytes("whole"));
    // Added documents are stored with the existing means.
    scratch
        .write("more.jsonl", jsonl(&[serde_json::json!({"_id": "new", "text": "Some new text."})]));
    scratch.ok("build more.jsonl --store store TINY --append");
    assert_eq!(bytes("store"), bytes("whole"));
    scratch.ok("verify --deep --store store");
}

#[test]
fn a_damaged_calibration_is_noticed_and_mended() {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store store TINY --unit-rows 64 --kv-dtype int5");
    let right = ranked(&scratch.ok(QUERY));
    let whole = scratch.files("store");
    let length = fs::metadata(scratch.path("store/calibration.bin")).unwrap().len() as usize;
    let repair = "repair --store store TINY";
    for at in [0, 9, 40, length / 2, length - 1] {
        scratch.damage("store/calibration.bin", |bytes| bytes[at] ^= 2);
        scratch.ends(DAMAGED, QUERY).says(&["calibration.bin"]);
        let found = scratch.ends(DAMAGED, "verify --store store --json");
        assert!(found.stdout.contains("calibration.bin"), "{}", found.stdout);
        scratch.ok(repair);
        assert_eq!(scratch.files("store"), whole, "byte {at}");
    }
    for change in [0, length - 3] {
        scratch.damage("store/calibration.bin", |bytes| bytes.truncate(change));
        scratch.ends(DAMAGED, "verify --store store");
        scratch.ok(repair);
    }
    fs::remove_file(scratch.path("store/calibration.bin")).unwrap();
    scratch.ends(DAMAGED, QUERY).says(&["calibration.bin"]);
    scratch.ok(repair);
    scratch.ok("replicate --store store --to copy");
    assert_eq!(scratch.files("copy"), whole);
    fs::remove_file(scratch.path("store/calibration.bin")).unwrap();
    let outcome = scratch.ok(QUERY);
    outcome.says(&["calibration.bin", "replica"]);
    assert_eq!(ranked(&outcome), right);
    let mended = scratch.ok(repair);
    assert!(mended.stdout.contains("from the replica"), "{}", mended.stdout);
    assert_eq!(scratch.files("store"), whole);
    let manifest = fs::read(scratch.path("store/manifest.json")).unwrap();
    fs::remove_file(scratch.path("store/manifest.json")).unwrap();
    fs::remove_file(scratch.path("store/replicas.json")).unwrap();
    scratch.ok("repair --store store TINY --unit-rows 64 --kv-dtype int5");
    scratch.ok("build CORPUS --store store TINY --unit-rows 64 --kv-dtype int5");
    assert_eq!(fs::read(scratch.path("store/manifest.json")).unwrap(), manifest);
}

#[test]
fn rows_beyond_the_limit_are_not_calibrated_on() {
    let scratch = Scratch::new();
    let mut rows = jsonl(&passages()[..8]);
    rows.push_str("{\n");
    scratch.write("corpus.jsonl", rows);
    let build = "build corpus.jsonl --store store TINY --unit-rows 4 --limit 8 --kv-dtype int4";
    scratch.ok(build);
    let whole = scratch.files("store");
    // The store has everything from which it was made.
    fs::remove_file(scratch.path("store/calibration.bin")).unwrap();
    scratch.ends(DAMAGED, build).says(&["calibration.bin", "missing"]);
    scratch.ok("repair --store store TINY");
    assert_eq!(scratch.files("store"), whole);
    let bench = scratch.ok("bench --store store TINY --query-count 3 --depth 8");
    bench.says(&["3 of 3 runs equal to the bit"]);
}

#[test]
fn a_calibration_whose_chunks_are_compacted_away_is_not_promised() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..40]));
    scratch.ok("build corpus.jsonl --store store TINY --unit-rows 16 --kv-dtype int5");
    scratch.ok("replicate --store store --to copy");
    scratch.write("gone", passages()[0]["_id"].as_str().unwrap());
    scratch.ok("delete --store store --ids gone");
    scratch.ok("compact --store store");
    let calibration = fs::read(scratch.path("store/calibration.bin")).unwrap();
    fs::remove_file(scratch.path("store/calibration.bin")).unwrap();
    let list = fs::read(scratch.path("store/replicas.json")).unwrap();
    fs::remove_file(scratch.path("store/replicas.json")).unwrap();
    for repair in ["repair --store store TINY --json --dry-run", "repair --store store TINY --json"]
    {
        let left = scratch.ends(DAMAGED, repair);
        assert!(left.stdout.contains("compacted away"), "{}", left.stdout);
    }
    // A replica has it, even if it is behind.
    scratch.write("store/replicas.json", list);
    scratch.ok("repair --store store TINY");
    assert_eq!(fs::read(scratch.path("store/calibration.bin")).unwrap(), calibration);
}

#[test]
fn a_calibration_of_no_text_is_refused() {
    let scratch = Scratch::new();
    scratch.write("empty.jsonl", "{\"_id\": \"a\", \"text\": \" \"}\n");
    let line = "build empty.jsonl --store store TINY --kv-dtype int4";
    scratch.fails_without_store(line).says(&["no document with any text"]);
    assert_eq!(scratch.run(line).code, FAILED);
}
