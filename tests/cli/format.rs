//! Stores of another version of the format than the one that is written.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use hyperrag_core::Digest;
use serde_json::Value;

use crate::support::{MISMATCH, Scratch, all_files};

/// Returns the bytes of every file below a folder, and the names of its folders.
fn everything(root: PathBuf) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    all_files(&root).into_iter().map(|path| (path.clone(), fs::read(path).ok())).collect()
}

/// Makes a store look like one of version 3, which has fields of its own.
fn make_later(scratch: &Scratch, store: &str) {
    scratch.damage(&format!("{store}/manifest.json"), |bytes| {
        let mut value: Value = serde_json::from_slice(bytes).unwrap();
        let manifest = &mut value["manifest"];
        manifest["fingerprint"]["format_version"] = 3.into();
        manifest["fingerprint"]["heads_a_group"] = 2.into();
        manifest["shelves"] = vec![0, 1].into();
        let body = manifest.to_string();
        let checksum = Digest::of(body.as_bytes());
        *bytes = format!("{{\"checksum\":\"{checksum}\",\"manifest\":{body}}}\n").into_bytes();
    });
    for shard in all_files(&scratch.path(&format!("{store}/shards"))) {
        let mut bytes = fs::read(&shard).unwrap();
        bytes[8] = 3;
        let crc = crc32fast::hash(&bytes[..252]);
        bytes[252..256].copy_from_slice(&crc.to_le_bytes());
        fs::write(shard, bytes).unwrap();
    }
}

const BUILD: &str = "build CORPUS --store store TINY --limit 40 --unit-rows 16";

#[test]
fn a_store_of_a_later_version_is_left_alone_by_every_command() {
    let scratch = Scratch::new();
    scratch.ok(&format!("{BUILD} --replica copy"));
    scratch.ok(&BUILD.replace("--store store", "--store other"));
    make_later(&scratch, "store");
    fs::remove_file(scratch.path("store/lock")).unwrap();
    scratch.write("ids", "p001\n");
    let refused = |lines: &[&str]| {
        let before = ["store", "copy", "other"].map(|name| everything(scratch.path(name)));
        for line in lines {
            let outcome = scratch.ends(MISMATCH, line);
            outcome.says(&["store: the store is of format version 3", "reads versions 1 to "]);
            assert_eq!(outcome.stdout, "", "{line}");
            let after = ["store", "copy", "other"].map(|name| everything(scratch.path(name)));
            assert_eq!(after, before, "{line}");
        }
    };
    refused(&[
        "info --store store",
        "info --store store --json",
        "verify --store store",
        "verify --store store --deep --recompute TINY",
        "repair --store store TINY",
        "repair --store store --dry-run",
        "query --store store TINY bees",
        "query --store store TINY --recompute --queries QUERIES",
        "answer --store store TINY bees",
        "bench --store store TINY --queries QUERIES",
        "delete --store store --ids ids",
        "compact --store store",
        "upgrade --store store TINY",
        "upgrade --store store TINY --dry-run",
        BUILD,
        &format!("{BUILD} --append"),
        &format!("{BUILD} --append --dry-run"),
        "replicate --store store --to copy",
        "replicate --store store --to new",
        "replicate --store other --to store",
    ]);
    assert!(!scratch.path("new").exists());
    // Without a manifest its shards say so.
    for damage in ["cut", "gone"] {
        match damage {
            "cut" => scratch.damage("store/manifest.json", |bytes| bytes.truncate(99)),
            _ => fs::remove_file(scratch.path("store/manifest.json")).unwrap(),
        }
        refused(&[
            "info --store store",
            "verify --store store",
            "repair --store store TINY",
            "delete --store store --ids ids",
            BUILD,
            "replicate --store other --to store",
        ]);
    }
}
