//! `verify`, replicas, and queries that are answered from them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use hyperrag_core::{BlockKey, BlockRead, Fingerprint, KvBlock, ShardId, Slot};
use hyperrag_store::{ShardInput, Store, StoreWriter};
use serde_json::json;

use crate::seeded::Seeded;
use crate::support::{
    DAMAGED, DEGRADED, DONE, FAILED, INTERRUPTED, MISMATCH, Scratch, USAGE, jsonl, note, passages,
    ranked, testdata,
};

const QUERY: &str = "query --store store TINY --json -k 100 honeybees";
/// Query with candidates in every shard.
const QUERIES: &str = "query --store store TINY --json --queries three.tsv --depth 20 -k 20";

fn built() -> Scratch {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store store TINY --unit-rows 64");
    let queries = ["how bees get through cold months", "flat and heavy bread", "time and water"];
    let lines: Vec<_> = (1..).zip(queries).map(|(id, text)| format!("{id}\t{text}\n")).collect();
    scratch.write("three.tsv", lines.concat());
    scratch
}

/// Checks that `copy` has the files of `store`, except those that the last commit of the index does not
/// name.
#[track_caller]
fn same(scratch: &Scratch, copy: &str, store: &str) {
    let (copy, mut store) = (scratch.files(copy), scratch.files(store));
    store.retain(|name, _| !name.starts_with("index") || copy.contains_key(name));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&copy), names(&store));
    let differing: Vec<_> = copy.keys().filter(|name| copy[*name] != store[*name]).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

#[test]
fn a_whole_store_has_no_damage() {
    let scratch = built();
    let table = scratch.ok("verify --store store").stdout;
    assert!(table.starts_with("3 shards, ") && table.contains("no damage"), "{table}");
    let report = &scratch.ok("verify --store store --deep --threads 2 --json").json()[0];
    assert_eq!(
        (&report["damages"], &report["shards"], &report["deep"]),
        (&json!([]), &json!(3), &json!(true))
    );
    let read: u64 = scratch.contents("store").values().map(|bytes| bytes.len() as u64).sum();
    assert!(report["bytes"].as_u64().unwrap() > read * 9 / 10);
    scratch.ends(FAILED, "verify --store nowhere").says(&["there is no store here"]);
}

#[test]
fn every_flipped_byte_is_found_and_named() {
    let scratch = built();
    scratch.ok("replicate --store store --to copy");
    let seed = 5;
    note(&format!("seed {seed}"));
    let mut seeded = Seeded(seed);
    let mut victims = scratch.files("store");
    victims.insert("replicas.json".into(), fs::read(scratch.path("store/replicas.json")).unwrap());
    // It serves tantivy's clean-up only; searches and merges read meta.json.
    victims.remove(&PathBuf::from("index/.managed.json"));
    for (name, bytes) in victims {
        let path = format!("store/{}", name.display());
        for _ in 0..3 {
            // Only a JSON file's final line end may change unnoticed.
            let at = seeded.below(bytes.len().saturating_sub(1).max(1));
            let mut changed = bytes.clone();
            changed[at] ^= 1 << seeded.below(5);
            scratch.write(&path, &changed);
            let found = scratch.run("verify --store store --json");
            let message = format!("seed {seed}: {path} byte {at}: {}", found.stdout);
            assert_eq!(found.code, DAMAGED, "{message}");
            found.says(&["hyperrag repair --store store"]);
            let damages = found.json()[0]["damages"].as_array().unwrap().clone();
            let index = name.starts_with("index");
            let named =
                |file: &str| file == name.to_str().unwrap() || index && file.starts_with("index");
            assert!(damages.iter().all(|d| named(d["file"].as_str().unwrap())), "{message}");
        }
        scratch.write(&path, &bytes);
    }
    scratch.ok("verify --store store --deep");
}

