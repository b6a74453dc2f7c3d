//! Builds that are stopped in any way, and run again.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::support::{
    DONE, FAILED, INTERRUPTED, Outcome, Scratch, all_files, is_on_the_way, jsonl, note, passages,
    ranked,
};

const BUILD: &str = "build corpus.jsonl --store store TINY --unit-rows 16";

/// Makes a folder with a corpus of `times` copies of the passages, each under other ids.
fn corpus(times: usize) -> Scratch {
    let scratch = Scratch::new();
    let mut rows = Vec::new();
    for time in 0..times {
        for mut row in passages() {
            row["_id"] = json!(format!("{}-{time}", row["_id"].as_str().unwrap()));
            rows.push(row);
        }
    }
    scratch.write("corpus.jsonl", jsonl(&rows));
    scratch
}

fn wait(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

/// Waits until `path` has some bytes.
fn wait_for(path: &PathBuf) {
    let start = Instant::now();
    while fs::metadata(path).map_or(0, |file| file.len()) == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", path.display());
        sleep(Duration::from_millis(2));
    }
}

fn interrupt(child: &Child) {
    let status = Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
    assert!(status.unwrap().success());
}

fn answers(scratch: &Scratch) -> Outcome {
    scratch.ok("query --store store TINY --json --queries QUERIES --depth 20 -k 20")
}

#[test]
fn a_killed_build_goes_on_to_the_same_bytes() {
    const KILLS: usize = 10;
    let scratch = corpus(4);
    scratch.ok("build corpus.jsonl --store whole TINY --unit-rows 16");
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    note(&format!("seed {seed}"));
    let mut state = seed;
    let (mut kills, mut shards, mut rounds) = (0, 0, 0);
    while kills < KILLS {
        rounds += 1;
        assert!(rounds < 100, "seed {seed}: {kills} kills");
        // Knuth's linear congruential generator.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = scratch.spawn(BUILD);
        sleep(Duration::from_millis(5 + (state >> 33) % 196));
        child.kill().unwrap();
        let ended = wait(child);
        if ended.status.code() == Some(DONE) {
            // Too late; the next round starts afresh.
            assert_eq!(scratch.contents("store"), scratch.contents("whole"), "seed {seed}");
            fs::remove_dir_all(scratch.path("store")).unwrap();
            shards = 0;
            continue;
        }
        assert_eq!(ended.status.code(), None, "seed {seed}: {ended:?}");
        kills += 1;
        if scratch.path("store/manifest.json").exists() {
            let info = scratch.command("info --store store --json").output().unwrap();
            assert!(info.status.success(), "seed {seed}: {info:?}");
            let manifest: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
            let now = manifest["shards"].as_array().unwrap().len();
            assert!(now >= shards, "seed {seed}: {now} shards after {shards}");
            shards = now;
        }
    }
    scratch.ok(BUILD);
    assert_eq!(scratch.contents("store"), scratch.contents("whole"), "seed {seed}");
    let query = "query TINY --json --queries QUERIES --depth 20 --store";
    let whole = scratch.ok(&format!("{query} whole"));
    assert_eq!(ranked(&scratch.ok(&format!("{query} store"))), ranked(&whole), "seed {seed}");
}

#[test]
fn threads_do_not_change_a_byte() {
    let scratch = corpus(1);
    scratch.ok("build corpus.jsonl --store one TINY --unit-rows 16 --threads 1");
    scratch.ok("build corpus.jsonl --store two TINY --unit-rows 16 --threads 2");
    assert_eq!(scratch.contents("one"), scratch.contents("two"));
    assert_eq!(scratch.contents("one").len(), 20);
}

#[test]
fn an_interrupted_build_says_how_to_go_on() {
    let scratch = corpus(8);
    let child = scratch.spawn(BUILD);
    wait_for(&scratch.path("store/journal-000001.log"));
    interrupt(&child);
    let outcome = scratch.check(BUILD, wait(child));
    assert_eq!(outcome.code, INTERRUPTED, "{}", outcome.stderr);
    outcome.says(&["run the same command again"]);
    let query = "query --store store TINY --json bees";
    scratch.ok(query).says(&["the build is not finished"]);
    let before = scratch.contents("store");
    assert!(!before.is_empty());
    let finished = scratch.ok(&format!("{BUILD} --json")).json();
    assert_eq!(finished[0]["shards"], 80);
    assert!(finished[0]["shards_before"].as_u64().unwrap() > 0);
    let after = scratch.contents("store");
    assert!(before.iter().all(|(path, bytes)| after[path] == *bytes), "sealed units never change");
    assert_eq!(scratch.ok(query).stderr, "");
}

