//! Blocks from tiers that a flag or the settings name: the same answers, work that is told, words that are no tier.

use std::fs;

use serde_json::{Value, json};

use crate::support::{DEGRADED, Outcome, Scratch, USAGE, jsonl, passages};

const QUERY: &str = "query --store store TINY --json --queries QUERIES --depth 12";

/// Makes a store of 48 documents, and exports it to the folder `place`.
fn exported() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..48]));
    scratch.ok("build corpus.jsonl --store store TINY --unit-rows 16");
    scratch.ok("export --store store --to place");
    scratch
}

/// Returns the results without times and without the work of tiers.
fn answers(outcome: &Outcome) -> Vec<Value> {
    let mut answers = outcome.json();
    for answer in &mut answers {
        let stats = answer["stats"].as_object_mut().unwrap();
        stats.retain(|name, _| !name.ends_with("_seconds") && name != "tiers");
    }
    assert!(!answers.is_empty());
    answers
}

/// Returns the last count of each tier: name, hits, misses, failures.
fn work(outcome: &Outcome) -> Vec<(String, u64, u64, u64)> {
    let results = outcome.json();
    let tiers = results.last().unwrap()["stats"]["tiers"].as_array().unwrap().clone();
    let count = |tier: &Value, name: &str| tier[name].as_u64().unwrap();
    let of = |tier: &Value| {
        let name = tier["tier"].as_str().unwrap().split(':').next().unwrap().to_owned();
        (name, count(tier, "hits"), count(tier, "misses"), count(tier, "failures"))
    };
    tiers.iter().map(of).collect()
}

#[test]
fn answers_are_the_same_from_every_order_of_tiers() {
    let scratch = exported();
    let expected = answers(&scratch.ok(QUERY));
    fs::remove_dir_all(scratch.path("store/shards")).unwrap();
    let from_folder = scratch.ok(&format!("{QUERY} --tiers folder:place"));
    assert_eq!(answers(&from_folder), expected);
    let [(_, hits, 0, 0)] = work(&from_folder)[..] else { panic!("{:?}", work(&from_folder)) };
    assert!(hits > 0);

    let cached = |more: &str| {
        let cache = scratch.path("cache").display().to_string();
        scratch.ok(&format!("{QUERY} --tiers ram:64MiB,cache:{cache}:1GiB {more}"))
    };
    let first = cached("--tiers folder:place");
    assert_eq!(answers(&first), expected);
    let counts = work(&first);
    assert_eq!(
        counts.iter().map(|(name, ..)| &name[..]).collect::<Vec<_>>(),
        ["ram", "cache", "folder"]
    );
    assert!(counts[0].1 > 0 && counts[2].1 > 0, "{counts:?}");
    // The next process finds in the cache what the first one read.
    fs::rename(scratch.path("place"), scratch.path("gone")).unwrap();
    let second = cached("");
    assert_eq!(answers(&second), expected);
    assert!(work(&second)[1].1 > 0 && work(&second)[1].2 == 0, "{:?}", work(&second));
}

#[test]
fn what_no_tier_has_is_computed_again_and_said() {
    let scratch = exported();
    let expected = answers(&scratch.ok(QUERY));
    fs::create_dir(scratch.path("empty")).unwrap();
    let ended = scratch.ends(DEGRADED, &format!("{QUERY} --tiers folder:empty --explain"));
    ended.says(&["does not hold the block", "computed again", "0 blocks (0 B)"]);
    let hits = |all: &[Value]| all.iter().map(|one| one["hits"].clone()).collect::<Vec<_>>();
    assert_eq!(hits(&answers(&ended)), hits(&expected));
    // The store's own folder comes after it: nothing is computed.
    let ended = scratch.ok(&format!("{QUERY} --tiers folder:empty,store"));
    ended.says(&["does not hold the block", "read from"]);
    assert_eq!(hits(&answers(&ended)), hits(&expected));
}

#[test]
fn the_settings_file_names_tiers_and_bench_tells_their_work() {
    let scratch = exported();
    scratch.write(
        "hyperrag.toml",
        "tiers = [\"ram:8MiB\", \"folder:place\"]\n[query]\nexplain = true\n",
    );
    let ended = scratch.ok(QUERY);
    ended.says(&["ram:", "folder:", "a piece came after"]);
    assert_eq!(work(&ended).len(), 2);
    let bench =
        scratch.ok("bench --store store TINY --queries QUERIES --query-count 1 --depth 4 --json");
    let bench = bench.json().remove(0);
    assert_eq!(bench["conditions"]["io"], json!("tiers"));
    assert_eq!(bench["tiers"].as_array().unwrap().len(), 2);
    assert!(bench["comparisons"][0]["bit_equal"].as_bool().unwrap());
}

#[test]
fn info_asks_each_tier() {
    let scratch = exported();
    let info = scratch.ok("info --store store --json --tiers store,folder:place,ram:1MiB");
    let tiers = info.json().remove(0)["tiers"].clone();
    let intact = |n: usize| tiers[n]["blocks_intact"].as_u64().unwrap();
    assert!(intact(0) > 0 && intact(1) == intact(0) && intact(2) == 0, "{tiers}");
    assert!(tiers[1]["facts"]["free_bytes"].as_f64().unwrap() > 0.0);
    assert!(tiers[1]["latency_seconds"].as_f64().unwrap() > 0.0);
    // A tier that cannot be reached is named; the others are asked all the same.
    let info = scratch.ends(DEGRADED, "info --store store --tiers redis://127.0.0.1:1,store");
    assert!(info.stdout.contains("cannot be reached") && info.stdout.contains("rate"));
}

#[test]
fn words_that_are_no_tier_are_refused_and_secrets_are_not_repeated() {
    let scratch = exported();
    for (tiers, said) in [
        ("disk", "is no tier"),
        ("ram:much", "is no size"),
        ("cache:/tmp", "cache:FOLDER:SIZE"),
        ("redis://me:hunter2@host:1", "HYPERRAG_REDIS_PASSWORD"),
        ("s3://key:hunter2@bucket/x", "AWS_SECRET_ACCESS_KEY"),
        ("redis://host?colour=red", "role"),
        ("device:1GiB", "not a place"),
    ] {
        let ended = scratch.run(&format!("{QUERY} --tiers {tiers}"));
        assert!(ended.code == USAGE || tiers == "device:1GiB", "{tiers}: {}", ended.code);
        assert!(ended.stderr.contains(said), "{tiers}: {}", ended.stderr);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
    // A folder of other things is no cache.
    let store = scratch.path("store").display().to_string();
    let ended = scratch.run(&format!("{QUERY} --tiers cache:{store}:1GiB,store"));
    assert!(ended.code != 0 && ended.stderr.contains("cache"), "{}", ended.stderr);
    assert!(scratch.path("store/manifest.json").exists());
}
