//! Stores that change: documents added, replaced and deleted, and their bytes freed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::seeded::Seeded;
use crate::support::{
    DAMAGED, DONE, FAILED, Outcome, Scratch, all_files, jsonl, note, passages, ranked,
};

const SEED: u64 = 2027;
const QUERY: &str = "TINY --json --queries QUERIES --depth 500 -k 500";

/// Writes the first 90 passages; then 35 rows, of which 20 are new, 5 changed, and 10 the same.
fn corpora(scratch: &Scratch) -> (Vec<Value>, Vec<Value>) {
    let first = passages()[..90].to_vec();
    let mut added = passages()[80..110].to_vec();
    for row in &passages()[10..15] {
        let mut row = row.clone();
        let text = format!("Rewritten about zeppelins. {}", row["text"].as_str().unwrap());
        row["text"] = json!(text);
        added.push(row);
    }
    scratch.write("first.jsonl", jsonl(&first));
    scratch.write("added.jsonl", jsonl(&added));
    (first, added)
}

/// Returns the documents of both corpora together.
fn merged(first: &[Value], added: &[Value]) -> Vec<Value> {
    let id = |row: &Value| row["_id"].as_str().unwrap().to_owned();
    let replaced = |row: &&Value| !added.iter().any(|other| id(other) == id(row));
    let mut all: Vec<Value> = first.iter().filter(replaced).cloned().collect();
    all.extend(added.iter().cloned());
    all
}

fn build(line: &str) -> String {
    format!("build {line} TINY --unit-rows 16")
}

fn answers(scratch: &Scratch, store: &str) -> Outcome {
    scratch.ok(&format!("query --store {store} {QUERY}"))
}

/// Returns for each query the documents with the bits of their scores, in no order.
fn scores(outcome: &Outcome) -> BTreeMap<String, BTreeMap<String, u32>> {
    ranked(outcome).into_iter().map(|(query, hits)| (query, hits.into_iter().collect())).collect()
}

fn retriever_scores(outcome: &Outcome) -> Vec<BTreeMap<String, String>> {
    let of = |answer: Value| {
        let hits = answer["hits"].as_array().unwrap().iter();
        let hit = |hit: &Value| {
            (hit["id"].as_str().unwrap().to_owned(), hit["retriever_score"].to_string())
        };
        hits.map(hit).collect()
    };
    outcome.json().into_iter().map(of).collect()
}

/// Returns every relevant file of a store except the index.
fn files(scratch: &Scratch, store: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = scratch.files(store);
    files.retain(|name, _| !name.to_string_lossy().starts_with("index"));
    files
}

#[test]
fn added_documents_are_found_and_changed_ones_replace_their_former_versions() {
    let scratch = Scratch::new();
    let (first, added) = corpora(&scratch);
    scratch.ok(&build("first.jsonl --store store"));
    scratch.write("merged.jsonl", jsonl(&merged(&first, &added)));
    scratch.ok(&build("merged.jsonl --store fresh"));

    let plan = scratch.ok(&build("added.jsonl --append --dry-run --json --store store"));
    let plan = &plan.json()[0];
    assert_eq!((&plan["documents"], &plan["unchanged"]), (&json!(25), &json!(10)), "{plan}");
    let done = scratch.ok(&build("added.jsonl --append --json --store store"));
    let done = &done.json()[0];
    let counts = (&done["documents"], &done["unchanged"], &done["dead"]);
    assert_eq!(counts, (&json!(110), &json!(10), &json!(5)), "{done}");
    assert_eq!(scores(&answers(&scratch, "store")), scores(&answers(&scratch, "fresh")));
    let query = |text: &str| {
        let line = format!("query {text} --store store TINY --json --depth 500 -k 500");
        ranked(&scratch.ok(&line)).remove(0).1.len()
    };
    assert_eq!(query("zeppelins"), 5);
    scratch.ok("verify --deep --store store");
    let info = scratch.ok("info --store store").stdout;
    assert!(info.contains("5 until"), "{info}");

    let before = files(&scratch, "store");
    // The settings of the store need not be repeated.
    let again = scratch.ok("build added.jsonl --append --store store TINY");
    again.says(&["up to date", "35 documents were there unchanged"]);
    assert_eq!(files(&scratch, "store"), before);
    scratch.ends(FAILED, &build("first.jsonl --store store")).says(&["--append"]);
    assert_eq!(files(&scratch, "store"), before);
}

