//! Stores whose bytes changed after they were written, stores of another model, full disks.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{DAMAGED, DEGRADED, FAILED, MISMATCH, Scratch, contents, note, ranked};

const QUERY: &str = "query --store store TINY --json -k 100 honeybees";

fn built() -> Scratch {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store store TINY");
    scratch
}

/// Changes a byte of K and V in the first block, which is that of document p001 (see FORMAT.md).
fn damage_first_block(shard: &mut [u8]) {
    let number = |at: usize| u32::from_le_bytes(shard[at..at + 4].try_into().unwrap()) as usize;
    let (block, head) = (number(256 + 32), number(256 + 52));
    shard[block + head + 100] ^= 0x10;
}

#[test]
fn a_damaged_block_is_computed_again_to_the_same_score() {
    let scratch = built();
    let whole = scratch.ok(QUERY);
    assert!(ranked(&whole)[0].1.iter().any(|(id, _)| id == "p001"));
    scratch.damage("store/shards/000000.kv", |bytes| damage_first_block(bytes));
    let damaged = scratch.ends(DEGRADED, QUERY);
    damaged.says(&["warning: ", "000000.kv", "p001", "computed again"]);
    assert_eq!(ranked(&damaged), ranked(&whole));
    assert_eq!(damaged.json()[0]["stats"]["blocks_recomputed"], 1);
    scratch.write("q.tsv", "1\thoneybees\n");
    let bench = scratch.ends(DEGRADED, "bench --store store TINY --json --queries q.tsv");
    assert!(bench.json()[0]["damaged_blocks"].as_u64().unwrap() > 0);
    assert_eq!(bench.json()[0]["comparisons"][0]["bit_equal"], true);
}

#[test]
fn a_damaged_block_ends_the_query_or_is_left_out_where_asked() {
    let scratch = built();
    let whole = ranked(&scratch.ok(QUERY));
    for on_damage in ["recompute", "fail", "skip"] {
        let query = format!("{QUERY} --on-damage {on_damage}");
        assert_eq!(ranked(&scratch.ok(&query)), whole, "{on_damage}");
    }
    scratch.damage("store/shards/000000.kv", |bytes| damage_first_block(bytes));
    let fail = scratch.ends(DAMAGED, &format!("{QUERY} --on-damage fail"));
    fail.says(&["000000.kv: block 0", "chunk 0 of document p001", "hyperrag repair"]);
    assert_eq!(fail.stdout, "");
    // A batch ends too.
    scratch.write("q.tsv", "1\thoneybees\n2\tbread\n");
    let batch = "query --store store TINY --json --queries q.tsv --on-damage";
    scratch.ends(DAMAGED, &format!("{batch} fail")).says(&["query 1"]);
    let skip = scratch.ends(DEGRADED, &format!("{QUERY} --on-damage skip"));
    skip.says(&["warning: ", "000000.kv", "the block of chunk 0 of document p001 was left out"]);
    let stats = &skip.json()[0]["stats"];
    assert_eq!((&stats["blocks_skipped"], &stats["blocks_recomputed"]), (&1.into(), &0.into()));
    // The document counts by its best other chunk; the others keep their scores.
    let others = |mut ranked: Vec<(String, Vec<(String, u32)>)>| {
        ranked[0].1.retain(|(id, _)| id != "p001");
        ranked
    };
    assert_eq!(others(ranked(&skip)), others(whole));
    let hits = &skip.json()[0]["hits"];
    let first = hits.as_array().unwrap().iter().find(|hit| hit["id"] == "p001").unwrap();
    assert!(first["chunk"].as_u64().unwrap() > 0, "{first}");
    scratch.damage("store/shards/000000.kv", |bytes| bytes.truncate(5000));
    let none = scratch.ends(DEGRADED, &format!("{QUERY} --on-damage skip"));
    assert_eq!(none.json()[0]["hits"], serde_json::json!([]));
}

#[test]
fn a_lost_shard_is_computed_again_to_the_same_scores() {
    let scratch = built();
    let whole = scratch.ok(QUERY);
    scratch.damage("store/shards/000000.kv", |bytes| bytes.truncate(5000));
    let damaged = scratch.ends(DEGRADED, QUERY);
    damaged.says(&["000000.kv"]);
    assert_eq!(ranked(&damaged), ranked(&whole));
    fs::remove_file(scratch.path("store/shards/000000.kv")).unwrap();
    assert_eq!(ranked(&scratch.ends(DEGRADED, QUERY)), ranked(&whole));
}

#[test]
fn what_cannot_be_computed_again_is_damage() {
    let scratch = built();
    scratch.damage("store/chunks/000000.parquet", |bytes| bytes[1000] ^= 1);
    scratch.ok(QUERY);
    scratch.ends(DAMAGED, &format!("{QUERY} --recompute")).says(&["000000.parquet"]);
    scratch.damage("store/shards/000000.kv", |bytes| damage_first_block(bytes));
    scratch.ends(DAMAGED, QUERY).says(&["p001", "000000.kv", "000000.parquet"]);
}

