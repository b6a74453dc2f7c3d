//! `repair`: damage of every kind of file, repaired to the same bytes as before.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::seeded::Seeded;
use crate::support::{DAMAGED, FAILED, Outcome, Scratch, jsonl, note, passages, ranked};
use crate::verify::with_a_wrong_block;

const SEED: u64 = 2026;
const BUILD: &str = "build corpus.jsonl --store store TINY --unit-rows 32";
const REPAIR: &str = "repair --store store TINY --unit-rows 32 --json";
const QUERY: &str = "query --store store TINY --json -k 100 honeybees";

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn built() -> (Scratch, Files) {
    note(&format!("seed {SEED}"));
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..80]));
    scratch.ok(BUILD);
    let files = scratch.files("store");
    (scratch, files)
}

/// Checks that the store has these files again, except the index.
#[track_caller]
fn same(scratch: &Scratch, expected: &Files, message: &str) {
    let found = scratch.files("store");
    let kept = |name: &&PathBuf| !name.starts_with("index");
    let names: Vec<_> = found.keys().filter(kept).collect();
    assert_eq!(names, expected.keys().filter(kept).collect::<Vec<_>>(), "{message}");
    let differing: Vec<_> = names.iter().filter(|name| found[**name] != expected[**name]).collect();
    assert!(differing.is_empty(), "{message}: {differing:?}");
}

fn mends(outcome: &Outcome) -> Vec<Value> {
    outcome.json()[0]["mends"].as_array().unwrap().clone()
}

fn flip(scratch: &Scratch, name: &str, seeded: &mut Seeded) -> usize {
    let mut at = 0;
    scratch.damage(&format!("store/{name}"), |bytes| {
        at = seeded.below(bytes.len() - 1);
        bytes[at] ^= 1 << seeded.below(5);
    });
    at
}

#[test]
fn shards_are_computed_again_to_the_same_bytes() {
    let (scratch, whole) = built();
    let mut seeded = Seeded(SEED);
    let shard = |number: usize| format!("shards/{number:06}.kv");
    for round in 0..12 {
        let name = shard(round % 3);
        let at = flip(&scratch, &name, &mut seeded);
        let message = format!("{name} byte {at}");
        let outcome = scratch.ok(REPAIR);
        assert_eq!(mends(&outcome).len(), 1, "{message}");
        let computed = outcome.json()[0]["blocks_computed"].as_u64().unwrap();
        assert!(computed <= 1, "{message}: {computed} blocks");
        same(&scratch, &whole, &message);
    }
    // Header, table, padding after the table: nothing has to be computed.
    for at in [4, 20, 100, 300, 4095] {
        scratch.damage(&format!("store/{}", shard(0)), |bytes| bytes[at] ^= 1);
        assert_eq!(scratch.ok(REPAIR).json()[0]["blocks_computed"], 0, "byte {at}");
        same(&scratch, &whole, "top");
    }
    let damages: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes.truncate(200_000), |bytes| bytes.clear(), |bytes| bytes.extend([0; 4096])];
    for change in damages {
        scratch.damage(&format!("store/{}", shard(1)), change);
        scratch.ok(REPAIR);
        same(&scratch, &whole, "length");
    }
    let path = scratch.path("store").join(shard(2));
    fs::rename(&path, scratch.path("elsewhere")).unwrap();
    symlink(scratch.path("elsewhere"), &path).unwrap();
    scratch.ok(REPAIR);
    assert!(!path.is_symlink());
    fs::remove_file(&path).unwrap();
    let outcome = scratch.ok(REPAIR);
    assert!(outcome.json()[0]["blocks_computed"].as_u64().unwrap() > 10);
    same(&scratch, &whole, "lost");
    scratch.ok("verify --store store --deep");
    assert_eq!(scratch.ok("repair --store store").stdout, "no damage\n");
}