#[test]
fn deleted_documents_are_gone_at_once_and_their_bytes_with_a_compaction() {
    let scratch = Scratch::new();
    let (first, added) = corpora(&scratch);
    scratch.ok(&build("first.jsonl --store store"));
    scratch.ok(&build("added.jsonl --append --store store"));
    // All of the first shard, and some others.
    let gone: Vec<String> = (0..20)
        .chain([40, 85, 100])
        .map(|n| passages()[n]["_id"].as_str().unwrap().to_owned())
        .collect();
    scratch.write("ids", format!("{}\n\nnobody\n", gone.join("\n")));
    let done = scratch.ok("delete --store store --ids ids --json");
    done.says(&["1 id is not in the store: nobody"]);
    let counts = &done.json()[0];
    assert_eq!((&counts["deleted"], &counts["documents"]), (&json!(23), &json!(87)), "{counts}");
    let again = scratch.ok("delete --store store --ids ids");
    again.says(&["deleted 0 documents", "24 ids are not in the store"]);

    let mut left = merged(&first, &added);
    left.retain(|row| !gone.iter().any(|id| row["_id"] == **id));
    scratch.write("left.jsonl", jsonl(&left));
    scratch.ok(&build("left.jsonl --store fresh"));
    let (mine, fresh) = (answers(&scratch, "store"), answers(&scratch, "fresh"));
    assert_eq!(scores(&mine), scores(&fresh));
    assert_ne!(retriever_scores(&mine), retriever_scores(&fresh), "the index still counts them");
    scratch.write("run", format!("Q1 Q0 {} 1 1.0 x\n", gone[0]));
    scratch.write("q.jsonl", "{\"_id\": \"Q1\", \"text\": \"bees\"}\n");
    let line = "query --store store TINY --queries q.jsonl --candidates run";
    scratch.run(line).says(&["1 candidate is not in the store", &gone[0]]);

    let before = scratch.files("store");
    let done = scratch.ok("compact --store store --json");
    let done = &done.json()[0];
    assert_eq!(done["documents_dropped"], 28, "{done}");
    assert!(done["bytes_before"].as_u64() > done["bytes"].as_u64(), "{done}");
    let freed = done["bytes_freed"].as_u64().unwrap();
    let size = |files: &BTreeMap<PathBuf, Vec<u8>>| files.values().map(Vec::len).sum::<usize>();
    let after = scratch.files("store");
    assert!(size(&after) < size(&before) && freed > 0, "{done}");
    assert!(!after.contains_key(&PathBuf::from("shards/000000.kv")), "all of it was deleted");
    scratch.ok("verify --deep --store store");
    let mine = answers(&scratch, "store");
    assert_eq!(scores(&mine), scores(&fresh));
    assert_eq!(retriever_scores(&mine), retriever_scores(&fresh));
    scratch.ok("compact --store store").says(&["nothing to do"]);
    // A compacted store can be extended.
    scratch.ok(&build("added.jsonl --append --store store"));
    scratch.ok("verify --deep --store store");
}