#[test]
fn a_complete_store_is_left_as_it_is() {
    let scratch = corpus(1);
    scratch.ok(BUILD);
    let (contents, manifest) =
        (scratch.contents("store"), fs::read(scratch.path("store/manifest.json")).unwrap());
    scratch.ok(BUILD).says(&["up to date"]);
    assert_eq!(scratch.contents("store"), contents);
    assert_eq!(fs::read(scratch.path("store/manifest.json")).unwrap(), manifest);
}

#[test]
fn a_lost_or_damaged_index_is_made_again() {
    let scratch = corpus(1);
    scratch.ok(BUILD);
    let expected = ranked(&answers(&scratch));
    let query = "query --store store TINY bees";
    fs::remove_dir_all(scratch.path("store/index")).unwrap();
    scratch.ends(4, query).says(&["there is no index"]);
    scratch.ok(BUILD);
    assert_eq!(ranked(&answers(&scratch)), expected);
    for path in all_files(&scratch.path("store/index")) {
        if path.extension().is_some_and(|e| e == "store" || e == "term" || e == "idx") {
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    scratch.ends(4, query).says(&["index", "damaged"]);
    scratch.ok(BUILD);
    assert_eq!(ranked(&answers(&scratch)), expected);
}

#[test]
fn the_second_of_two_builds_gives_way() {
    let scratch = corpus(4);
    let mut first = scratch.spawn(BUILD);
    wait_for(&scratch.path("store/lock"));
    // No check for temporary files: those of the first build are in use.
    let second = scratch.command(BUILD).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(FAILED), "{said}");
    let holder = format!("another process is writing this store (process {} on ", first.id());
    assert!(said.contains(&holder), "{said}");
    assert_eq!(said.lines().filter(|line| !is_on_the_way(line)).count(), 1, "{said}");
    let mut stderr = String::new();
    first.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(DONE), "{stderr}");

    fs::rename(scratch.path("store"), scratch.path("alone")).unwrap();
    let both = [scratch.spawn(BUILD), scratch.spawn(BUILD)];
    let mut codes = both.map(|child| wait(child).status.code());
    codes.sort_unstable();
    assert_eq!(codes, [Some(DONE), Some(FAILED)]);
    assert_eq!(scratch.contents("store"), scratch.contents("alone"));
    scratch.ok(BUILD).says(&["up to date"]);
}

#[test]
fn a_build_stopped_by_a_bad_row_keeps_what_it_sealed() {
    let scratch = Scratch::new();
    let rows = passages();
    let lines = jsonl(&rows);
    scratch.write("corpus.jsonl", &lines);
    scratch.ok("build corpus.jsonl --store whole TINY --unit-rows 16");
    let mut broken: Vec<&str> = lines.lines().collect();
    broken[39] = "{";
    scratch.write("corpus.jsonl", broken.join("\n"));
    scratch.ends(FAILED, BUILD).says(&["corpus.jsonl:40", "not valid JSON"]);
    let manifest = &scratch.ok("info --store store --json").json()[0];
    assert_eq!(
        (&manifest["complete"], manifest["shards"].as_array().unwrap().len()),
        (&json!(false), 2)
    );
    // Other rows than the sealed ones.
    let mut changed = rows.clone();
    changed[20]["text"] = json!("Something else.");
    scratch.write("corpus.jsonl", jsonl(&changed));
    scratch.ends(FAILED, BUILD).says(&["rows 17 to 32"]);
    scratch.ends(5, &format!("{BUILD} --kv-dtype f32")).says(&["element", "bf16", "f32"]);
    scratch.ends(5, &format!("{BUILD} --chunk-tokens 200")).says(&["chunk_tokens", "256", "200"]);
    scratch.write("corpus.jsonl", &lines);
    scratch.ok(BUILD);
    assert_eq!(scratch.contents("store"), scratch.contents("whole"));
    // Once more on the complete store: changed, cut short, and longer.
    scratch.write("corpus.jsonl", jsonl(&changed));
    scratch.ends(FAILED, BUILD).says(&["rows 17 to 32"]);
    scratch.write("corpus.jsonl", jsonl(&rows[..16]));
    scratch.ends(FAILED, BUILD).says(&["rows 17 to 32"]);
    let mut longer = rows.clone();
    longer.push(json!({"_id": "new", "title": "", "text": "One more."}));
    scratch.write("corpus.jsonl", jsonl(&longer));
    scratch.ends(FAILED, BUILD).says(&["rows 161 to 161"]);
    assert_eq!(scratch.contents("store"), scratch.contents("whole"));
}
