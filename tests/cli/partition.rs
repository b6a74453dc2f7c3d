//! Builds that several processes share: together, killed, asleep, refused, and merged to the bytes of one build.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::disk::{ReadError, attach};
use crate::fake_s3::{self, FakeS3, Fault};
use crate::services::{BUCKET, Services};
use crate::support::{
    DAMAGED, DONE, FAILED, INTERRUPTED, MISMATCH, Outcome, Scratch, USAGE, all_files, jsonl,
    passages, ranked,
};

/// Two passages a unit: eighty units, which are five spans.
const SETTINGS: &str = "corpus.jsonl TINY --unit-rows 2";
const PATIENCE: Duration = Duration::from_secs(300);

/// Fewer units, which are two spans, for places that are slow.
const FEW: &str = "corpus.jsonl TINY --unit-rows 8";

/// Makes a folder with a corpus of the passages, and the store of one build.
fn world() -> Scratch {
    world_of(SETTINGS)
}

fn world_of(settings: &str) -> Scratch {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()));
    scratch.ok(&format!("build {settings} --store whole"));
    scratch
}

fn worker(store: &str, part: &str) -> String {
    format!("build {SETTINGS} --store {store} --partition {part} --takeover-after 1")
}

/// Waits for a process, and fails if it hangs.
fn wait(mut child: Child) -> Output {
    // A pipe that nobody reads would hold the worker up.
    let (stdout, stderr) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("a worker hangs");
        }
        sleep(Duration::from_millis(5));
    }
    let status = child.wait().unwrap();
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut all).unwrap();
        }
        all
    })
}

/// Runs the program to its end, beside others that may have files half-written.
#[track_caller]
fn beside(scratch: &Scratch, line: &str) -> Outcome {
    let outcome = Outcome::of(wait(scratch.spawn(line)));
    assert_eq!(outcome.code, DONE, "{line}: {}", outcome.stderr);
    outcome
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").arg(name).arg(child.id().to_string()).status();
    assert!(status.unwrap().success());
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < PATIENCE, "{}", path.display());
        sleep(Duration::from_millis(1));
    }
}

/// Checks that a merged store has the bytes of the store of one build, and that its index finds the same.
#[track_caller]
pub(crate) fn check_equal(scratch: &Scratch, store: &str) {
    let without_index = |store: &str| {
        let mut files = scratch.files(store);
        files.retain(|path, _| !path.starts_with("index"));
        files
    };
    let (merged, whole) = (without_index(store), without_index("whole"));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&merged), names(&whole));
    for (name, bytes) in &whole {
        assert_eq!(merged[name], *bytes, "{}", name.display());
    }
    assert_eq!(answers(scratch, store), answers(scratch, "whole"));
}

pub(crate) fn answers(scratch: &Scratch, store: &str) -> Vec<(String, Vec<(String, u32)>)> {
    let query = "query TINY --json --queries QUERIES --depth 20 -k 20 --store";
    let found = ranked(&scratch.ok(&format!("{query} {store}")));
    assert!(found.iter().any(|(_, hits)| hits.len() > 5));
    found
}

#[test]
fn several_builders_make_the_store_of_one() {
    let scratch = world();
    for workers in [2, 4] {
        let start = |part| scratch.spawn(&format!("{} --json", worker("store", part)));
        let parts: Vec<String> = (1..=workers).map(|part| format!("{part}/{workers}")).collect();
        let children: Vec<Child> = parts.iter().map(|part| start(part)).collect();
        let mut built = 0;
        for child in children {
            let outcome = Outcome::of(wait(child));
            assert_eq!(outcome.code, DONE, "{}", outcome.stderr);
            let report = &outcome.json()[0];
            assert_eq!((&report["finished"], &report["spans"]), (&json!(true), &json!(5)));
            built += report["shards_built"].as_u64().unwrap();
        }
        // Every span is built once, or twice where a worker seemed dead.
        assert!(built >= 80, "{built}");
        let merged = scratch.ok("merge --store store --json").json();
        assert_eq!((&merged[0]["shards"], &merged[0]["spans"]), (&json!(80), &json!(5)));
        check_equal(&scratch, "store");
        assert!(!scratch.path("store/build").exists());
        scratch.ok("verify --store store");
        // Those who come late find nothing to do.
        scratch.ok("merge --store store").says(&["merged already"]);
        scratch.ok(&worker("store", "1/1")).says(&["every span is done"]);
        check_equal(&scratch, "store");
        fs::remove_dir_all(scratch.path("store")).unwrap();
    }
}

