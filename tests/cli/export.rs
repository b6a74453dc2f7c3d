//! Stores that are sent to a place and read from there: `file://` always, S3 and Redis where services are.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::services::{BUCKET, Server, Services};
use crate::support::{
    DAMAGED, DEGRADED, FAILED, Outcome, Scratch, USAGE, all_files, jsonl, passages,
};

const BUILD: &str = "build corpus.jsonl --store store TINY --unit-rows 16";
const QUERY: &str = "TINY --json --queries QUERIES --depth 20 -k 20 --plan load";

/// Makes a store of four shards with 32 blocks each.
fn built() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..64]));
    scratch.ok(BUILD);
    scratch
}

/// Returns the URL of a folder of the scratch.
fn url(scratch: &Scratch, name: &str) -> String {
    format!("file://{}", scratch.path(name).display())
}

/// Returns the answers of a batch without their times.
fn answers(outcome: &Outcome) -> Vec<Value> {
    let mut answers = outcome.json();
    for answer in &mut answers {
        let stats = answer["stats"].as_object_mut().unwrap();
        stats.retain(|name, _| !name.ends_with("_seconds") && name != "tiers");
    }
    assert!(answers.len() > 3 && !answers[0]["hits"].as_array().unwrap().is_empty());
    answers
}

/// Lists the files of a place that are shards.
fn shards(scratch: &Scratch, place: &str) -> Vec<PathBuf> {
    let mut shards = all_files(&scratch.path(place).join("shards"));
    shards.sort();
    shards
}

fn export(scratch: &Scratch, to: &str) -> Value {
    scratch.ok(&format!("export --store store --to {to} --json")).json().remove(0)
}

#[test]
fn a_fresh_machine_answers_from_a_place_as_from_the_store() {
    let scratch = built();
    let before = answers(&scratch.ok(&format!("query --store store {QUERY}")));
    let to = url(&scratch, "place");
    let plan = scratch.ok(&format!("export --store store --to {to} --json --dry-run")).json();
    assert_eq!(
        (plan[0]["shards_sent"].clone(), plan[0]["dry_run"].clone()),
        (json!(4), json!(true))
    );
    assert!(!scratch.path("place").exists() && !scratch.path("store/tables").exists());

    let sent = export(&scratch, &to);
    assert_eq!((&sent["shards_sent"], &sent["blocks_sent"]), (&json!(4), &json!(128)));
    assert!(sent["blocks_read_back"].as_u64().unwrap() >= 4, "{sent}");
    assert_eq!((&sent["to"], &sent["generation"]), (&json!(to), &json!(2)));
    // The shards' names have their digests, and those of all others too.
    for path in all_files(&scratch.path("place")).iter().filter(|path| path.is_file()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let hex = |part: &str| part.len() == 32 && part.bytes().all(|b| b.is_ascii_hexdigit());
        let lock = name == "swap~lock" || name == "CURRENT";
        assert!(lock || name.split('.').any(hex), "{name}");
    }
    // Nothing is sent twice, and a path is a place too.
    let again = export(&scratch, "place");
    assert_eq!((&again["shards_sent"], &again["files_sent"]), (&json!(0), &json!(0)));
    assert_eq!(again["blocks_read_back"], json!(0));

    // Another machine, which has its model alone.
    let other = Scratch::new();
    let from = |command: &str| other.ok(&format!("{command} --store {to} {QUERY}"));
    assert_eq!(answers(&from("query")), before);
    // Among tiers, `store` is the place that was named, and so is the end of a list of caches.
    for tiers in ["ram:64MiB", "ram:64MiB,store", "store"] {
        let found = other.ok(&format!("query --store {to} {QUERY} --tiers {tiers}"));
        let hits = |answer: &Value| answer["hits"].clone();
        let found: Vec<Value> = found.json().iter().map(hits).collect();
        assert_eq!(found, before.iter().map(hits).collect::<Vec<_>>(), "{tiers}");
    }
    fs::remove_dir_all(scratch.path("store")).unwrap();
    assert_eq!(answers(&from("query")), before);
    assert_eq!(other.ok(&format!("info --store {to} --json")).json()[0]["generation"], json!(2));
    let verified = other.ok(&format!("verify --deep --store {to} --json")).json().remove(0);
    assert_eq!(verified["tier"], json!({"name": to, "absent": 0, "damaged": 0}));
    assert_eq!(verified["blocks"], json!(128));
    other.ends(USAGE, &format!("verify --store {to} TINY --recompute")).says(&["a folder"]);
    let stores = other.path("home/stores");
    let fetched: Vec<_> = all_files(&stores).into_iter().filter(|path| path.is_file()).collect();
    assert!(!fetched.iter().any(|path| path.extension().is_some_and(|e| e == "kv")), "{fetched:?}");

    // Without the place the files are still here, and blocks are computed again.
    fs::rename(scratch.path("place"), scratch.path("gone")).unwrap();
    other.ends(FAILED, &format!("query --store {to} {QUERY}")).says(&["no store was exported"]);
}

