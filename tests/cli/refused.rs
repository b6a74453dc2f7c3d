//! Files that the system refuses, for lack of rights or of descriptors. A refusal is no damage.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::started::by;
use crate::support::{
    DONE, FAILED, Outcome, Scratch, all_files, jsonl, passages, ranked, testdata,
};

/// Copies the program and the model to a place where every user may start and read them.
fn open_to_all(scratch: &Scratch) {
    set_mode(&scratch.path(""), 0o755);
    fs::copy(env!("CARGO_BIN_EXE_hyperrag"), scratch.path("hyperrag")).unwrap();
    fs::copy(testdata("tiny.gguf"), scratch.path("tiny.gguf")).unwrap();
}

/// Runs the copies of [`open_to_all`] as a user who is not root: root may open every file, whatever its
/// mode.
#[track_caller]
fn run_as_user(scratch: &Scratch, line: &str) -> Outcome {
    let copied = line.replace("TINY", "--model tiny.gguf");
    let copy = ["sh", "-c", "exec ./hyperrag \"$@\""];
    let mut command = by(&copy, &scratch.command(&copied));
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    scratch.check(line, command.output().unwrap())
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_may_not_be_read_is_an_error_with_its_cause_and_never_damage() {
    let scratch = Scratch::new();
    open_to_all(&scratch);
    scratch.write("rows.jsonl", jsonl(&passages()[..10]));
    scratch.ok("build rows.jsonl --store store TINY --unit-rows 4 --profile plain --kv-dtype int5");
    for file in all_files(&scratch.path("store")) {
        set_mode(&file, if file.is_dir() { 0o755 } else { 0o644 });
    }
    let query = "query bees --store store TINY --depth 20 --json";
    let (whole, deep) = (run_as_user(&scratch, query), "verify --store store --deep");
    assert_eq!((whole.code, run_as_user(&scratch, deep).code), (DONE, DONE));
    let segment = all_files(&scratch.path("store/index"));
    let segment = segment.iter().find(|path| path.extension().is_some_and(|e| e == "store"));
    let segment = segment.unwrap().strip_prefix(scratch.path("store")).unwrap().to_owned();
    for name in [
        "manifest.json".as_ref(),
        "generation".as_ref(),
        "shards/000000.kv".as_ref(),
        "chunks/000000.parquet".as_ref(),
        "calibration.bin".as_ref(),
        "index/meta.json".as_ref(),
        "index/.managed.json".as_ref(),
        "shards".as_ref(),
        segment.as_path(),
    ] {
        let path = scratch.path("store").join(name);
        set_mode(&path, 0);
        let plan = "repair --store store TINY --dry-run";
        let mut lines = vec!["verify --store store", deep, plan];
        // A query reads neither of these.
        if !name.starts_with("chunks") {
            lines.extend([query, "query bees --store store TINY --on-damage skip"]);
        }
        for line in lines {
            let outcome = run_as_user(&scratch, line);
            let (code, stderr) = (outcome.code, &outcome.stderr);
            assert_eq!(code, FAILED, "{line}, {}: {stderr}{}", name.display(), outcome.stdout);
            outcome.says(&["Permission denied"]);
            if name.starts_with("index") {
                outcome.says(&[name.file_name().unwrap().to_str().unwrap(), "no right to it"]);
            }
            assert!(!stderr.contains("damage") && !stderr.contains("repair"), "{line}: {stderr}");
        }
        set_mode(&path, if path.is_dir() { 0o755 } else { 0o644 });
    }
    assert_eq!(ranked(&run_as_user(&scratch, query)), ranked(&whole));
}

#[test]
fn replicas_that_may_not_be_read_are_not_forgotten() {
    let scratch = Scratch::new();
    open_to_all(&scratch);
    scratch.write("rows.jsonl", jsonl(&passages()[..4]));
    scratch.ok("build rows.jsonl --store store TINY --replica copy");
    for file in all_files(&scratch.path("store")) {
        set_mode(&file, if file.is_dir() { 0o777 } else { 0o666 });
    }
    set_mode(&scratch.path("store"), 0o777);
    fs::create_dir(scratch.path("other")).unwrap();
    set_mode(&scratch.path("other"), 0o777);
    let list = scratch.path("store/replicas.json");
    let listed = fs::read(&list).unwrap();
    set_mode(&list, 0);
    let outcome = run_as_user(&scratch, "replicate --store store --to other");
    outcome.says(&["it does not remember the replica"]);
    assert_eq!(fs::read(&list).unwrap(), listed);
}

#[test]
fn files_follow_the_umask() {
    let scratch = Scratch::new();
    scratch.write("rows.jsonl", jsonl(&passages()[..20]));
    scratch.write("ids", "p001\n");
    for (umask, file, folder) in [("022", 0o644, 0o755), ("027", 0o640, 0o750)] {
        let run = |line: &str| {
            let mut command = scratch.command_after(&format!("umask {umask}"), line);
            let outcome = scratch.check(line, command.output().unwrap());
            assert_eq!(outcome.code, DONE, "{line}: {}", outcome.stderr);
        };
        let store = format!("store-{umask}");
        run(&format!("build rows.jsonl --store {store} TINY --unit-rows 5 --kv-dtype int5"));
        run(&format!("delete --store {store} --ids ids"));
        run(&format!("compact --store {store}"));
        run(&format!("replicate --store {store} --to copy-{umask}"));
        for root in [&store, &format!("copy-{umask}")] {
            let paths = all_files(&scratch.path(root));
            let in_index = |path: &&PathBuf| path.to_string_lossy().contains("/index");
            assert!(paths.iter().filter(in_index).count() > 8, "{paths:?}");
            for path in paths {
                let mode = fs::metadata(&path).unwrap().mode() & 0o777;
                let expected = if path.is_dir() { folder } else { file };
                assert_eq!(mode, expected, "{}: {mode:o}", path.display());
            }
        }
    }
}

/// Returns many short documents.
fn rows(count: usize) -> String {
    let mut rows = String::new();
    for row in 0..count {
        let value = json!({"_id": format!("d{row}"), "text": format!("honey number {row}")});
        writeln!(rows, "{value}").unwrap();
    }
    rows
}

/// Runs the program with `descriptors` descriptors.
#[track_caller]
fn run_with(scratch: &Scratch, descriptors: u32, line: &str) -> Outcome {
    let mut command = scratch.command_after(&format!("ulimit -n {descriptors}"), line);
    let outcome = scratch.check(line, command.output().unwrap());
    assert_eq!(outcome.code, DONE, "{line}: {}{}", outcome.stderr, outcome.stdout);
    outcome
}

#[test]
fn six_hundred_shards_are_read_with_64_descriptors() {
    let scratch = Scratch::new();
    scratch.write("rows.jsonl", rows(600));
    let build = "build rows.jsonl --store store TINY --profile plain --unit-rows 1";
    run_with(&scratch, 64, build);
    let query = "query honey --store store TINY --depth 600 -k 600 --json";
    let (free, bound) = (scratch.ok(query), run_with(&scratch, 64, query));
    assert_eq!(ranked(&free), ranked(&bound));
    for outcome in [&free, &bound] {
        assert_eq!(outcome.json()[0]["stats"]["blocks_recomputed"], 0, "{}", outcome.stderr);
        assert_eq!(outcome.json()[0]["stats"]["blocks_read"], 600);
    }
    run_with(&scratch, 64, "replicate --store store --to copy");
    // With a replica there are twice as many files.
    assert_eq!(ranked(&free), ranked(&run_with(&scratch, 64, query)));
    run_with(&scratch, 64, "verify --store store");
    run_with(&scratch, 64, "verify --store store --deep");
}

#[test]
fn forty_shards_are_compacted_with_32_descriptors() {
    let scratch = Scratch::new();
    scratch.write("rows.jsonl", rows(1600));
    scratch.ok("build rows.jsonl --store store TINY --profile plain --unit-rows 40");
    let kept = |row: &usize| row.is_multiple_of(40);
    let ids = (0..1600).filter(|row| !kept(row)).map(|row| format!("d{row}\n"));
    scratch.write("ids", ids.collect::<String>());
    run_with(&scratch, 32, "delete --store store --ids ids");
    run_with(&scratch, 32, "compact --store store");
    let info = scratch.ok("info --store store --json").json();
    assert_eq!(info[0]["shards"].as_array().unwrap().len(), 1);
    run_with(&scratch, 32, "verify --store store --deep");
    scratch.write("more.jsonl", rows(3));
    run_with(
        &scratch,
        32,
        "build more.jsonl --append --store store TINY --profile plain --unit-rows 40",
    );
}