#[test]
fn the_plan_is_printed_and_nothing_written() {
    let (scratch, whole) = built();
    scratch.damage("store/shards/000001.kv", |bytes| bytes[100_000] ^= 1);
    scratch.damage("store/shards/000002.kv", |bytes| bytes.truncate(5000));
    scratch.damage("store/chunks/000000.parquet", |bytes| bytes[1000] ^= 1);
    let damaged = scratch.files("store");
    let plan = scratch.ends(DAMAGED, "repair --store store --dry-run");
    for part in ["plan", "1 of ", "blocks computed again", "build the store again"] {
        assert!(plan.stdout.contains(part), "{part}: {}", plan.stdout);
    }
    plan.says(&["store: 1 damaged file is left"]);
    assert!(scratch.files("store") == damaged);
    // Everything that can be repaired is, whatever is left; without a model that is said.
    let other = scratch.ends(DAMAGED, "repair --store store --json --model nowhere.gguf");
    assert!(other.stdout.contains("the model is needed for it"), "{}", other.stdout);
    assert!(scratch.files("store") == damaged);
    let outcome = scratch.ends(DAMAGED, REPAIR);
    let mended: Vec<_> = mends(&outcome).iter().map(|mend| mend["mended"].clone()).collect();
    assert_eq!(mended, [json!(false), json!(true), json!(true)]);
    scratch.write("store/chunks/000000.parquet", &whole[&PathBuf::from("chunks/000000.parquet")]);
    same(&scratch, &whole, "all but the chunk file");
    scratch.ends(FAILED, "repair --store nowhere").says(&["there is no store here"]);
}

#[test]
fn another_model_does_not_mend() {
    let (scratch, _) = built();
    let mut other = fs::File::create(scratch.path("other.gguf")).unwrap();
    hyperrag_model::testing::tiny::write(1, &mut other).unwrap();
    scratch.damage("store/shards/000001.kv", |bytes| bytes[100_000] ^= 1);
    let damaged = scratch.files("store");
    let outcome = scratch.ends(DAMAGED, "repair --store store --model other.gguf");
    assert!(outcome.stdout.contains("the store was made with weights"), "{}", outcome.stdout);
    assert!(scratch.files("store") == damaged);
}

#[test]
fn another_kernel_mends_with_a_note() {
    let scratch = Scratch::new();
    with_a_wrong_block(&scratch, "other-v1");
    let whole = scratch.files("store");
    let manifest = || -> Value {
        serde_json::from_slice(&scratch.files("store")[&PathBuf::from("manifest.json")]).unwrap()
    };
    let generation = |manifest: &Value| manifest["manifest"]["generation"].as_u64().unwrap();
    let damage = |shard: usize, slot: usize| {
        scratch.damage(&format!("store/shards/{shard:06}.kv"), |bytes| {
            let entry = 256 + 64 * slot + 32;
            let block = u64::from_le_bytes(bytes[entry..entry + 8].try_into().unwrap());
            bytes[block as usize + 500] ^= 1;
        });
    };
    // A block that is the same with both kernels needs no note.
    damage(0, 5);
    let repair = "repair --store store TINY --device cpu --json";
    scratch.ok(repair);
    assert!(scratch.files("store") == whole);

    damage(1, 3);
    let damaged = scratch.files("store");
    scratch.ok(&format!("{repair} --dry-run"));
    assert!(scratch.files("store") == damaged);
    let before = generation(&manifest());
    let outcome = scratch.ok(repair);
    let how = mends(&outcome)[0]["how"].as_str().unwrap().to_owned();
    for part in ["1 of ", "by cpu-f32-v1", "kernel other-v1", "a new checksum", "within 0.02"] {
        assert!(how.contains(part), "{part}: {how}");
    }
    let now = manifest();
    assert_eq!(generation(&now), before + 1);
    let notes: Vec<_> =
        (0..3).map(|shard| now["manifest"]["shards"][shard]["mended_by"].clone()).collect();
    assert_eq!(notes, [json!(null), json!("cpu-f32-v1"), json!(null)]);
    assert!(scratch.files("store").keys().eq(whole.keys()));
    scratch.ok("verify --deep --store store");
    let info = scratch.ok("info --store store").stdout;
    assert!(info.contains("1 shard by another kernel, cpu-f32-v1"), "{info}");
    let right = ranked(&scratch.ok(&QUERY.replace("--store store", "--store right")));
    assert_eq!(ranked(&scratch.ok(QUERY)), right);

    // The remaining blocks keep it when they are compacted.
    scratch.write("ids", passages()[70]["_id"].as_str().unwrap());
    scratch.ok("delete --store store --ids ids");
    scratch.ok("compact --store store");
    let shards = manifest()["manifest"]["shards"].as_array().unwrap().clone();
    assert_eq!(shards.len(), 3);
    assert_eq!(shards[2]["mended_by"], "cpu-f32-v1", "{shards:?}");
}