#[test]
fn an_interrupted_append_goes_on_to_the_same_bytes_and_is_not_seen_before() {
    let scratch = Scratch::new();
    let (_, mut added) = corpora(&scratch);
    for row in &passages()[20..75] {
        let mut row = row.clone();
        row["text"] = json!(format!("{} And so on.", row["text"].as_str().unwrap()));
        added.push(row);
    }
    scratch.write("added.jsonl", jsonl(&added));
    scratch.ok(&build("first.jsonl --store store"));
    scratch.ok(&build("first.jsonl --store whole"));
    let former = scores(&answers(&scratch, "store"));
    let append = build("added.jsonl --append --store whole");
    scratch.ok(&append);
    let now = scores(&answers(&scratch, "whole"));
    assert_ne!(former, now);
    note(&format!("seed {SEED}"));
    let mut seeded = Seeded(SEED);
    let (mut kills, mut rounds) = (0, 0);
    loop {
        rounds += 1;
        assert!(rounds < 200, "{kills} kills");
        let mut child = scratch.spawn(&build("added.jsonl --append --store store"));
        // Longer and longer, so that it ends on any machine.
        sleep(Duration::from_millis(20 * rounds + seeded.below(180) as u64));
        child.kill().unwrap();
        if child.wait().unwrap().code() == Some(DONE) {
            break;
        }
        kills += 1;
        // The killed build's half-written files are still there.
        let output = scratch.command(&format!("query --store store {QUERY}")).output().unwrap();
        let found = scores(&Outcome::of(output));
        assert!(found == former || found == now, "neither the old nor the new documents");
        let verified = scratch.command("verify --store store").output().unwrap();
        assert_eq!(verified.status.code(), Some(DONE), "{verified:?}");
    }
    note(&format!("{kills} kills"));
    assert_eq!(files(&scratch, "store"), files(&scratch, "whole"));
    scratch.ok("verify --deep --store store");
}

#[test]
fn an_unfinished_append_of_other_rows_is_refused_or_begun_anew() {
    let scratch = Scratch::new();
    let (_, added) = corpora(&scratch);
    scratch.ok(&build("first.jsonl --store store"));
    scratch.ok(&build("first.jsonl --store whole"));
    scratch.write("other.jsonl", format!("{}{{", jsonl(&passages()[120..140])));
    scratch.ends(FAILED, &build("other.jsonl --append --store store"));
    assert!(scratch.path("store/journal-000002.log").exists());
    scratch.write("ids", passages()[3]["_id"].as_str().unwrap());
    scratch.ends(FAILED, "compact --store store").says(&["is not finished"]);
    scratch.ends(FAILED, "delete --store store --ids ids").says(&["is not finished"]);
    scratch
        .ends(FAILED, &build("added.jsonl --append --store store"))
        .says(&["rows 11 to", "--restart"]);
    scratch.ok(&build("added.jsonl --append --restart --store store"));
    scratch.ok(&build("added.jsonl --append --store whole"));
    assert_eq!(files(&scratch, "store"), files(&scratch, "whole"));
    assert_eq!(scores(&answers(&scratch, "store")), scores(&answers(&scratch, "whole")));
    scratch.ok("verify --deep --store store");
    assert_eq!(added.len(), 35);
}

#[test]
fn replicas_and_repair_follow_a_store_that_changes() {
    let scratch = Scratch::new();
    corpora(&scratch);
    scratch.ok(&build("first.jsonl --store store"));
    scratch.ok("replicate --store store --to copy");
    scratch.ok(&build("added.jsonl --append --store store"));
    scratch.ok("replicate --store store --to copy");
    let ids: Vec<_> =
        passages()[..30].iter().map(|row| row["_id"].as_str().unwrap().to_owned()).collect();
    scratch.write("ids", ids.join("\n"));
    scratch.ok("delete --store store --ids ids");
    scratch.ok("compact --store store");
    scratch.ok("replicate --store store --to copy");
    assert_eq!(scratch.files("copy"), scratch.files("store"));
    let right = scores(&answers(&scratch, "store"));
    let whole = scratch.files("store");
    let mut seeded = Seeded(SEED);
    for (name, bytes) in whole.iter().filter(|(name, _)| name.starts_with("shards")) {
        let name = format!("store/{}", name.display());
        let at = seeded.below(bytes.len());
        scratch.damage(&name, |bytes| bytes[at] ^= 1);
    }
    scratch.damage("store/manifest.json", |bytes| bytes[200] ^= 1);
    assert_eq!(scores(&scratch.run(&format!("query --store store {QUERY}"))), right);
    scratch.ends(DAMAGED, "verify --store store");
    scratch.ok("repair --store store TINY");
    assert_eq!(scratch.files("store"), whole);
}

