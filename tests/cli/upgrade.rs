//! Stores brought to the present version of the format, and permitted changes of a model's files.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use hyperrag_model::testing::tiny;
use hyperrag_store::FORMAT_VERSION;

use crate::golden_store::{golden, payloads};
use crate::support::{DONE, FAILED, MISMATCH, Scratch, ranked, testdata};

const QUERY: &str =
    "query --store store --device cpu --json --queries queries.jsonl --depth 9 -k 9";
const UPGRADE: &str = "upgrade --store store TINY";

/// Writes the tiny model to a file of another name, with bytes behind its tensors.
fn same_model_other_file(scratch: &Scratch) -> String {
    let mut bytes = fs::read(testdata("tiny.gguf")).unwrap();
    bytes.extend([0; 7]);
    scratch.write("same.gguf", bytes);
    "--model same.gguf".to_owned()
}

#[test]
fn an_upgraded_store_holds_the_same_and_takes_the_model_from_other_files() {
    let scratch = golden(1);
    let (root, tiny) = (scratch.path("store"), format!("{QUERY} TINY"));
    let (before, blocks) = (ranked(&scratch.ok(&tiny)), payloads(&root));
    let same = same_model_other_file(&scratch);
    scratch.ends(MISMATCH, &format!("{QUERY} {same}")).says(&[
        "made with weights",
        "format version 1",
        "name that file with --model",
        "hyperrag upgrade",
    ]);
    let files = scratch.files("store");
    let plan = scratch.ok(&format!("{UPGRADE} --dry-run --json")).json().remove(0);
    assert_eq!((&plan["from"], &plan["to"]), (&1.into(), &FORMAT_VERSION.into()));
    assert_eq!((&plan["shards"], &plan["blocks"]), (&2.into(), &3.into()));
    assert!(plan["bytes_needed"].as_u64().unwrap() > 81_920, "{plan}");
    scratch
        .ends(MISMATCH, &format!("upgrade --store store {same}"))
        .says(&["made with weights", "the very file that it was made with"]);
    let mut other = fs::File::create(scratch.path("other.gguf")).unwrap();
    tiny::write(1, &mut other).unwrap();
    scratch.ends(MISMATCH, "upgrade --store store --model other.gguf");
    assert_eq!(scratch.files("store"), files, "nothing was written");

    scratch.ok(UPGRADE).says(&["version 1 became version 2", "2 shards with 3 blocks"]);
    assert_eq!(payloads(&root), blocks);
    assert_eq!(scratch.contents("store").len(), 4, "the former files are gone");
    let info = scratch.ok("info --store store --json").json().remove(0);
    assert_eq!(info["fingerprint"]["format_version"], FORMAT_VERSION);
    for model in ["TINY", &same] {
        scratch.ok(&format!("verify --deep --recompute --store store --device cpu {model}"));
        assert_eq!(ranked(&scratch.ok(&format!("{QUERY} {model}"))), before);
        assert_eq!(ranked(&scratch.ok(&format!("{QUERY} {model} --recompute"))), before);
    }
    scratch.ends(MISMATCH, &format!("{QUERY} --model other.gguf")).says(&["made with weights"]);
    let upgraded = scratch.files("store");
    scratch.ok(UPGRADE).says(&["nothing to do"]);
    assert_eq!(scratch.files("store"), upgraded);
    // It continues like any other.
    scratch.write("more.jsonl", "{\"_id\": \"new\", \"text\": \"a river of new bees\"}\n");
    scratch.ok(&format!(
        "build more.jsonl --append --store store {same} --profile plain --device cpu"
    ));
    scratch.write("ids", "hive\n");
    scratch.ok("delete --store store --ids ids");
    scratch.ok("compact --store store");
    scratch.ok(&format!("verify --deep --recompute --store store --device cpu {same}"));
    scratch.damage("store/shards/000004.kv", |bytes| bytes[5000] ^= 1);
    scratch.ok(&format!("repair --store store --device cpu {same}"));
    scratch.ok("verify --deep --store store");
}

#[test]
fn what_is_deleted_stays_so_and_replicas_are_brought_up() {
    let scratch = golden(1);
    scratch.write("ids", "hive\n");
    scratch.ok("delete --store store --ids ids");
    scratch.ok("replicate --store store --to copy");
    let query = format!("{QUERY} TINY");
    let before = ranked(&scratch.ok(&query));
    scratch.ok(UPGRADE).says(&["hyperrag replicate --store store --to ", "copy"]);
    assert_eq!(ranked(&scratch.ok(&query)), before);
    // Until then the copy serves nothing wrong.
    assert!(!scratch.path("copy/shards/000002.kv").exists());
    let replicate = "replicate --store store --to copy";
    scratch.ok(replicate).says(&["copied", "the replica has 2"]);
    scratch.ok(replicate).says(&["up to date"]);
    assert_eq!(scratch.contents("copy"), scratch.contents("store"));
    for shard in ["000002", "000003"] {
        let rest = |bytes: &mut Vec<u8>| bytes[5000..].iter_mut().for_each(|byte| *byte ^= 1);
        scratch.damage(&format!("store/shards/{shard}.kv"), rest);
    }
    let answered = scratch.ok(&query);
    assert_eq!(ranked(&answered), before);
    answered.says(&["read from the replica"]);
    scratch.ok("repair --store store");
    scratch.ok("compact --store store");
    scratch.ok("verify --deep --store store");
    assert_eq!(ranked(&scratch.ok(&query)), before);
}

#[test]
fn a_damaged_or_unfinished_store_is_not_upgraded() {
    let scratch = golden(1);
    let whole = scratch.files("store");
    for (file, at) in [
        ("shards/000001.kv", 300),
        ("shards/000001.kv", 4200),
        ("shards/000001.kv", 5000),
        ("shards/000001.kv", 27_000),
        ("chunks/000001.parquet", 700),
    ] {
        let name = format!("store/{file}");
        scratch.damage(&name, |bytes| bytes[at] ^= 1);
        let damaged = scratch.files("store");
        scratch.ends(crate::support::DAMAGED, UPGRADE).says(&[file, "damaged"]);
        assert_eq!(scratch.files("store"), damaged, "{file} {at}");
        scratch.damage(&name, |bytes| bytes[at] ^= 1);
    }
    assert_eq!(scratch.files("store"), whole);
    scratch.write("journal", "");
    fs::copy(scratch.path("journal"), scratch.path("store/journal-000002.log")).unwrap();
    scratch.ok(UPGRADE);
    scratch.ok("verify --deep --store store");
}

#[test]
fn killed_at_any_moment_nothing_is_lost() {
    let scratch = golden(1);
    let query = format!("{QUERY} TINY");
    let (before, blocks) = (ranked(&scratch.ok(&query)), payloads(&scratch.path("store")));
    for wait in (0..60).step_by(4) {
        let mut child = scratch.spawn(UPGRADE);
        sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        let ended = child.wait().unwrap().code();
        assert!(ended.is_none() || ended == Some(DONE), "{ended:?}");
        assert_eq!(payloads(&scratch.path("store")), blocks, "after {wait} ms");
    }
    // The next change removes the remains of a kill.
    scratch.ok(UPGRADE);
    scratch.ok("verify --deep --store store");
    assert_eq!(ranked(&scratch.ok(&query)), before);
    scratch.ends(FAILED, "upgrade --store nowhere TINY").says(&["there is no store here"]);
}