#[test]
fn replicas_mend_every_file() {
    let (scratch, whole) = built();
    scratch.ok("replicate --store store --to copy");
    let mut seeded = Seeded(SEED);
    for name in whole.keys().filter(|name| !name.starts_with("index")) {
        let name = name.to_str().unwrap();
        let at = flip(&scratch, name, &mut seeded);
        // No model: none is needed.
        let outcome = scratch.ok("repair --store store --model none --json");
        let how = mends(&outcome)[0]["how"].as_str().unwrap().to_owned();
        assert!(how.contains("from the replica") && how.contains("/copy"), "{name} {at}: {how}");
        same(&scratch, &whole, &format!("{name} byte {at}"));
    }
    // In a shard that is damaged in both, the intact blocks here are kept.
    for store in ["store", "copy"] {
        scratch.damage(&format!("{store}/shards/000000.kv"), |bytes| bytes[100_000] ^= 1);
    }
    assert_eq!(scratch.ok(REPAIR).json()[0]["blocks_computed"], 1);
    same(&scratch, &whole, "both");
    scratch.damage("store/replicas.json", |bytes| bytes[20] ^= 1);
    let list = scratch.ends(DAMAGED, REPAIR);
    assert!(list.stdout.contains("name the replicas again"), "{}", list.stdout);
    scratch.ok("replicate --store store --to copy");
    scratch.ok("verify --store store");
}

#[test]
fn an_index_is_made_anew() {
    let (scratch, whole) = built();
    let expected = ranked(&scratch.ok(QUERY));
    let mut seeded = Seeded(SEED);
    let names = whole.keys().filter(|name| name.starts_with("index"));
    for name in names.filter(|name| !name.ends_with(".managed.json")) {
        let path = scratch.path("store").join(name);
        if !path.exists() {
            continue; // The index that was made anew has files of other names.
        }
        flip(&scratch, name.to_str().unwrap(), &mut seeded);
        let outcome = scratch.ok(REPAIR);
        assert_eq!(mends(&outcome)[0]["file"], "index");
        assert_eq!(ranked(&scratch.ok(QUERY)), expected);
    }
    fs::remove_dir_all(scratch.path("store/index")).unwrap();
    scratch.ok(REPAIR);
    assert_eq!(ranked(&scratch.ok(QUERY)), expected);
    scratch.ok("verify --store store --deep");
    same(&scratch, &whole, "index");
}

#[test]
fn a_manifest_is_made_again() {
    let (scratch, whole) = built();
    let mut seeded = Seeded(SEED);
    for _ in 0..40 {
        let at = flip(&scratch, "manifest.json", &mut seeded);
        scratch.ends(DAMAGED, "verify --store store");
        scratch.ok(REPAIR);
        same(&scratch, &whole, &format!("manifest.json byte {at}"));
    }
    // A lost manifest is known by its announcement.
    fs::remove_file(scratch.path("store/manifest.json")).unwrap();
    scratch.ok(REPAIR);
    same(&scratch, &whole, "lost");
    // Without that, it is unknown whether the store is complete; a build finds out.
    for name in ["manifest.json", "generation"] {
        fs::remove_file(scratch.path("store").join(name)).unwrap();
    }
    let wrong = scratch.ends(DAMAGED, "repair --store store TINY --unit-rows 31");
    assert!(wrong.stdout.contains("--unit-rows and --language as for its"), "{}", wrong.stdout);
    let refused = scratch.ends(DAMAGED, REPAIR);
    assert!(refused.stdout.contains("--accept-older"), "{}", refused.stdout);
    let outcome = scratch.ok(&format!("{REPAIR} --accept-older"));
    assert!(outcome.stdout.contains("by the same `hyperrag build`"), "{}", outcome.stdout);
    assert!(!ranked(&scratch.ok(QUERY))[0].1.is_empty());
    scratch.ok(BUILD);
    same(&scratch, &whole, "lost");
}