#[test]
fn a_lost_manifest_of_a_changed_store_is_made_again_but_for_deletions() {
    let scratch = Scratch::new();
    corpora(&scratch);
    scratch.ok(&build("first.jsonl --store store"));
    scratch.ok(&build("added.jsonl --append --store store"));
    let right = scores(&answers(&scratch, "store"));
    fs::remove_file(scratch.path("store/manifest.json")).unwrap();
    scratch.ends(DAMAGED, "verify --store store");
    let line = "repair --store store TINY --unit-rows 16";
    let refused = scratch.ends(DAMAGED, line);
    assert!(refused.stdout.contains("deleted"), "{}", refused.stdout);
    scratch.ok(&format!("{line} --accept-older"));
    assert_eq!(scores(&answers(&scratch, "store")), right);
    scratch.ok("verify --deep --store store");
    scratch.ok(&build("added.jsonl --append --store store")).says(&["up to date"]);
}

#[test]
fn a_document_that_loses_its_text_is_gone() {
    let scratch = Scratch::new();
    let mut rows = passages()[..6].to_vec();
    rows[1]["text"] = json!("A zeppelin lands.");
    scratch.write("first.jsonl", jsonl(&rows));
    scratch.ok(&build("first.jsonl --store store"));
    let found = || {
        let answer = &scratch.ok("query --store store TINY --json -k 100 zeppelin").json()[0];
        answer["hits"].as_array().unwrap().len()
    };
    assert_eq!(found(), 1);
    let emptied = json!({"_id": rows[1]["_id"], "title": "", "text": " \n"});
    scratch.write("emptied.jsonl", jsonl(&[emptied, json!({"_id": "never", "text": ""})]));
    let append = build("emptied.jsonl --store store --append --json");
    assert_eq!(scratch.ok(&format!("{append} --dry-run")).json()[0]["emptied"], 1);
    let done = &scratch.ok(&append).json()[0];
    let counts =
        ["emptied", "empty_rows", "documents", "dead"].map(|name| done[name].as_u64().unwrap());
    assert_eq!(counts, [1, 2, 5, 1]);
    assert_eq!(done["shards"], done["shards_before"]);
    assert_eq!(found(), 0);
    let files = scratch.files("store");
    assert_eq!(scratch.ok(&append).json()[0]["emptied"], 0);
    assert!(scratch.files("store") == files, "the same again changes the store");
    scratch.ok("verify --store store --deep");
    scratch.ok("compact --store store");
    scratch.ok("verify --store store --deep");
    assert_eq!(found(), 0);
    scratch.ok(&build("first.jsonl --store store --append"));
    assert_eq!(found(), 1);
}

/// Adds documents with and without text, one of which is in the first build already.
#[test]
fn documents_without_text_take_no_room_in_what_is_added() {
    let scratch = Scratch::new();
    let rows = passages();
    let empty = |id: &str| json!({"_id": id, "text": ""});
    scratch.write("first.jsonl", jsonl(&[rows[0].clone(), empty("later"), rows[1].clone()]));
    scratch.ok("build first.jsonl --store store TINY --unit-rows 1");
    scratch.ok("verify --store store --deep");
    let later = json!({"_id": "later", "text": "A zeppelin lands."});
    let emptied = empty(rows[0]["_id"].as_str().unwrap());
    scratch.write("added.jsonl", jsonl(&[empty("none"), later, emptied, rows[2].clone()]));
    let append = "build added.jsonl --store store TINY --append --json";
    let done = &scratch.ok(append).json()[0];
    let shards = done["shards"].as_u64().unwrap() - done["shards_before"].as_u64().unwrap();
    assert_eq!((shards, &done["documents"], &done["emptied"]), (2, &json!(3), &json!(1)));
    let again = &scratch.ok(append).json()[0];
    assert_eq!((&again["shards"], &again["unchanged"]), (&done["shards"], &json!(2)));
    scratch.ok("compact --store store");
    scratch.ok("verify --store store --deep");
}

