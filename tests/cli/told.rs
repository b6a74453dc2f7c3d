//! Sentences on a store that is half-way, on chunks that are too long, and on copies that nothing
//! mends.

use std::fs;

use crate::support::{DAMAGED, FAILED, MISMATCH, Scratch, jsonl, passages, testdata};

#[test]
fn chunks_that_leave_no_room_for_a_query_are_refused() {
    let scratch = Scratch::new();
    let refused =
        scratch.fails_without_store("build CORPUS --store store TINY --chunk-tokens 2048");
    refused.says(&[
        "chunks of 2048 positions leave no room for queries: the model has 2048",
        "at least 32 of its own",
        "use --chunk-tokens 20",
    ]);
    let most = refused.stderr.split("--chunk-tokens ").nth(1).unwrap();
    let most: usize = most.split(' ').next().unwrap().parse().unwrap();
    scratch.fails_without_store(&format!(
        "build CORPUS --store store TINY --chunk-tokens {}",
        most + 1
    ));
    scratch.write("corpus.jsonl", jsonl(&passages()[..3]));
    let build = format!("build corpus.jsonl --store store TINY --chunk-tokens {most}");
    scratch.ok(&build);
    scratch.ok("query --store store TINY honeybees");
}

#[test]
fn an_interrupted_append_is_told() {
    let scratch = Scratch::new();
    scratch.write("first.jsonl", jsonl(&passages()[..16]));
    scratch.write("more.jsonl", jsonl(&passages()[16..80]));
    scratch.ok("build first.jsonl --store store TINY --unit-rows 16");
    let before = scratch.ok("info --store store --json").json().remove(0);
    assert_eq!(before["unfinished_append_shards"], 0);
    let plan = scratch.ok("build first.jsonl --store store TINY --unit-rows 16 --dry-run");
    plan.says(&["the store is complete, with 16 documents", "--append adds what is new"]);
    let all: u64 = ["store/shards/000000.kv", "store/chunks/000000.parquet"]
        .map(|name| fs::metadata(scratch.path(name)).unwrap().len())
        .iter()
        .sum();
    let append = "build more.jsonl --store store TINY --append";
    scratch.ends(FAILED, &format!("{append} --max-bytes {}", all * 7 / 2));
    let info = scratch.ok("info --store store");
    info.says(&["an append is not finished: ", "sealed and not yet searched", "--restart"]);
    let info = scratch.ok("info --store store --json").json().remove(0);
    assert!(info["unfinished_append_shards"].as_u64().unwrap() > 0, "{info}");
    scratch.ok(append);
    assert!(!scratch.ok("info --store store").stderr.contains("append"));
}

#[test]
fn a_copy_with_a_damaged_manifest_is_made_anew() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..8]));
    scratch.ok("build corpus.jsonl --store store TINY");
    scratch.ok("replicate --store store --to copy");
    scratch.damage("copy/manifest.json", |bytes| bytes[40] ^= 1);
    for line in
        ["replicate --store store --to copy", "replicate --store store --to copy --checksum"]
    {
        let refused = scratch.ends(DAMAGED, line);
        refused
            .says(&["copy/manifest.json", "remove the copy's folder and run `hyperrag replicate`"]);
        assert!(!refused.stderr.contains("hyperrag repair"), "{}", refused.stderr);
    }
    scratch
        .ends(DAMAGED, "verify --store store --replicas")
        .says(&["remove this folder and copy again"]);
    fs::remove_dir_all(scratch.path("copy")).unwrap();
    scratch.ok("replicate --store store --to copy");
    scratch.ok("verify --store store --replicas");
}

#[test]
fn a_lost_chunk_file_without_a_replica_is_built_again() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..8]));
    scratch.ok("build corpus.jsonl --store store TINY");
    fs::remove_file(scratch.path("store/chunks/000000.parquet")).unwrap();
    let found = scratch.ends(DAMAGED, "verify --store store");
    found.says(&["there is no replica to mend it from: build the store again"]);
    assert!(!found.stderr.contains("hyperrag repair"), "{}", found.stderr);
}

#[test]
fn a_comparison_allows_longer_documents() {
    let scratch = Scratch::new();
    let text = "bees and honey ".repeat(90);
    scratch.write("corpus.jsonl", jsonl(&[serde_json::json!({"_id": "p1", "text": text})]));
    scratch.write("q.tsv", "q1\tbees\n");
    scratch.write("qrels", "q1 0 p1 1\n");
    let bench = "bench quality corpus.jsonl TINY --queries q.tsv --qrels qrels --variants f32 \
                 --recompute-queries 0 --max-document-bytes";
    scratch.ends(FAILED, &format!("{bench} 1000")).says(&["--max-document-bytes"]);
    scratch.ok(&format!("{bench} 2000"));
}

#[test]
fn a_run_needs_no_texts() {
    let scratch = Scratch::new();
    let tiny = testdata("tiny.gguf");
    scratch.ok(&format!("build CORPUS --store store --model {tiny}"));
    let query = "query --store store TINY --queries QUERIES --depth 9 -k 9";
    let found = scratch.ok(&format!("{query} --json")).json();
    let run = scratch.ok(&format!("{query} --format trec")).stdout;
    let ids = found.iter().flat_map(|result| result["hits"].as_array().unwrap());
    let ids: Vec<&str> = ids.map(|hit| hit["id"].as_str().unwrap()).collect();
    let of_run: Vec<&str> = run.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
    assert_eq!(of_run, ids);
}

#[test]
fn a_plan_of_an_append_refuses_what_the_append_would() {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store store TINY --limit 4");
    for other in ["--kv-dtype f32", "--language german"] {
        let line = format!("build CORPUS --store store TINY --append {other}");
        scratch.ends(MISMATCH, &format!("{line} --dry-run")).says(&["the store was made with"]);
        scratch.ends(MISMATCH, &line);
    }
}

#[test]
fn a_named_title_that_no_row_has_is_told() {
    let scratch = Scratch::new();
    let built = scratch.ok("build CORPUS --store parquet TINY --limit 4");
    assert!(!built.stderr.contains("no title"), "{}", built.stderr);
    scratch.write("rows.jsonl", "{\"_id\": \"a\", \"title\": \"Bees\", \"text\": \"honey\"}\n");
    let built = scratch.ok("build rows.jsonl --store store TINY --title-column nope");
    built.says(&["warning: no title \"nope\" in the first rows"]);
}