#[test]
fn damaged_texts_are_not_taken_for_what_was_written() {
    let (scratch, whole) = built();
    let mut seeded = Seeded(SEED);
    let mut refused = 0;
    for _ in 0..60 {
        scratch.damage("store/manifest.json", |bytes| bytes[200] ^= 1);
        let at = flip(&scratch, "chunks/000002.parquet", &mut seeded);
        let outcome = scratch.run(REPAIR);
        match outcome.code {
            // The index still has the original texts.
            0 => drop(scratch.ok("verify --store store --deep")),
            _ => {
                assert_eq!(outcome.code, DAMAGED, "byte {at}");
                let how = mends(&outcome)[0]["how"].as_str().unwrap().to_owned();
                // A manifest made from other texts is not the lost one.
                let known = ["000002.parquet", "--accept-older"];
                assert!(known.iter().any(|part| how.contains(part)), "byte {at}: {how}");
                refused += usize::from(how.contains("its texts cannot be shown"));
            }
        }
        for (name, bytes) in &whole {
            scratch.write(&format!("store/{}", name.display()), bytes);
        }
        let _ = fs::remove_file(scratch.path("store/journal-000001.log"));
    }
    assert!(refused > 0, "no text was damaged");
}

#[test]
fn rows_without_text_are_known_from_the_shards() {
    let scratch = Scratch::new();
    let mut rows = passages()[..40].to_vec();
    for row in [3, 39] {
        (rows[row]["title"], rows[row]["text"]) = (json!(""), json!(""));
    }
    scratch.write("corpus.jsonl", jsonl(&rows));
    scratch.ok(BUILD);
    let whole = scratch.files("store");
    // The number of the last generation, which only the checksum confirms.
    scratch.damage("store/manifest.json", |bytes| {
        let at = bytes.windows(12).position(|part| part == b"\"generation\"").unwrap();
        bytes[at + 13] = b'7';
    });
    scratch.ok(REPAIR);
    same(&scratch, &whole, "generation");
    fs::remove_file(scratch.path("store/manifest.json")).unwrap();
    scratch.ok(REPAIR);
    same(&scratch, &whole, "no manifest");
}

#[test]
fn a_journal_is_made_again() {
    let scratch = Scratch::new();
    let mut rows = jsonl(&passages()[..70]);
    rows.push('{');
    scratch.write("corpus.jsonl", rows);
    scratch.ends(FAILED, BUILD);
    let whole = scratch.files("store");
    let mut seeded = Seeded(SEED);
    for round in 0..20 {
        let name = if round % 4 == 3 { "manifest.json" } else { "journal-000001.log" };
        let at = flip(&scratch, name, &mut seeded);
        scratch.ends(DAMAGED, "verify --store store");
        scratch.ok(REPAIR);
        same(&scratch, &whole, &format!("{name} byte {at}"));
    }
    scratch.write("corpus.jsonl", jsonl(&passages()[..80]));
    scratch.ok(BUILD);
    scratch.ok("verify --store store --deep");
}

/// Repairs a store without a manifest. Nothing states the type in which it was computed, but the
/// headers identify the right one when it is tried.
#[test]
fn a_lost_manifest_is_made_again_in_the_type_of_the_store() {
    for dtype in ["f32", "bf16", "int8"] {
        let scratch = Scratch::new();
        scratch.write("corpus.jsonl", jsonl(&passages()[..40]));
        scratch.ok(&format!("{BUILD} --dtype {dtype} --device cpu"));
        let whole = scratch.files("store");
        fs::remove_file(scratch.path("store/manifest.json")).unwrap();
        scratch.ok(REPAIR);
        scratch.ok(BUILD);
        same(&scratch, &whole, dtype);
    }
}
