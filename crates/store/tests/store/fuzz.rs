//! Runs the fuzzers' entry points on changed bytes of a real store, with the present toolchain.

use hyperrag_store::fuzz;

use super::*;
use crate::changed::changes_are_no_panic;

const ROUNDS: u64 = 4000;

/// Entry point that says whether it took the bytes.
type Target = fn(&[u8]) -> bool;

#[test]
fn changed_bytes_are_refused_or_read_without_a_panic() {
    let folder = store(2);
    let root = folder.path();
    let shard = fs::read(shard(root, 0)).unwrap();
    let entries = u32::from_le_bytes(shard[16..20].try_into().unwrap()) as usize;
    let table = [&shard[24..32], &shard[HEADER..HEADER + entries * ENTRY]].concat();
    let journal = fs::read(root.join("journal-000001.log")).unwrap();
    let line = journal.split(|byte| *byte == b'\n').next().unwrap().to_vec();
    let manifest = fs::read_to_string(root.join("manifest.json")).unwrap();
    let at = manifest.find("\"manifest\":").unwrap() + 11;
    let body = &manifest.as_bytes()[at..manifest.trim_end().len() - 1];
    let fixed = hyperrag_core::FixedPositions { first: 1, last: 2 };
    let means = vec![0.5; 4 * small().kv_shape.token_bytes() / 2];
    let calibration = hyperrag_core::Calibration::new(&small().kv_shape, fixed, means).to_bytes();
    let notes = br#"{"model":"/a.gguf","profile":"plain","columns":{"id":"key","title":"t"}}"#;
    let targets: [(&str, Target, &[u8]); 9] = [
        ("header", fuzz::header, &shard[..HEADER]),
        ("table", fuzz::table, &table),
        ("block_header", fuzz::block_header, &shard[4096..4096 + 128]),
        ("manifest", fuzz::manifest, body),
        ("manifest", fuzz::manifest, manifest.as_bytes()),
        ("notes", fuzz::notes, notes),
        ("journal", fuzz::journal, &line[9..]),
        ("calibration", fuzz::calibration, &calibration),
        ("shard", fuzz::shard, &shard),
    ];
    for (name, target, bytes) in targets {
        changes_are_no_panic(name, bytes, ROUNDS, target);
    }
}