#[test]
fn links_out_of_the_store_are_refused() {
    let scratch = built();
    for name in ["shards/000001.kv", "chunks/000001.parquet"] {
        let path = scratch.path(&format!("store/{name}"));
        fs::rename(&path, scratch.path("elsewhere")).unwrap();
        symlink(scratch.path("elsewhere"), &path).unwrap();
        let found = scratch.ends(DAMAGED, "verify --store store");
        assert!(
            found.stdout.contains(name) && found.stdout.contains("symbolic link"),
            "{}",
            found.stdout
        );
        fs::remove_file(&path).unwrap();
        fs::rename(scratch.path("elsewhere"), &path).unwrap();
    }
}

#[test]
fn an_index_that_lacks_documents_is_found() {
    let scratch = built();
    scratch.ok("build CORPUS --store less TINY --unit-rows 64 --limit 100");
    fs::remove_dir_all(scratch.path("store/index")).unwrap();
    fs::rename(scratch.path("less/index"), scratch.path("store/index")).unwrap();
    let found = scratch.ends(DAMAGED, "verify --store store --deep");
    assert!(found.stdout.contains("it has 100 documents, the store 160"), "{}", found.stdout);
    assert!(found.stdout.contains("is not in it as it is stored"), "{}", found.stdout);
}

#[test]
fn a_replica_is_the_same_and_brought_up_to_date() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..70]));
    let mut broken = jsonl(&passages()[..70]);
    broken.push('{');
    scratch.write("broken.jsonl", broken);
    let build = "--store store TINY --unit-rows 16";
    scratch.ends(FAILED, &format!("build broken.jsonl {build}"));
    let first = &scratch.ok("replicate --store store --to copy --json").json()[0];
    assert_eq!((&first["shards"], &first["shards_copied"]), (&json!(4), &json!(4)));
    same(&scratch, "copy", "store");
    scratch.ok(&format!("build corpus.jsonl {build} --replica copy --replica more"));
    for copy in ["copy", "more"] {
        same(&scratch, copy, "store");
        scratch.ok(&format!("verify --deep --store {copy}"));
    }
    scratch.ok("replicate --store store --to copy").says(&["up to date"]);
    let listed = fs::read_to_string(scratch.path("store/replicas.json")).unwrap();
    assert!(listed.contains("/copy\"") && listed.contains("/more\""), "{listed}");
    // A damaged copy: only a check of every byte finds a changed block, a length shows by itself.
    scratch.damage("copy/shards/000002.kv", |bytes| bytes[6000] ^= 1);
    scratch.damage("copy/shards/000001.kv", |bytes| bytes.truncate(5000));
    scratch.ok("replicate --store store --to copy");
    scratch.ends(DAMAGED, "verify --store copy");
    scratch.ok("replicate --store store --to copy --checksum");
    same(&scratch, "copy", "store");
}

#[test]
fn other_folders_do_not_become_replicas() {
    let scratch = built();
    let to = |folder: &str| scratch.ends(FAILED, &format!("replicate --store store --to {folder}"));
    to("store").says(&["the folder is the store itself"]);
    scratch.write("home/note", "mine");
    to("home").says(&["holds no store"]);
    scratch.ok("build CORPUS --store other TINY --unit-rows 64 --limit 64");
    let before = scratch.files("other");
    to("other").says(&["the folder holds another store"]);
    scratch.ok("build CORPUS --store element TINY --kv-dtype f32 --limit 64");
    to("element").says(&["the folder holds another store"]);
    fs::remove_file(scratch.path("element/manifest.json")).unwrap();
    to("element").says(&["the folder holds another store"]);
    assert!(scratch.files("other") == before);
    // Checked before anything is computed.
    let build = "build CORPUS --store new TINY --replica home";
    scratch.ends(FAILED, build).says(&["holds no store"]);
    assert!(!scratch.path("new").exists());
    // Damaged files are not copied.
    scratch.damage("store/shards/000001.kv", |bytes| bytes[90_000] ^= 1);
    let damaged = scratch.ends(DAMAGED, "replicate --store store --to copy");
    damaged.says(&["store/shards/000001.kv: damaged: block"]);
    assert!(!scratch.path("copy/manifest.json").exists());
}