#[test]
fn a_damaged_manifest_is_refused() {
    let scratch = built();
    let whole = fs::read(scratch.path("store/manifest.json")).unwrap();
    let lines = [
        QUERY,
        "info --store store",
        "bench --store store TINY",
        "build CORPUS --store store TINY",
    ];
    let contents = scratch.contents("store");
    for line in lines {
        scratch.damage("store/manifest.json", |bytes| bytes[whole.len() / 2] ^= 1);
        scratch.ends(DAMAGED, line).says(&["manifest.json"]);
        scratch.write("store/manifest.json", &whole);
    }
    fs::remove_file(scratch.path("store/manifest.json")).unwrap();
    for line in lines {
        scratch.ends(DAMAGED, line).says(&["manifest.json", "missing"]);
    }
    assert_eq!(scratch.contents("store"), contents);
}

#[test]
fn a_damaged_index_is_refused() {
    let scratch = built();
    let files = crate::support::all_files(&scratch.path("store/index"));
    let store = files.iter().find(|path| path.extension().is_some_and(|e| e == "store")).unwrap();
    let whole = fs::read(store).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 1;
    fs::write(store, bytes).unwrap();
    scratch.ends(DAMAGED, QUERY).says(&["index", "damaged"]);
    for length in [0, 3, 5, 8, 20, whole.len() - 4] {
        fs::write(store, &whole[..length]).unwrap();
        scratch.ends(DAMAGED, QUERY).says(&["index", "damaged"]);
        // A length of the footer that the file does not have.
        let mut bytes = whole[..length.max(12)].to_vec();
        let at = bytes.len() - 8;
        bytes[at..at + 4].copy_from_slice(&40_000_u32.to_le_bytes());
        bytes[at + 4..].copy_from_slice(&whole[whole.len() - 4..]);
        fs::write(store, &bytes).unwrap();
        scratch.ends(DAMAGED, QUERY).says(&["index", "damaged"]);
    }
    fs::write(store, whole).unwrap();
    scratch.ok(QUERY);
}

#[test]
fn an_index_that_lacks_documents_is_refused() {
    let scratch = built();
    // A stopped repair leaves an index like this.
    scratch.ok("build CORPUS --store part TINY --limit 20");
    for path in crate::support::all_files(&scratch.path("store/index")) {
        fs::remove_file(path).unwrap();
    }
    for path in crate::support::all_files(&scratch.path("part/index")) {
        fs::copy(&path, scratch.path("store/index").join(path.file_name().unwrap())).unwrap();
    }
    let refused = scratch.ends(DAMAGED, QUERY);
    refused.says(&["it has 20 documents, the store 160", "hyperrag repair"]);
    assert_eq!(refused.stdout, "");
    scratch.ok("repair --store store TINY");
    scratch.ok(QUERY);
}

#[test]
fn a_store_of_another_model_is_refused() {
    let scratch = built();
    let mut other = fs::File::create(scratch.path("other.gguf")).unwrap();
    hyperrag_model::testing::tiny::write(1, &mut other).unwrap();
    let contents = scratch.contents("store");
    for line in [
        "query --store store --model other.gguf bees",
        "bench --store store --model other.gguf",
        "build CORPUS --store store --model other.gguf",
    ] {
        scratch.ends(MISMATCH, line).says(&["store was made with weights"]);
    }
    let profile = "query --store store TINY --profile plain bees";
    scratch.ends(MISMATCH, profile).says(&["store was made with profile chat, in use is plain"]);
    let kv_dtype = "build CORPUS --store store TINY --kv-dtype f32";
    scratch.ends(MISMATCH, kv_dtype).says(&["store was made with element bf16, in use is f32"]);
    assert_eq!(scratch.contents("store"), contents);
}

/// A file system of a few megabytes, unmounted when dropped.
pub(crate) struct Mount<'a>(pub(crate) &'a Path);

impl Mount<'_> {
    pub(crate) fn mount(&self, options: &str) -> bool {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(self.0);
        command.output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).output();
    }
}

#[test]
fn a_full_disk_keeps_what_was_sealed() {
    let scratch = Scratch::new();
    let folder = scratch.path("small");
    fs::create_dir(&folder).unwrap();
    scratch.ok("build CORPUS --store whole TINY --unit-rows 8");
    // Full at different moments of a unit.
    for kilobytes in [200, 400, 1500, 2000, 3000, 3100, 3300] {
        let mount = Mount(&folder);
        if !mount.mount(&format!("size={kilobytes}k")) {
            note("not checked: this user cannot mount a tmpfs");
            return;
        }
        let line = "build CORPUS --store small/store TINY --unit-rows 8";
        let full = scratch.ends(FAILED, line);
        full.says(&["disk is full", "run the same command again"]);
        match kilobytes {
            200 => full.says(&["bytes are free and the next unit needs"]),
            1500 => full.says(&["warning: small/store", "the build will need about"]),
            _ => {}
        }
        if folder.join("store/manifest.json").exists() {
            let info = &scratch.ok("info --store small/store --json").json()[0];
            assert!(kilobytes < 2000 || !info["shards"].as_array().unwrap().is_empty());
        }
        scratch.ends(FAILED, line).says(&["disk is full"]);
        assert!(mount.mount("remount,size=200m"));
        scratch.ok(line);
        assert_eq!(contents(&folder.join("store")), scratch.contents("whole"), "{kilobytes} kB");
    }
}
