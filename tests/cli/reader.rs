//! The reader in Python, written from FORMAT.md alone, beside the store's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hyperrag_core::{BlockKey, BlockRead, KvBlock, KvDtype, Slot};
use hyperrag_store::Store;

use crate::seeded::Seeded;
use crate::support::{Scratch, passages};

fn read(store: &Path, dump: Option<&Path>) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(python.exists(), "there is no {}: `make python` installs it", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("scripts/read_store.py")).arg(store);
    command.args(dump.iter().flat_map(|dump| [Path::new("--dump"), dump])).output().unwrap()
}

/// Returns the f32 values of a file that numpy wrote (format 1.0: magic, version, length, description).
fn floats(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let description = String::from_utf8_lossy(&bytes[10..start]);
    assert!(description.contains("'<f4'") && description.contains("False"), "{description}");
    bytes[start..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Returns the values of K and V, in the order of the bytes.
pub(crate) fn decoded(block: &KvBlock) -> Vec<f32> {
    let (kv_dtype, dim) = (block.kv_shape().kv_dtype, block.kv_shape().head_dim as usize);
    let mut row = vec![0.0; dim];
    let rows = block.kv().chunks_exact(kv_dtype.row_bytes(dim)).flat_map(|bytes| {
        kv_dtype.decode(bytes, &mut row);
        row.clone()
    });
    rows.collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Returns K and V of every block as Python reads them. They are checked for the plain element types.
fn compare(root: &Path) -> BTreeMap<(u32, u32), Vec<f32>> {
    let dump = root.with_extension("dump");
    let output = read(root, Some(&dump));
    assert!(output.status.success(), "{output:?}");
    let store = Store::open(root).unwrap();
    let mut found = BTreeMap::new();
    for record in &store.manifest().shards {
        let contents = store.chunks(record.shard).unwrap();
        for (slot, chunk) in (0..).map(Slot).zip(contents.chunks) {
            let key = BlockKey { shard: record.shard, slot, chunk: chunk.id };
            let block = store.get_many(std::slice::from_ref(&key)).remove(0).unwrap().unwrap();
            let name = format!("{}-{}", record.shard, slot.0);
            let kv = floats(&dump.join(format!("{name}.npy")));
            if !block.kv_shape().kv_dtype.is_calibrated() {
                assert_eq!(bits(&kv), bits(&decoded(&block)), "{name}");
            }
            let hidden = floats(&dump.join(format!("{name}-hidden.npy")));
            assert_eq!(bits(&hidden), bits(block.hidden()), "{name}");
            found.insert((record.shard.0, slot.0), kv);
        }
    }
    fs::remove_dir_all(dump).unwrap();
    found
}

#[test]
fn a_reader_made_from_the_description_reads_the_same() {
    let scratch = Scratch::new();
    let mut exact = BTreeMap::new();
    for kv_dtype in [KvDtype::F32, KvDtype::Bf16, KvDtype::Int8, KvDtype::Int5, KvDtype::Int4] {
        let store = format!("store-{kv_dtype}");
        let settings = format!("--limit 20 --unit-rows 16 --kv-dtype {kv_dtype}");
        scratch.ok(&format!("build CORPUS --store {store} TINY {settings}"));
        let found = compare(&scratch.path(&store));
        if kv_dtype == KvDtype::F32 {
            exact = found;
            continue;
        }
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        for (place, values) in &found {
            let right = &exact[place];
            let cosine = dot(values, right) / (dot(values, values) * dot(right, right)).sqrt();
            assert!(cosine > 0.98, "{kv_dtype}, {place:?}: {cosine}");
        }
    }
    scratch.ok("build CORPUS --store store-german TINY --limit 9 --language german");
    compare(&scratch.path("store-german"));
    let ids: Vec<_> =
        passages()[..9].iter().map(|row| row["_id"].as_str().unwrap().to_owned()).collect();
    scratch.write("ids", ids.join("\n"));
    scratch.ok("build CORPUS --store store-bf16 TINY --limit 40 --append");
    scratch.ok("delete --store store-bf16 --ids ids");
    assert_eq!(compare(&scratch.path("store-bf16")).len(), 80);
    scratch.ok("compact --store store-bf16");
    assert!(compare(&scratch.path("store-bf16")).len() < 80);
}

#[test]
fn it_notices_every_damage_too() {
    let scratch = Scratch::new();
    let settings = "--limit 9 --unit-rows 8 --kv-dtype int4";
    scratch.ok(&format!("build CORPUS --store store TINY {settings}"));
    let mut seeded = Seeded(9);
    for (name, bytes) in scratch.files("store") {
        if name.starts_with("index") {
            continue;
        }
        for _ in 0..2 {
            let at = seeded.below(bytes.len() - 1);
            let file = PathBuf::from("store").join(&name);
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            scratch.write(file.to_str().unwrap(), changed);
            let output = read(&scratch.path("store"), None);
            assert_eq!(output.status.code(), Some(4), "{} byte {at}: {output:?}", name.display());
            scratch.write(file.to_str().unwrap(), &bytes);
        }
    }
    assert!(read(&scratch.path("store"), None).status.success());
}
