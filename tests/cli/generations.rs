//! Stores whose manifest is damaged or lost while replicas are older: no store goes back unasked.

use std::fs;

use crate::support::{DAMAGED, DEGRADED, Outcome, Scratch, jsonl, passages, ranked};

const QUERY: &str = "query --store store TINY --json -k 100 --depth 100 honeybees";
const REPAIR: &str = "repair --store store TINY --unit-rows 16 --json";
/// A document that the query finds.
const GONE: &str = "p001";

/// Makes a store of generation 3 with a deleted document. `late` is a replica of it. `early` is one of
/// generation 2, and is named first.
fn deleted() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..40]));
    scratch.ok("build corpus.jsonl --store store TINY --unit-rows 16 --replica early");
    scratch.ok("replicate --store store --to late");
    assert!(finds(&scratch.ok(QUERY)));
    scratch.write("ids", GONE);
    scratch.ok("delete --store store --ids ids");
    scratch.ok("replicate --store store --to late");
    assert!(!finds(&scratch.ok(QUERY)));
    scratch
}

/// Whether the deleted document is in the answer.
fn finds(answer: &Outcome) -> bool {
    ranked(answer)[0].1.iter().any(|(id, _)| id == GONE)
}

fn change_dead(text: &mut [u8]) {
    let at = text.windows(8).position(|part| part == b"\"rows\":[").unwrap();
    text[at + 8] ^= 1;
}

type Change = fn(&mut Vec<u8>);

/// Ways to damage a manifest.
const DAMAGES: [(&str, Change); 4] = [
    ("a digit changed", |bytes| change_dead(bytes)),
    ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
    ("cut to its start", |bytes| bytes.truncate(5)),
    ("emptied", |bytes| bytes.clear()),
];

/// Runs `check` with every damage of the manifest; the last one is its removal.
fn damaged(scratch: &Scratch, check: impl Fn(&str)) {
    let whole = fs::read(scratch.path("store/manifest.json")).unwrap();
    for (name, change) in DAMAGES {
        scratch.damage("store/manifest.json", change);
        check(name);
        scratch.write("store/manifest.json", &whole);
    }
    fs::remove_file(scratch.path("store/manifest.json")).unwrap();
    check("removed");
    scratch.write("store/manifest.json", whole);
}

#[test]
fn the_replica_of_the_last_generation_is_taken() {
    let scratch = deleted();
    let (answer, whole) = (ranked(&scratch.ok(QUERY)), scratch.files("store"));
    damaged(&scratch, |damage| {
        let found = scratch.ok(QUERY);
        found.says(&["late"]);
        assert_eq!(ranked(&found), answer, "{damage}");
        scratch.ends(DAMAGED, "verify --store store");
        let mended = scratch.ok(REPAIR).stdout;
        assert!(mended.contains("/late"), "{damage}: {mended}");
        assert_eq!(scratch.files("store"), whole, "{damage}");
    });
    scratch.ok("verify --deep --store store");
}

