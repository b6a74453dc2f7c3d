//! Reports of a store on its replicas and on the reads that they served.

use std::fs;

use serde_json::json;

use crate::damage::Mount;
use crate::support::{DAMAGED, DEGRADED, FAILED, Scratch, jsonl, note, passages, ranked, testdata};

const QUERY: &str = "query --store store TINY --json bees";

fn built() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..40]));
    scratch.ok("build corpus.jsonl --store store TINY --unit-rows 16 --replica copy");
    scratch
}

#[test]
fn failovers_are_those_of_the_query_that_had_them() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()));
    let build = "build corpus.jsonl --store store TINY --profile plain --unit-rows 16";
    scratch.ok(&format!("{build} --replica copy"));
    scratch.damage("store/shards/000008.kv", |bytes| {
        bytes[8192..].iter_mut().for_each(|byte| *byte ^= 1);
    });
    let queries = fs::read_to_string(testdata("queries.jsonl")).unwrap();
    let three: Vec<&str> = queries.lines().take(3).collect();
    scratch.write("three.jsonl", three.join("\n"));
    let line = "query --store store TINY --profile plain --queries three.jsonl --depth 2 --json";
    for line in [line.to_owned(), format!("{line} --threads 1")] {
        let answers = scratch.ok(&line).json();
        let failovers: Vec<_> = answers.iter().map(|a| a["stats"]["failovers"].clone()).collect();
        assert_eq!(failovers, [json!(0), json!(0), json!(2)], "{line}");
    }
}

#[test]
fn replicas_are_listed_verified_and_forgotten() {
    let scratch = built();
    let states = || {
        let info = scratch.ok("info --store store --json").json().remove(0);
        let replicas = info["replicas"].as_array().unwrap().clone();
        let state = |replica: serde_json::Value| {
            let path = replica["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
            (path, replica["generation"].clone(), replica["state"].as_str().unwrap().to_owned())
        };
        replicas.into_iter().map(state).collect::<Vec<_>>()
    };
    let state =
        |generation: u64, state: &str| ("copy".to_owned(), json!(generation), state.to_owned());
    assert_eq!(states(), [state(2, "up to date")]);
    scratch.write("ids", "p001");
    let behind = ["/copy: the replica is behind; bring it up to date with `hyperrag replicate"];
    scratch.ok("delete --store store --ids ids").says(&behind);
    scratch.ok("compact --store store").says(&behind);
    assert_eq!(states(), [state(2, "behind")]);
    let info = scratch.ok("info --store store").stdout;
    assert!(info.contains("/copy: behind, generation 2"), "{info}");
    let verify = "verify --store store --replicas";
    let found = scratch.ok(&format!("{verify} --json")).json();
    assert_eq!(found[0]["replicas"][0]["report"]["damages"], json!([]));
    scratch.damage("copy/shards/000001.kv", |bytes| bytes[5000] ^= 1);
    let hurt = scratch.ends(DAMAGED, verify);
    hurt.says(&["/copy: the replica is damaged", "--checksum"]);
    assert!(hurt.stdout.contains("shards/000001.kv"), "{}", hurt.stdout);
    scratch.ok("replicate --store store --to copy --checksum");
    scratch.ok(verify);

    fs::remove_dir_all(scratch.path("copy")).unwrap();
    assert_eq!(states(), [("copy".to_owned(), json!(null), "cannot be reached".to_owned())]);
    scratch.ok(QUERY).says(&["copy: the replica cannot be reached", "--forget"]);
    scratch.ends(DEGRADED, verify).says(&["cannot be reached", "--forget"]);
    scratch.ok("replicate --store store --forget copy");
    assert_eq!(states(), []);
    assert_eq!(scratch.ok(QUERY).stderr, "");
    scratch.ends(FAILED, "replicate --store store --forget copy").says(&["does not remember"]);
}

#[test]
fn a_store_that_cannot_be_written_is_copied() {
    let scratch = Scratch::new();
    let folder = scratch.path("disk");
    fs::create_dir(&folder).unwrap();
    let mount = Mount(&folder);
    if !mount.mount("size=100m") {
        note("not checked: this user cannot mount a tmpfs");
        return;
    }
    scratch.write("corpus.jsonl", jsonl(&passages()[..20]));
    scratch.ok("build corpus.jsonl --store disk/store TINY");
    assert!(mount.mount("remount,ro"));
    let copied = scratch.ok("replicate --store disk/store --to copy");
    copied.says(&["disk/store: it cannot be written, so that it does not remember the replica"]);
    scratch.ok("verify --deep --store copy");
    let answers = ["disk/store", "copy"].map(|store| {
        ranked(&scratch.ok(&QUERY.replace("--store store", &format!("--store {store}"))))
    });
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn an_unfinished_build_says_how_many_documents_are_searched() {
    let scratch = Scratch::new();
    // It fails in its third unit, before the index is committed.
    scratch.write("corpus.jsonl", jsonl(&passages()[..70]) + "{");
    scratch.ends(FAILED, "build corpus.jsonl --store store TINY --unit-rows 32");
    let found = scratch.ends(DEGRADED, QUERY);
    found.says(&["the build is not finished: 0 of the 64 documents", "run the same build again"]);
    scratch.write("corpus.jsonl", jsonl(&passages()[..70]));
    scratch.ok("build corpus.jsonl --store store TINY --unit-rows 32");
    assert_eq!(scratch.ok(QUERY).stderr, "");
}

#[test]
fn a_copy_inside_its_store_and_one_of_another_store_are_none() {
    let scratch = built();
    scratch.ends(FAILED, "replicate --store store --to store/index-copy").says(&["lies in it"]);
    scratch.write("other.jsonl", jsonl(&passages()[..4]));
    scratch.ok("build other.jsonl --store other TINY --unit-rows 8");
    fs::remove_dir_all(scratch.path("copy")).unwrap();
    fs::rename(scratch.path("other"), scratch.path("copy")).unwrap();
    let found = scratch.ends(DEGRADED, "verify --store store --replicas");
    found.says(&["/copy: the replica: another store"]);
}