#[test]
fn shards_may_go_and_come_back() {
    let scratch = built();
    let before = scratch.contents("store");
    let to = url(&scratch, "place");
    export(&scratch, &to);
    assert_eq!(all_files(&scratch.path("store/tables")).len(), 4);
    scratch.ok("verify --store store --deep");
    scratch.ok("replicate --store store --to copy");
    scratch.ok("replicate --store store --forget copy");
    fs::remove_dir_all(scratch.path("store/shards")).unwrap();
    scratch.damage("store/chunks/000001.parquet", |bytes| bytes[100] ^= 1);
    fs::remove_dir_all(scratch.path("store/index")).unwrap();
    let found = scratch.ends(DAMAGED, "verify --store store --json").json().remove(0);
    assert_eq!(found["damages"].as_array().unwrap().len(), 6, "{found}");
    let plan = scratch.ok(&format!("repair --store store --from {to} --dry-run --json")).json();
    assert_eq!(plan[0]["mends"].as_array().unwrap().len(), 6);
    // No model is named: nothing is computed.
    let mended = scratch.ok(&format!("repair --store store --from {to} --json")).json().remove(0);
    assert_eq!((&mended["blocks_computed"], &mended["left"]), (&json!(0), &json!(0)));
    for mend in mended["mends"].as_array().unwrap() {
        assert!(mend["how"].as_str().unwrap().ends_with(&format!("from {to}")), "{mend}");
    }
    assert_eq!(scratch.contents("store"), before);
    scratch.ok("verify --store store --deep");

    // The manifest too.
    fs::remove_file(scratch.path("store/manifest.json")).unwrap();
    let mended = scratch.ok(&format!("repair --store store --from {to} --json")).json().remove(0);
    assert_eq!(mended["mends"][0]["how"], json!(format!("from {to}")), "{mended}");
    scratch.ok("verify --store store --deep");

    // A single block comes alone, and one that the place does not have either is computed.
    let name = |place: &str| shards(&scratch, place)[2].clone();
    let (stored, sent) = (name("store"), name("place"));
    for (path, at) in [(&stored, 8192), (&stored, 40_000), (&sent, 40_000)] {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let line = format!("repair --store store TINY --from {to} --json");
    let mended = scratch.ok(&line).json().remove(0);
    assert_eq!(mended["blocks_computed"], json!(1), "{mended}");
    assert_eq!(scratch.contents("store"), before);
}

#[test]
fn a_damaged_place_is_named_and_its_blocks_are_computed() {
    let scratch = built();
    let before = answers(&scratch.ok(&format!("query --store store {QUERY}")));
    let to = url(&scratch, "place");
    export(&scratch, &to);
    let path = shards(&scratch, "place")[1].clone();
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096..].iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(&path, bytes).unwrap();
    let other = Scratch::new();
    let degraded = other.ends(DEGRADED, &format!("query --store {to} {QUERY}"));
    let hits = |answers: &[Value]| answers.iter().map(|a| a["hits"].clone()).collect::<Vec<_>>();
    assert_eq!(hits(&answers(&degraded)), hits(&before));
    degraded.says(&["000001"]);
    let verify = format!("verify --store store --tier {to} --json");
    let found = scratch.ends(DAMAGED, &verify);
    found.says(&["32 damages were found", "hyperrag export --verify"]);
    assert_eq!(found.json()[0]["tier"], json!({"name": to, "absent": 0, "damaged": 32}));
    fs::remove_file(&path).unwrap();
    let found = scratch.ends(DAMAGED, &verify).json().remove(0);
    assert_eq!(found["tier"], json!({"name": to, "absent": 32, "damaged": 0}));
    assert!(found["damages"][0]["what"].as_str().unwrap().contains("it is not in file://"));

    // What is missing is sent again unasked, what is damaged with --verify.
    assert_eq!(export(&scratch, &to)["shards_sent"], json!(1));
    let mut bytes = fs::read(&path).unwrap();
    bytes[9000] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(export(&scratch, &format!("{to} --verify"))["shards_sent"], json!(1));
    scratch.ok(&verify);

    // A damaged file of another kind is no store.
    let chunks = all_files(&scratch.path("place/chunks")).remove(0);
    let mut bytes = fs::read(&chunks).unwrap();
    bytes[100] ^= 1;
    fs::write(&chunks, &bytes).unwrap();
    let other = Scratch::new();
    let line = format!("info --store {to}");
    other.ends(DAMAGED, &line).says(&["chunks/", "digest that the listing names"]);
    bytes.push(0);
    fs::write(&chunks, &bytes).unwrap();
    other.ends(DAMAGED, &line).says(&["chunks/", "expected"]);
    fs::remove_file(&chunks).unwrap();
    other.ends(DAMAGED, &line).says(&["chunks/", "it is missing"]);
}