#[test]
fn an_interrupted_build_leaves_its_replica_with_what_is_sealed() {
    let scratch = Scratch::new();
    let mut rows = Vec::new();
    for time in 0..8 {
        for mut row in passages() {
            row["_id"] = json!(format!("{}-{time}", row["_id"].as_str().unwrap()));
            rows.push(row);
        }
    }
    scratch.write("corpus.jsonl", jsonl(&rows));
    let build = "build corpus.jsonl --store store TINY --unit-rows 16 --replica copy";
    let child = scratch.spawn(build);
    while !scratch.path("store/journal-000001.log").exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let kill = std::process::Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
    assert!(kill.unwrap().success());
    let outcome = scratch.check(build, child.wait_with_output().unwrap());
    assert_eq!(outcome.code, INTERRUPTED, "{}", outcome.stderr);
    same(&scratch, "copy", "store");
    scratch.ok("verify --store copy");
    scratch.ok(build);
    same(&scratch, "copy", "store");
}

#[test]
fn queries_are_answered_from_replicas_with_the_same_scores() {
    let scratch = built();
    let whole = ranked(&scratch.ok(QUERIES));
    scratch.ok("replicate --store store --to copy");
    let intact = scratch.files("store");
    let mut seeded = Seeded(11);
    for (name, bytes) in &intact {
        let mut changed = bytes.clone();
        // Every block, and every kind of file.
        for start in (0..bytes.len()).step_by(4096) {
            let at = start + seeded.below((bytes.len() - start).min(4096));
            changed[at] ^= 1 << seeded.below(5);
        }
        let path = format!("store/{}", name.display());
        scratch.write(&path, &changed);
        for query in [QUERIES.to_owned(), format!("{QUERIES} --recompute")] {
            let answer = scratch.ok(&query);
            assert!(ranked(&answer) == whole, "{path}");
            let read = match query.ends_with("recompute") {
                true => !name.starts_with("shards"),
                false => !name.starts_with("chunks"),
            };
            let answers = answer.json();
            let failovers = answers.iter().map(|a| a["stats"]["failovers"].as_u64().unwrap());
            let failovers: u64 = failovers.sum();
            // These serve the writer, spare a read, or are read once, before any query.
            let spared = name.ends_with(".managed.json")
                || name.ends_with("notes.json")
                || name.extension() == Some("pages".as_ref());
            if read && !spared {
                assert!(failovers > 0, "{path}");
                answer.says(&["warning: ", "read from the replica"]);
            }
        }
        scratch.write(&path, bytes);
    }
    // A block that is damaged in both is computed again.
    scratch.damage("store/shards/000000.kv", |bytes| bytes.truncate(5000));
    fs::remove_file(scratch.path("copy/shards/000000.kv")).unwrap();
    let both = scratch.ends(DEGRADED, QUERY);
    both.says(&["no replica has it intact", "computed again"]);
    assert_eq!(ranked(&both), ranked(&scratch.ok(&format!("{QUERY} --recompute"))));
}

#[test]
fn a_replica_that_is_gone_or_of_no_use_is_a_warning() {
    let scratch = built();
    let whole = ranked(&scratch.ok(QUERY));
    scratch.ok("replicate --store store --to copy");
    fs::rename(scratch.path("copy"), scratch.path("moved")).unwrap();
    let gone = scratch.ok(QUERY);
    gone.says(&["warning: ", "copy: the replica cannot be reached"]);
    assert_eq!(
        (ranked(&gone), gone.json()[0]["stats"]["failovers"].clone()),
        (whole.clone(), json!(0))
    );
    // Another store of the same model in its place serves nothing.
    scratch.write("other.jsonl", jsonl(&passages()[60..]));
    scratch.ok("build other.jsonl --store copy TINY --unit-rows 64");
    scratch.damage("store/shards/000000.kv", |bytes| bytes[300] ^= 1);
    assert_eq!(ranked(&scratch.ends(DEGRADED, QUERY)), whole);
    scratch.damage("store/replicas.json", |bytes| bytes[20] ^= 1);
    let list = scratch.ends(DEGRADED, QUERY);
    list.says(&["replicas.json", "reading goes on without replicas"]);
    assert_eq!(ranked(&list), whole);
}