#[test]
fn queries_go_on_while_an_append_is_begun_anew() {
    let scratch = Scratch::new();
    scratch.write("first.jsonl", jsonl(&passages()[..40]));
    scratch.write("added.jsonl", jsonl(&passages()[40..120]));
    scratch.write("other.jsonl", jsonl(&passages()[60..100]));
    scratch.ok("build first.jsonl --store store TINY --unit-rows 4");
    let query = "query bees --store store TINY --json --depth 100 -k 100";
    let expected = ranked(&scratch.ok(query));
    let bytes: u64 =
        all_files(&scratch.path("store")).iter().map(|file| file.metadata().unwrap().len()).sum();
    let append = "--store store TINY --append";
    let capped = format!("build added.jsonl {append} --max-bytes {}", 2 * bytes);
    scratch.ends(FAILED, &capped).says(&["stopped before"]);
    assert_eq!(ranked(&scratch.ok(query)), expected);

    // The index has documents that the interrupted append sealed, and which no longer count.
    let mut build = scratch.spawn(&format!("build other.jsonl {append} --restart"));
    while build.try_wait().unwrap().is_none() {
        // Not by `scratch.ok`: the build has temporary files.
        let found = Outcome::of(scratch.command(query).output().unwrap());
        assert_eq!((found.code, found.stderr.as_str()), (DONE, ""));
        if ranked(&found) != expected {
            break; // It is done.
        }
    }
    assert!(build.wait().unwrap().success());
    scratch.ok("verify --store store --deep");
    scratch.write("both.jsonl", jsonl(&[&passages()[..40], &passages()[60..100]].concat()));
    scratch.ok("build both.jsonl --store fresh TINY --unit-rows 4");
    let fresh = query.replace("store store", "store fresh");
    assert_eq!(ranked(&scratch.ok(query)), ranked(&scratch.ok(&fresh)));
}

#[test]
fn an_intact_index_of_another_state_is_no_index_of_the_store() {
    let scratch = Scratch::new();
    scratch.write("first.jsonl", jsonl(&passages()[..8]));
    scratch.write("added.jsonl", jsonl(&passages()[8..16]));
    scratch.write("ids", passages()[12]["_id"].as_str().unwrap());
    scratch.ok("build first.jsonl --store store TINY --unit-rows 4");
    let former = read_files(&scratch.path("store/index"));
    scratch.ok("build added.jsonl --store store TINY --append");
    scratch.ok("replicate --store store --to copy");
    let copy = scratch.files("copy");
    fs::remove_dir_all(scratch.path("store/index")).unwrap();
    fs::create_dir(scratch.path("store/index")).unwrap();
    for (name, bytes) in former {
        scratch.write(&format!("store/index/{name}"), bytes);
    }
    let what = ["it has 8 documents, the store 16", "hyperrag repair"];
    scratch.ends(DAMAGED, "delete --store store --ids ids").says(&what);
    scratch.ends(DAMAGED, "replicate --store store --to copy").says(&what);
    assert_eq!(scratch.files("copy"), copy);
    scratch.ok("repair --store store");
    scratch.ok("delete --store store --ids ids").says(&["deleted 1 document,"]);
}

/// Returns names and bytes of the files of a folder.
fn read_files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = all_files(folder).into_iter();
    files
        .filter(|file| file.is_file())
        .map(|file| {
            (file.file_name().unwrap().to_string_lossy().into_owned(), fs::read(file).unwrap())
        })
        .collect()
}