#[test]
fn an_older_replica_is_named_as_one_and_never_taken_unasked() {
    let scratch = deleted();
    fs::rename(scratch.path("late"), scratch.path("away")).unwrap();
    damaged(&scratch, |damage| {
        let before = scratch.files("store");
        // The manifest's text about the deletion may still be readable, whatever else is damaged.
        let found = scratch.ends(DEGRADED, QUERY);
        found.says(&["early", "has generation 2, and the store", "had 3"]);
        assert!(finds(&found), "{damage}");
        let plan = scratch.ends(DAMAGED, REPAIR).stdout;
        assert!(plan.contains("--accept-older") && plan.contains("/early"), "{damage}: {plan}");
        assert_eq!(scratch.files("store"), before, "{damage}");
        scratch.ends(DAMAGED, "verify --store store");
    });
    fs::remove_file(scratch.path("store/manifest.json")).unwrap();
    let mended = scratch.ok(&format!("{REPAIR} --accept-older")).stdout;
    assert!(mended.contains("has generation 2"), "{mended}");
    assert!(finds(&scratch.ok(QUERY)));
    scratch.ok("verify --deep --store store");
    assert_eq!(scratch.ok("info --store store --json").json()[0]["generation"], 4);

    // It continues from there, and so do all replicas.
    scratch.write("more.jsonl", jsonl(&passages()[40..50]));
    scratch.ok("build more.jsonl --append --store store TINY");
    let added = passages()[45]["_id"].as_str().unwrap().to_owned();
    let info = &scratch.ok("info --store store --json").json()[0];
    let documents = info["shards"].as_array().unwrap().iter();
    assert_eq!(documents.map(|shard| shard["documents"].as_u64().unwrap()).sum::<u64>(), 50);
    scratch.write("ids", added);
    let deleted = scratch.ok("delete --store store --ids ids --json");
    assert_eq!(deleted.json()[0]["deleted"], 1);
    fs::rename(scratch.path("away"), scratch.path("late")).unwrap();
    for copy in ["early", "late"] {
        scratch.ok(&format!("replicate --store store --to {copy}"));
        scratch.ok(&format!("verify --deep --store {copy}"));
    }
}

#[test]
fn without_the_second_place_only_the_text_proves_a_replica() {
    let scratch = deleted();
    let answer = ranked(&scratch.ok(QUERY));
    // A store of an earlier version has no such file.
    fs::remove_file(scratch.path("store/generation")).unwrap();
    scratch.ok("verify --store store");
    damaged(&scratch, |damage| {
        let told = matches!(damage, "a digit changed" | "cut");
        let found = scratch.ends(if told { 0 } else { DEGRADED }, QUERY);
        assert_eq!(ranked(&found), answer, "{damage}");
        if !told {
            found.says(&["late has generation 3, and nothing tells"]);
            let plan = scratch.ends(DAMAGED, REPAIR).stdout;
            assert!(plan.contains("--accept-older"), "{damage}: {plan}");
        }
    });
}

#[test]
fn an_older_manifest_in_the_place_of_the_last_is_noticed() {
    let scratch = deleted();
    let (answer, whole) = (ranked(&scratch.ok(QUERY)), scratch.files("store"));
    // A crash leaves only the announcement of the next generation.
    let older = fs::read(scratch.path("early/manifest.json")).unwrap();
    scratch.write("store/manifest.json", &older);
    assert!(finds(&scratch.ok(QUERY)));
    scratch.ok("delete --store store --ids ids");
    assert_eq!(scratch.files("store"), whole);

    scratch.write("ids", "p002");
    scratch.ok("delete --store store --ids ids");
    scratch.write("store/manifest.json", &older);
    let stale = "has generation 2, and the store had 3: an older manifest";
    scratch.ends(DEGRADED, QUERY).says(&[stale, "the store may have had 4"]);
    scratch.ends(DAMAGED, "delete --store store --ids ids").says(&[stale]);
    assert!(scratch.ends(DAMAGED, REPAIR).stdout.contains("--accept-older"));
    scratch.ok(&format!("{REPAIR} --accept-older"));
    assert_eq!(ranked(&scratch.ok(QUERY)), answer);
}

#[test]
fn the_second_place_is_checked_and_mended() {
    let scratch = deleted();
    let whole = scratch.files("store");
    scratch.damage("store/generation", |bytes| bytes[3] ^= 1);
    scratch.ok(QUERY);
    let found = scratch.ends(DAMAGED, "verify --store store");
    assert!(found.stdout.contains("generation"), "{}", found.stdout);
    scratch.ok(REPAIR);
    scratch.ok("verify --deep --store store");
    scratch.damage("store/generation", |bytes| bytes.clear());
    scratch.ok(REPAIR);
    assert_eq!(scratch.files("store"), whole);
    fs::remove_file(scratch.path("store/manifest.json")).unwrap();
    scratch.ok(QUERY);
}
