//! Links, pipes and devices in the place of a store's files.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::{
    DAMAGED, DEGRADED, DONE, FAILED, LITTLE_MEMORY, Outcome, Scratch, jsonl, passages,
};

const BUILD: &str = "--store store TINY --unit-rows 4 --profile plain";

/// Makes a store of three shards, one document of which is deleted, and more rows.
fn store() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("first.jsonl", jsonl(&passages()[..10]));
    scratch.write("more.jsonl", jsonl(&passages()[10..14]));
    scratch.write("ids", "p001\n");
    scratch.write("others", "p002\n");
    scratch.ok(&format!("build first.jsonl {BUILD}"));
    scratch.ok("delete --store store --ids ids");
    scratch
}

/// Runs the program, which must end in time and with little memory.
#[track_caller]
fn run(scratch: &Scratch, line: &str) -> Outcome {
    Outcome::of(scratch.soon_after(LITTLE_MEMORY, line))
}

#[track_caller]
fn ends(scratch: &Scratch, code: i32, line: &str) -> Outcome {
    let outcome = run(scratch, line);
    assert_eq!(
        outcome.code, code,
        "{line}\nstdout: {}\nstderr: {}",
        outcome.stdout, outcome.stderr
    );
    outcome
}

fn fifo(scratch: &Scratch, name: &str) {
    assert!(Command::new("mkfifo").arg(scratch.path(name)).status().unwrap().success());
}

#[test]
fn a_manifest_that_is_no_file_is_neither_waited_for_nor_read_without_end() {
    let scratch = store();
    let manifest = scratch.path("store/manifest.json");
    fs::rename(&manifest, scratch.path("kept")).unwrap();
    for kind in ["pipe", "device", "link", "folder"] {
        match kind {
            "pipe" => fifo(&scratch, "store/manifest.json"),
            "device" => symlink("/dev/zero", &manifest).unwrap(),
            "link" => symlink(scratch.path("kept"), &manifest).unwrap(),
            _ => fs::create_dir(&manifest).unwrap(),
        }
        let lines = [
            "info --store store".to_owned(),
            "verify --store store".to_owned(),
            "query bees --store store TINY".to_owned(),
            "delete --store store --ids others".to_owned(),
            "compact --store store".to_owned(),
            "replicate --store store --to copy".to_owned(),
            format!("build more.jsonl --append {BUILD}"),
        ];
        for line in lines {
            let says = if line.starts_with("verify") {
                "1 damage"
            } else {
                "the store's files must be its own"
            };
            ends(&scratch, DAMAGED, &line).says(&[says]);
        }
        match kind {
            "folder" => fs::remove_dir(&manifest).unwrap(),
            _ => fs::remove_file(&manifest).unwrap(),
        }
    }
    fs::rename(scratch.path("kept"), manifest).unwrap();
    ends(&scratch, DONE, "verify --store store");
}

#[test]
fn other_files_that_are_pipes_or_devices_are_not_waited_for() {
    let scratch = store();
    scratch.ok("replicate --store store --to copy");
    let query = "query bees --store store TINY --depth 20";
    for (name, code) in [
        ("replicas.json", DONE),
        ("shards/000000.kv", DONE),
        ("chunks/000000.parquet", DONE),
        ("retired-1.json", DONE),
        ("journal-000003.log", DONE),
    ] {
        let path = scratch.path(&format!("store/{name}"));
        let kept = fs::read(&path).ok();
        for device in [true, false] {
            let _ = fs::remove_file(&path);
            match device {
                true => symlink("/dev/zero", &path).unwrap(),
                false => fifo(&scratch, &format!("store/{name}")),
            }
            let outcome = run(&scratch, query);
            assert!([code, DEGRADED].contains(&outcome.code), "{name}: {}", outcome.stderr);
            assert!([DONE, DAMAGED].contains(&run(&scratch, "verify --store store --deep").code));
            assert!(run(&scratch, "info --store store").code == DONE, "{name}");
        }
        fs::remove_file(&path).unwrap();
        if let Some(bytes) = kept {
            fs::write(&path, bytes).unwrap();
        }
    }
    ends(&scratch, DONE, "verify --store store --deep");
}