#[test]
fn types_with_means_are_merged_too() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()));
    scratch.ok(&format!("build {SETTINGS} --kv-dtype int4 --store whole"));
    scratch.ok(&format!("{} --kv-dtype int4", worker("store", "1/1")));
    scratch.ok("merge --store store");
    check_equal(&scratch, "store");
}

/// Kills a worker at its `nth` call to the disk that writes below `root`. Returns whether it came so far.
fn killed(scratch: &Scratch, line: &str, root: &str, nth: usize) -> bool {
    let fault = ReadError { kinds: "cuw", action: "kill", stays: false };
    let mut command = scratch.command(line);
    let folder = fs::canonicalize(scratch.path(".")).unwrap();
    attach(&mut command, &folder.join(root), &scratch.path("record"), Some((fault, nth)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = wait(command.spawn().unwrap());
    assert!(output.status.code().is_none_or(|code| code == DONE), "{output:?}");
    output.status.code().is_none()
}

#[test]
fn a_worker_killed_at_any_claim_is_replaced() {
    let scratch = world();
    let line = worker("store", "1/2");
    let (mut kills, mut sites) = (0, BTreeMap::new());
    // Each write below these folders in turn: of the plan, the claims, the results, and the first shards.
    for (root, calls_max) in [
        ("store/build/spans", 40),
        ("store/build/done", 40),
        ("store/build/shards", 4),
        ("store/build/work", 6),
        ("store/build", 16),
    ] {
        for nth in (1..=calls_max).step_by(if calls_max == 40 { 2 } else { 1 }) {
            let _ = fs::remove_dir_all(scratch.path("store"));
            if !killed(&scratch, &line, root, nth) {
                break;
            }
            kills += 1;
            *sites.entry(root).or_insert(0) += 1;
            // Two take over what it had, of which one begins where it did.
            let others = [&line, &worker("store", "2/2")].map(|line| scratch.spawn(line));
            for other in others {
                let outcome = Outcome::of(wait(other));
                assert_eq!(outcome.code, DONE, "{root} {nth}: {}", outcome.stderr);
            }
            scratch.ok("merge --store store");
            assert_eq!(scratch.contents("store"), scratch.contents("whole"), "{root} {nth}");
        }
    }
    check_equal(&scratch, "store");
    assert!(kills >= 20 && sites.len() == 5, "{kills} kills at {sites:?}");
}

#[test]
fn a_killed_merge_goes_on() {
    let scratch = world();
    scratch.ok(&worker("built", "1/1"));
    let (mut kills, mut taken) = (0, 0);
    for nth in [1, 2, 3, 5, 9, 20, 60, 150, 400, 700, 900] {
        let _ = fs::remove_dir_all(scratch.path("store"));
        crate::support::copy_folder(&scratch.path("built"), &scratch.path("store"));
        kills += usize::from(killed(&scratch, "merge --store store", "store", nth));
        // It may be over, or killed while it removed what it had merged.
        let merged = scratch.ok("merge --store store --json");
        taken = taken.max(merged.json()[0]["shards_before"].as_u64().unwrap() % 80);
        check_equal(&scratch, "store");
        assert!(!scratch.path("store/build").exists());
    }
    assert!(kills >= 6, "{kills} kills");
    assert!(taken >= 64, "no merge went on from shards that one before it had sealed");
}

#[test]
fn a_worker_that_wakes_up_after_its_span_was_taken_over_does_no_harm() {
    let scratch = world();
    for _ in 0..20 {
        let _ = fs::remove_dir_all(scratch.path("store"));
        let sleeper = scratch.spawn(&worker("store", "1/1"));
        wait_for(&scratch.path("store/build/spans/000000.0"));
        signal(&sleeper, "-STOP");
        beside(&scratch, &worker("store", "2/2"));
        let was_taken_over = scratch
            .path("store/build/spans")
            .read_dir()
            .unwrap()
            .any(|entry| entry.unwrap().file_name().to_string_lossy().ends_with(".1"));
        signal(&sleeper, "-CONT");
        let outcome = Outcome::of(wait(sleeper));
        assert_eq!(outcome.code, DONE, "{}", outcome.stderr);
        scratch.ok("merge --store store");
        check_equal(&scratch, "store");
        // Else it had finished the span before it fell asleep.
        if was_taken_over {
            return;
        }
    }
    panic!("no span was ever taken over");
}

#[test]
fn a_worker_that_is_interrupted_gives_its_span_back() {
    let scratch = world();
    let line = format!("build {SETTINGS} --store store --partition 1/1 --takeover-after 86400");
    let child = scratch.spawn(&line);
    wait_for(&scratch.path("store/build/spans/000000.0"));
    signal(&child, "-INT");
    let outcome = Outcome::of(wait(child));
    assert_eq!(outcome.code, INTERRUPTED, "{}", outcome.stderr);
    outcome.says(&["any worker builds the one that was begun"]);
    let merged = scratch.ends(FAILED, "merge --store store");
    merged.says(&["of 5", "not done", "start more workers"]);
    // It would wait for a day otherwise.
    beside(&scratch, &line);
    scratch.ok("merge --store store");
    check_equal(&scratch, "store");
}

#[test]
fn a_worker_that_does_not_wait_leaves_the_spans_of_others() {
    let scratch = world();
    let line = format!("build {SETTINGS} --store store --partition 1/1 --takeover-after 86400");
    for _ in 0..20 {
        let _ = fs::remove_dir_all(scratch.path("store"));
        let sleeper = scratch.spawn(&line);
        wait_for(&scratch.path("store/build/spans/000000.0"));
        signal(&sleeper, "-STOP");
        let report = beside(&scratch, &format!("{line} --no-wait --json")).json()[0].clone();
        signal(&sleeper, "-CONT");
        assert_eq!(wait(sleeper).status.code(), Some(DONE));
        scratch.ok("merge --store store");
        check_equal(&scratch, "store");
        // Else it fell asleep between two spans.
        if report["finished"] == json!(false) {
            return;
        }
    }
    panic!("no span was ever left");
}

#[test]
fn a_build_alone_does_not_take_the_folder_of_workers() {
    let scratch = world();
    let refused = scratch.check("build", {
        beside(&scratch, &format!("{} --no-wait", worker("shared", "1/2")));
        scratch.command(&format!("build {SETTINGS} --store shared")).output().unwrap()
    });
    assert_eq!(refused.code, FAILED, "{}", refused.stderr);
    refused.says(&["other processes share the build"]);
    scratch.ok("merge --store shared");
    check_equal(&scratch, "shared");
    // What the workers left does not matter to a store that is there.
    scratch.ok(&format!("build {SETTINGS} --store shared"));
}

#[test]
fn other_settings_and_other_inputs_are_refused() {
    let scratch = world();
    scratch.ok(&worker("store", "1/1"));
    let line = worker("store", "auto");
    scratch.ends(FAILED, &line).says(&["JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID"]);
    let with = |flags: &str| format!("{} {flags}", worker("store", "1/1"));
    scratch.ends(MISMATCH, &with("--chunk-tokens 200")).says(&["chunk_tokens", "256", "200"]);
    scratch.ends(MISMATCH, &with("--kv-dtype f32")).says(&["element", "bf16", "f32"]);
    scratch.ends(FAILED, &with("--limit 100")).says(&["another input", "160 rows", "100 rows"]);
    let mut rows = passages();
    rows[20]["text"] = json!("Something else.");
    scratch.write("corpus.jsonl", jsonl(&rows));
    scratch.ends(FAILED, &with("")).says(&["another input", "with other ids, titles or texts"]);
    rows = passages();
    rows.swap(3, 150);
    scratch.write("corpus.jsonl", jsonl(&rows));
    scratch.ends(FAILED, &with("")).says(&["another input", "in another order"]);
    rows = passages();
    rows[150]["_id"] = rows[3]["_id"].clone();
    scratch.write("corpus.jsonl", jsonl(&rows));
    scratch.ends(FAILED, &with("")).says(&["occurs at"]);
    scratch.write("corpus.jsonl", jsonl(&passages()));
    scratch.ok("merge --store store");
    check_equal(&scratch, "store");
    // The merged store is no less particular.
    scratch.ends(MISMATCH, &with("--chunk-tokens 200")).says(&["chunk_tokens", "256", "200"]);
    scratch.ends(FAILED, &with("--limit 100")).says(&["another input"]);
    for flags in ["--append", "--max-bytes 1G", "--replica copy", "--dry-run"] {
        scratch.ends(USAGE, &with(flags));
    }
    scratch.ends(FAILED, "merge --store nothing").says(&["nothing was begun here"]);
    fs::create_dir(scratch.path("other")).unwrap();
    scratch.write("other/file", "mine");
    scratch.ends(FAILED, &worker("other", "1/1")).says(&["not empty and holds no store"]);
    let redis = worker("redis://127.0.0.1:1", "1/1");
    scratch.ends(FAILED, &redis).says(&["whole shards"]);
    let plain = format!("build {SETTINGS} --store s3://bucket/prefix");
    scratch.ends(FAILED, &plain).says(&["a store is built in a folder", "--partition"]);
}

#[test]
fn damaged_results_are_never_merged() {
    let scratch = world();
    scratch.ok(&worker("built", "1/1"));
    let files = |folder: &str| {
        let mut files = all_files(&scratch.path("built/build").join(folder));
        files.sort();
        files[files.len() / 2].strip_prefix(scratch.path("built")).unwrap().to_owned()
    };
    for folder in ["done", "shards", "chunks"] {
        let path = files(folder);
        let _ = fs::remove_dir_all(scratch.path("store"));
        crate::support::copy_folder(&scratch.path("built"), &scratch.path("store"));
        let name = format!("store/{}", path.display());
        scratch.damage(&name, |bytes| bytes[100] ^= 1);
        scratch.ends(DAMAGED, "merge --store store");
        fs::remove_file(scratch.path(&name)).unwrap();
        let code = scratch.run("merge --store store").code;
        assert!(code == FAILED || code == DAMAGED, "{name}: {code}");
        // The bytes come back, and the merge goes on.
        fs::copy(scratch.path("built").join(&path), scratch.path(&name)).unwrap();
        scratch.ok("merge --store store");
        check_equal(&scratch, "store");
    }
}

/// Returns the files of a place but the index, what names it, and the work of the builders.
fn objects(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in all_files(root).into_iter().filter(|path| path.is_file()) {
        let name = path.strip_prefix(root).unwrap().to_owned();
        let first = name.iter().next().unwrap().to_string_lossy().into_owned();
        let differs = ["build", "index", "listing", "CURRENT", "swap", "generation"];
        if !differs.iter().any(|start| first.starts_with(start)) {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn a_store_is_built_where_it_will_be_shared() {
    let scratch = world();
    fs::create_dir(scratch.path("exported")).unwrap();
    scratch.ok("export --store whole --to exported");
    let url = format!("file://{}", scratch.path("place").display());
    let workers = ["1/2", "2/2"].map(|part| scratch.spawn(&worker(&url, part)));
    for worker in workers {
        let outcome = Outcome::of(wait(worker));
        assert_eq!(outcome.code, DONE, "{}", outcome.stderr);
    }
    let merged = scratch.ok(&format!("merge --store {url} --json")).json();
    assert_eq!(merged[0]["shards"], 80);
    assert_eq!(objects(&scratch.path("place")), objects(&scratch.path("exported")));
    assert_eq!(answers(&scratch, &url), answers(&scratch, "whole"));
    scratch.ok(&format!("merge --store {url}")).says(&["merged already"]);
    scratch.ok(&worker(&url, "1/1")).says(&["every span is done"]);
    // A place with a store is not built over.
    let exported = format!("file://{}", scratch.path("exported").display());
    scratch.ends(FAILED, &worker(&exported, "1/1")).says(&["holds a store already"]);
}

/// A moment at which a worker dies: just before the place has, or just after it has made, the `nth` object whose
/// name begins so.
type Site = (&'static str, usize, bool);

const SITES: [Site; 11] = [
    ("build/plan.json", 1, false),
    ("build/plan.json", 1, true),
    ("build/probe/", 1, true),
    ("build/spans/", 1, false),
    ("build/spans/", 1, true),
    ("build/spans/", 2, true),
    ("build/tables/", 3, true),
    ("chunks/", 3, true),
    ("shards/", 3, false),
    ("build/done/", 1, false),
    ("build/done/", 1, true),
];

/// Starts the program with the settings of a server that is no AWS.
fn start_at(scratch: &Scratch, endpoint: &str, line: &str) -> Child {
    let mut command = scratch.command(line);
    command.env("AWS_ENDPOINT_URL", endpoint).env("AWS_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", fake_s3::KEY).env("AWS_SECRET_ACCESS_KEY", "secret");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Has the server kill the process `child`, once, at a site below `prefix`. Tells whether it did.
fn kill_at(server: &FakeS3, prefix: &str, (name, nth, landed): Site, child: &Arc<AtomicU32>) {
    let (child, count) = (Arc::clone(child), AtomicUsize::new(0));
    let start = format!("/{}/{prefix}{name}", fake_s3::BUCKET);
    server.watch(move |seen, done| {
        let here = seen.method == "PUT" && seen.path.starts_with(&start) && done == landed;
        if here && count.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            let id = child.swap(0, Ordering::SeqCst);
            assert_ne!(id, 0, "a process that was started");
            let killed = Command::new("kill").args(["-KILL", &id.to_string()]).status();
            assert!(killed.unwrap().success());
        }
    });
}

#[test]
fn builders_are_killed_at_every_claim_of_a_bucket_that_answers_wrongly() {
    let scratch = world_of(FEW);
    let server = FakeS3::start(27);
    let start = |line: &str| start_at(&scratch, &server.endpoint, line);
    let ok = |child| {
        let outcome = Outcome::of(wait(child));
        assert_eq!(outcome.code, DONE, "{}", outcome.stderr);
        outcome
    };
    let url = |prefix: &str| format!("s3://{}/{prefix}", fake_s3::BUCKET);
    ok(start(&format!("export --store whole --to {}", url("whole"))));
    let differs = |name: &str| {
        let starts = ["build/", "index/", "listing", "CURRENT", "generation"];
        starts.iter().any(|start| name.starts_with(start))
    };
    let objects = |prefix: &str| {
        let mut objects = server.objects(prefix);
        objects.retain(|name, _| !differs(name));
        objects
    };
    let whole = objects("whole/");
    assert!(whole.len() > 60, "{}", whole.len());
    // An error though it landed, a conflict though it did not, a lost request, a lost answer.
    let kinds = [Fault::Landed(500), Fault::Status(409), Fault::Drop, Fault::LandedDrop];
    server.fail(20, &kinds);
    for (case, site) in SITES.into_iter().enumerate() {
        let (prefix, child) = (format!("case{case}/"), Arc::new(AtomicU32::new(0)));
        kill_at(&server, &prefix, site, &child);
        let place = url(prefix.trim_end_matches('/'));
        let worker = |part: &str| {
            format!("build {FEW} --store {place} --partition {part} --takeover-after 3")
        };
        let first = start(&worker("1/4"));
        child.store(first.id(), Ordering::SeqCst);
        let output = wait(first);
        assert_eq!(output.status.code(), None, "{site:?}: {output:?}");
        let others = ["2/4", "3/4", "4/4"].map(|part| start(&worker(part)));
        others.into_iter().for_each(|child| drop(ok(child)));
        ok(start(&format!("merge --store {place}")));
        let merged = objects(&prefix);
        assert!(merged.keys().eq(whole.keys()), "{site:?}");
        assert!(merged == whole, "{site:?}: bytes differ");
    }
    let faults = server.faults(|_| true);
    assert!(faults > 50, "{faults}");
    server.fail(0, &kinds);
    let query = "query TINY --json --queries QUERIES --depth 20 -k 20 --store";
    let found = ranked(&ok(start(&format!("{query} {}", url("case0")))));
    assert_eq!(found, answers(&scratch, "whole"));
}

#[test]
fn a_bucket_is_filled_by_several_builders() {
    let Some(services) = Services::find() else { return };
    let scratch = world();
    let server = services.weed();
    let url = format!("s3://{BUCKET}/many");
    let start = |line: &str| {
        let mut command = scratch.command(line);
        command.envs(server.environment());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let ok = |child| {
        let outcome = Outcome::of(wait(child));
        assert_eq!(outcome.code, DONE, "{}", outcome.stderr);
        outcome
    };
    // Of four one is killed after its first claim, at a moment that nobody chose.
    let mut workers: Vec<Child> =
        (1..=4).map(|part| start(&worker(&url, &format!("{part}/4")))).collect();
    let mut killed = workers.remove(0);
    sleep(Duration::from_millis(700));
    killed.kill().unwrap();
    killed.wait().unwrap();
    for worker in workers {
        ok(worker);
    }
    ok(start(&format!("merge --store {url}")));
    let query = "query TINY --json --queries QUERIES --depth 20 -k 20 --store";
    let found = ranked(&ok(start(&format!("{query} {url}"))));
    assert_eq!(found, answers(&scratch, "whole"));
    ok(start(&format!("verify --store whole --tier {url}")));
}