#[test]
fn a_store_that_is_damaged_or_not_finished_is_not_sent() {
    let scratch = built();
    scratch.damage("store/shards/000002.kv", |bytes| bytes[9000] ^= 1);
    let line = "export --store store --to place";
    scratch.ends(DAMAGED, line).says(&["shards/000002.kv", "hyperrag repair"]);
    assert!(!scratch.path("place/CURRENT").exists());
    scratch.ok("repair --store store TINY");
    // Shards that went before are not sent again.
    assert!(export(&scratch, "place")["shards_sent"].as_u64().unwrap() < 4);

    scratch.write("corpus.jsonl", jsonl(&passages()[..40]) + "{");
    scratch.ends(FAILED, "build corpus.jsonl --store half TINY --unit-rows 16");
    scratch.ends(FAILED, "export --store half --to other").says(&["not finished"]);
    scratch.ends(FAILED, "export --store none --to other").says(&["no store here"]);
    scratch.ends(USAGE, "export --store store --to ftp://host/x").says(&["is no tier"]);
    assert!(!scratch.path("other").exists());
}

#[test]
fn a_killed_export_goes_on() {
    let scratch = built();
    let to = url(&scratch, "place");
    let mut killed = 0;
    for wanted in 1..=4 {
        let mut child = scratch.spawn(&format!("export --store store --to {to} --jobs 1"));
        let start = Instant::now();
        let marked = || {
            let marks = all_files(&scratch.path("store/exports")).into_iter();
            let marks = marks.filter(|path| path.extension().is_some_and(|e| e == "json"));
            let texts = marks.map(|path| fs::read_to_string(path).unwrap_or_default());
            texts.map(|text| text.matches("\",\"").count() + 1).max().unwrap_or(0) > wanted
        };
        while child.try_wait().unwrap().is_none() && !marked() {
            assert!(start.elapsed() < Duration::from_secs(60));
            sleep(Duration::from_millis(1));
        }
        killed += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let sent = export(&scratch, &to);
    assert!(killed == 0 || sent["shards_sent"].as_u64().unwrap() < 4, "{killed}: {sent}");
    scratch.ok(&format!("verify --store store --tier {to}"));
    let other = Scratch::new();
    other.ok(&format!("verify --deep --store {to}"));
    let left = all_files(&scratch.path("store/exports"));
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn generations_follow_each_other_and_none_goes_back() {
    let scratch = built();
    let to = url(&scratch, "place");
    let info = |other: &Scratch| {
        other.ok(&format!("info --store {to} --json")).json()[0]["generation"].clone()
    };
    export(&scratch, &to);
    scratch.ok("replicate --store store --to early");
    let other = Scratch::new();
    assert_eq!(info(&other), json!(2));

    scratch.write("more.jsonl", "{\"_id\": \"new\", \"text\": \"A new river of bees.\"}\n");
    scratch.ok("build more.jsonl --store store TINY --append");
    scratch.write("ids", "p001");
    scratch.ok("delete --store store --ids ids");
    // The place is behind, not wrong.
    assert_eq!(info(&other), json!(2));
    let sent = export(&scratch, &to);
    assert_eq!((&sent["shards_sent"], &sent["shards"]), (&json!(1), &json!(5)));
    let generation = sent["generation"].clone();
    assert_eq!(info(&other), generation);
    let own = answers(&scratch.ok(&format!("query --store store {QUERY}")));
    assert_eq!(answers(&other.ok(&format!("query --store {to} {QUERY}"))), own);

    let older = format!("export --store early --to {to}");
    scratch.ends(FAILED, &older).says(&["it holds generation", "hyperrag export --replace"]);
    assert_eq!(info(&other), generation);
    scratch.write("corpus.jsonl", jsonl(&passages()[5..20]));
    scratch.ok("build corpus.jsonl --store foreign TINY --kv-dtype f32");
    let foreign = format!("export --store foreign --to {to}");
    scratch.ends(FAILED, &foreign).says(&["of other settings"]);
    scratch.ok(&format!("{older} --replace"));
    assert_eq!(info(&other), json!(2));

    // Compaction leaves no table behind that no shard has.
    scratch.ok("compact --store store");
    let names = |folder: &str| {
        let files = all_files(&scratch.path(folder)).into_iter();
        let mut names: Vec<_> = files.map(|path| path.file_stem().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let (tables, stored) = (names("store/tables"), names("store/shards"));
    assert!(!tables.is_empty() && tables.iter().all(|table| stored.contains(table)), "{tables:?}");
    scratch.damage("store/tables/000001.kvt", |bytes| bytes[300] ^= 1);
    scratch.ok("verify --store store --deep");
    scratch.write("ids", "p002");
    scratch.ok("delete --store store --ids ids");
    assert!(!scratch.path("store/tables/000001.kvt").exists());
}

#[test]
fn a_listing_that_leads_out_of_the_folder_is_refused() {
    let scratch = built();
    let to = url(&scratch, "place");
    export(&scratch, &to);
    let place = scratch.path("place");
    let current: Value = serde_json::from_slice(&fs::read(place.join("CURRENT")).unwrap()).unwrap();
    let listing = place.join(current["listing"].as_str().unwrap());
    let good: Value = serde_json::from_slice(&fs::read(&listing).unwrap()).unwrap();
    let digest = |bytes: &[u8]| hyperrag_core::Digest::of(bytes).to_string();
    // A listing as a stranger may write it, under its right name and digest.
    let forge = |change: &dyn Fn(&mut Value)| {
        let mut bad = good.clone();
        change(&mut bad);
        let bytes = serde_json::to_vec(&bad).unwrap();
        let name = format!("listing.json.{}", &digest(&bytes)[..32]);
        fs::write(place.join(&name), &bytes).unwrap();
        let mut named = current.clone();
        named["listing"] = name.into();
        named["bytes"] = bytes.len().into();
        named["blake3"] = digest(&bytes).into();
        fs::write(place.join("CURRENT"), named.to_string()).unwrap();
    };
    let other = Scratch::new();
    let path = |path: &'static str| {
        move |bad: &mut Value| {
            let object = bad["files"][0]["object"].as_str().unwrap().to_owned();
            let hex = object.rsplit_once('.').unwrap().1.to_owned();
            bad["files"][0]["object"] = format!("{path}.{hex}").into();
            bad["files"][0]["path"] = path.into();
        }
    };
    let line = format!("info --store {to}");
    for name in ["../x", "/tmp/x", "index/../../x", "lock", "shards/000001.kv", ""] {
        forge(&path(name));
        other.ends(DAMAGED, &line).says(&["which is no file of a store"]);
    }
    forge(&|bad| bad["files"][0]["bytes"] = json!(u64::MAX));
    other.ends(DAMAGED, &line).says(&["lengths"]);
    forge(&|bad| bad["files"][0]["bytes"] = json!(1_u64 << 60));
    other.ends(FAILED, &line).says(&["bytes are free"]);
    forge(&|bad| bad["format"] = json!(2));
    other.ends(DAMAGED, &line).says(&["use a newer hyperrag"]);
    let mut named = current.clone();
    named["bytes"] = json!(u64::MAX);
    fs::write(place.join("CURRENT"), named.to_string()).unwrap();
    other.ends(DAMAGED, &line).says(&["names no listing"]);
    fs::write(place.join("CURRENT"), "x".repeat(1 << 20)).unwrap();
    other.ends(FAILED, &line).says(&["CURRENT"]);
    let files = all_files(&other.path("home")).into_iter().filter(|path| path.is_file());
    let kept: Vec<_> = files.filter(|path| !path.to_string_lossy().contains(".part")).collect();
    assert!(kept.iter().all(|path| path.ends_with("lock")), "{kept:?}");
}

#[test]
fn several_processes_fetch_a_store_at_once() {
    let scratch = built();
    let to = url(&scratch, "place");
    export(&scratch, &to);
    let other = Scratch::new();
    let children: Vec<_> =
        (0..4).map(|_| other.spawn(&format!("info --store {to} --json"))).collect();
    let outputs: Vec<_> =
        children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    for output in &outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    other.ok(&format!("verify --deep --store {to}"));
}

/// Exports to a server, and asks from a fresh machine and from the store without its shards.
fn serve(server: Server, to: &str, environment: &[(&str, String)]) {
    let scratch = built();
    let with = |scratch: &Scratch, code: i32, line: &str| {
        let mut command: Command = scratch.command(line);
        command.envs(environment.iter().map(|(name, value)| (*name, value.as_str())));
        let outcome = scratch.check(line, command.output().unwrap());
        assert_eq!(outcome.code, code, "{line}: {}", outcome.stderr);
        outcome
    };
    let before = answers(&scratch.ok(&format!("query --store store {QUERY}")));
    let line = format!("export --store store --to {to} --json --verify");
    let sent = with(&scratch, 0, &line).json().remove(0);
    assert_eq!((&sent["shards_sent"], &sent["blocks_read_back"]), (&json!(4), &json!(128)));
    let again = with(&scratch, 0, &line).json().remove(0);
    assert_eq!((&again["blocks_sent"], &again["files_sent"]), (&json!(0), &json!(0)));
    let other = Scratch::new();
    let found = with(&other, 0, &format!("query --store {to} {QUERY}"));
    assert_eq!(answers(&found), before);
    with(&other, 0, &format!("verify --deep --store {to}"));
    let bytes = scratch.contents("store");
    fs::remove_dir_all(scratch.path("store/shards")).unwrap();
    with(&scratch, 0, &format!("verify --store store --tier {to}"));
    let mended = with(&scratch, 0, &format!("repair --store store --from {to} --json"));
    assert_eq!(mended.json()[0]["blocks_computed"], json!(0));
    assert_eq!(scratch.contents("store"), bytes);

    // Without the server, the generation that was fetched answers, and its blocks are computed.
    drop(server);
    let gone = "going on with the generation fetched last";
    with(&other, 0, &format!("info --store {to}")).says(&[gone]);
    let found = with(&other, 3, &format!("query --store {to} {QUERY}"));
    found.says(&[gone]);
    let hits = |answers: &[Value]| answers.iter().map(|a| a["hits"].clone()).collect::<Vec<_>>();
    assert_eq!(hits(&answers(&found)), hits(&before));
    with(&Scratch::new(), 1, &format!("info --store {to}"));
}

#[test]
fn a_bucket_is_a_place() {
    let Some(services) = Services::find() else { return };
    let weed = services.weed();
    let environment = weed.environment();
    serve(weed, &format!("s3://{BUCKET}/a/store"), &environment);
}

#[test]
fn redis_is_a_place() {
    let Some(services) = Services::find() else { return };
    let redis = services.redis();
    let to = format!("redis://127.0.0.1:{}?prefix=t", redis.port);
    serve(redis, &to, &[]);
}