/// Builds a store in which block 3 of shard 1 has matching checksums but bytes that the model never
/// made, as if by the kernel `kernel`.
pub(crate) fn with_a_wrong_block(scratch: &Scratch, kernel: &str) {
    scratch.ok("build CORPUS --store right TINY --unit-rows 64 --dtype f32");
    let right = Store::open(&scratch.path("right")).unwrap();
    let manifest = right.manifest();
    let fingerprint = Fingerprint { kernel: kernel.to_owned(), ..manifest.fingerprint.clone() };
    let mut writer = StoreWriter::open(&scratch.path("store"), &fingerprint, None).unwrap();
    for record in &manifest.shards {
        let (shard, rows, rows_digest) = (record.shard, record.rows, record.rows_digest);
        let contents = right.chunks(shard).unwrap();
        let unit = ShardInput { shard, rows, rows_digest, contents, replaces: Vec::new() };
        let mut unit_writer = writer.begin(&unit).unwrap();
        for (slot, chunk) in (0..).map(Slot).zip(&unit.contents.chunks) {
            let key = BlockKey { shard, slot, chunk: chunk.id.clone() };
            let block = right.get_many(std::slice::from_ref(&key)).remove(0).unwrap().unwrap();
            let mut kv = block.kv().to_vec();
            if (shard, slot) == (ShardId(1), Slot(3)) {
                kv[100] ^= 1;
            }
            let hidden = block.hidden().to_vec();
            let wrong = KvBlock::new(*block.kv_shape(), block.tokens(), kv, hidden);
            unit_writer.write(slot, &wrong).unwrap();
        }
        unit_writer.seal().unwrap();
    }
    writer.finish().unwrap();
    fs::create_dir(scratch.path("store/index")).unwrap();
    for entry in fs::read_dir(scratch.path("right/index")).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, scratch.path("store/index").join(from.file_name().unwrap())).unwrap();
    }
}

#[test]
fn only_computing_again_finds_a_wrong_block_with_right_checksums() {
    let scratch = Scratch::new();
    with_a_wrong_block(&scratch, hyperrag_model::KERNEL_ID);
    scratch.ok("verify --deep --store store");
    scratch.ok("verify --recompute --store right TINY");
    let found = scratch.ends(DAMAGED, "verify --recompute --store store TINY --json");
    found.says(&["1 damage", "build the store again"]);
    let report = &found.json()[0];
    let damage = &report["damages"][0];
    assert_eq!((&damage["shard"], &damage["slot"]), (&json!(1), &json!(3)), "{report}");
    assert_eq!(report["recomputed"], report["blocks"]);

    let count = |line: &str, code| {
        let report =
            scratch.ends(code, &format!("verify --recompute --store store TINY --json {line}"));
        report.json()[0]["recomputed"].as_u64().unwrap()
    };
    assert_eq!(count("--sample 7", DONE), 7);
    let parts =
        [count("--part 1/3", DONE), count("--part 2/3", DAMAGED), count("--part 3/3", DONE)];
    assert_eq!(Some(parts.iter().sum()), report["blocks"].as_u64());
    scratch.ends(USAGE, "verify --recompute --store store TINY --part 4/3").says(&["1/8"]);
    scratch.ends(USAGE, "verify --store store --sample 3");
    let mut bytes = fs::read(testdata("tiny.gguf")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    scratch.write("other.gguf", bytes);
    scratch
        .ends(MISMATCH, "verify --recompute --store right --model other.gguf")
        .says(&["weights"]);
}