#[test]
fn a_lock_that_is_a_link_is_not_written_through() {
    let scratch = store();
    let (lock, other) = (scratch.path("store/lock"), scratch.path("other"));
    let writing = |code, says: &[&str]| {
        for line in ["delete --store store --ids others", "compact --store store"] {
            ends(&scratch, code, line).says(says);
        }
        ends(&scratch, code, &format!("build more.jsonl --append {BUILD}")).says(says);
    };
    fs::write(&other, "another's").unwrap();
    fs::remove_file(&lock).unwrap();
    let refused = ["store/lock", "a symbolic link", "remove it"];
    symlink(&other, &lock).unwrap();
    writing(FAILED, &refused);
    fs::remove_file(&lock).unwrap();
    symlink(scratch.path("new"), &lock).unwrap();
    writing(FAILED, &refused);
    assert!(!scratch.path("new").exists(), "made where the link leads");
    fs::remove_file(&lock).unwrap();
    fifo(&scratch, "store/lock");
    writing(FAILED, &["store/lock", "not a file", "remove it"]);
    // A lock that has a second name locks, and its text stays.
    fs::remove_file(&lock).unwrap();
    fs::hard_link(&other, &lock).unwrap();
    writing(DONE, &[]);
    assert_eq!(fs::read_to_string(&other).unwrap(), "another's");
}

#[test]
fn a_temporary_file_that_is_a_link_is_not_written_through() {
    let scratch = store();
    let other = scratch.path("other");
    fs::write(&other, "another's").unwrap();
    let linked = |store: &str, names: &[&str], hard: bool| {
        for name in names {
            let link = scratch.path(&format!("{store}/{name}.tmp"));
            match hard {
                true => fs::hard_link(&other, link).unwrap(),
                false => symlink(&other, link).unwrap(),
            }
        }
    };
    let kept = |line: &str| {
        ends(&scratch, DONE, line);
        assert_eq!(fs::read_to_string(&other).unwrap(), "another's", "{line}");
    };
    for (hard, first) in [(true, 3), (false, 5)] {
        let (shard, chunks) =
            (format!("shards/{first:06}.kv"), format!("chunks/{first:06}.parquet"));
        linked("store", &[&shard, &chunks, "manifest.json", "replicas.json"], hard);
        let rows = &passages()[10 + first..12 + first];
        scratch.write("more.jsonl", jsonl(rows));
        kept(&format!("build more.jsonl --append {BUILD}"));
        let copy = format!("copy-{hard}");
        fs::create_dir_all(scratch.path(&copy).join("shards")).unwrap();
        fs::create_dir(scratch.path(&copy).join("chunks")).unwrap();
        scratch.write(&format!("{copy}/lock"), "");
        linked(&copy, &["shards/000000.kv", "chunks/000000.parquet", "manifest.json"], hard);
        kept(&format!("replicate --store store --to {copy}"));
        let (shard, chunks) =
            (format!("shards/{:06}.kv", first + 1), format!("chunks/{:06}.parquet", first + 1));
        linked("store", &[&shard, &chunks, "manifest.json"], hard);
        scratch.write("ids", rows[0]["_id"].as_str().unwrap());
        kept("delete --store store --ids ids");
        kept("compact --store store");
    }
    ends(&scratch, DONE, "verify --store store --deep");
}

#[test]
fn a_journal_that_has_another_name_is_replaced_before_it_is_added_to() {
    let scratch = store();
    scratch.write("more.jsonl", jsonl(&passages()[10..24]));
    let line = format!("build more.jsonl --append {BUILD}");
    assert_eq!(scratch.run(&format!("{line} --max-bytes 2200000")).code, FAILED);
    let journal = scratch.path("store/journal-000003.log");
    let before = fs::read(&journal).unwrap();
    assert!(!before.is_empty(), "something is sealed");
    // Like a copy by hard links, which must not change.
    fs::hard_link(&journal, scratch.path("backup")).unwrap();
    ends(&scratch, DONE, &line);
    assert_eq!(fs::read(scratch.path("backup")).unwrap(), before);
}

#[test]
fn a_folder_of_a_store_that_is_a_link_is_read_and_not_written() {
    let scratch = store();
    for name in ["shards", "chunks", "index"] {
        let (folder, elsewhere) = (scratch.path(&format!("store/{name}")), scratch.path(name));
        fs::rename(&folder, &elsewhere).unwrap();
        symlink(&elsewhere, &folder).unwrap();
        scratch.write(&format!("{name}/000099.kv"), "another's");
        ends(&scratch, DONE, "query bees --store store TINY");
        for line in ["delete --store store --ids others", "compact --store store"] {
            let refused = ends(&scratch, FAILED, line);
            refused.says(&[name, "a symbolic link", "make the whole store the link"]);
        }
        ends(&scratch, FAILED, &format!("build more.jsonl --append {BUILD}"));
        assert!(elsewhere.join("000099.kv").exists(), "{name}");
        fs::remove_file(elsewhere.join("000099.kv")).unwrap();
        fs::remove_file(&folder).unwrap();
        fs::rename(&elsewhere, &folder).unwrap();
    }
    // A store that is a link as a whole works like any other.
    symlink(scratch.path("store"), scratch.path("linked")).unwrap();
    ends(&scratch, DONE, "delete --store linked --ids others");
    ends(&scratch, DONE, "compact --store linked");
    ends(&scratch, DONE, "verify --store linked --deep");
}
