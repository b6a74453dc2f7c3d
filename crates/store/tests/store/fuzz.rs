//! The fuzzers' entry points on changed bytes of a real store, for the toolchain at hand.

use hyperrag_store::fuzz;

use super::*;

const ROUNDS: u64 = 3000;

/// Whether bytes are taken.
type Target = fn(&[u8]) -> bool;

/// `bytes` with one to four changes: a flip, another byte, a run of one byte, a cut, an insertion, a
/// piece moved.
fn changed(bytes: &[u8], seeded: &mut Seeded) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..1 + seeded.next() % 4 {
        let length = changed.len() as u64;
        if length == 0 {
            break;
        }
        let at = (seeded.next() % length) as usize;
        let run = (seeded.next() % 40 + 1) as usize;
        let end = (at + run).min(changed.len());
        match seeded.next() % 6 {
            0 => changed[at] ^= 1 << (seeded.next() % 8),
            1 => changed[at] = seeded.next() as u8,
            2 => changed[at..end].fill([0, 0xff, b'9', b'"'][(seeded.next() % 4) as usize]),
            3 => changed.truncate(at),
            4 => {
                let piece: Vec<u8> = (0..run).map(|_| seeded.next() as u8).collect();
                changed.splice(at..at, piece);
            }
            _ => {
                let piece = changed[at..end].to_vec();
                let to = (seeded.next() % length) as usize;
                changed.splice(to..to, piece);
            }
        }
    }
    changed
}

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
    let fixed = hyperrag_kv::FixedPositions { first: 1, last: 2 };
    let means = vec![0.5; 4 * small().geometry.token_bytes() / 2];
    let calibration = hyperrag_kv::Calibration::new(&small().geometry, fixed, means).to_bytes();
    let targets: [(&str, Target, &[u8]); 8] = [
        ("header", fuzz::header, &shard[..HEADER]),
        ("table", fuzz::table, &table),
        ("head", fuzz::head, &shard[4096..4096 + 128]),
        ("manifest", fuzz::manifest, body),
        ("manifest with checksum", fuzz::manifest, manifest.as_bytes()),
        ("journal", fuzz::journal, &line[9..]),
        ("calibration", fuzz::calibration, &calibration),
        ("shard", fuzz::shard, &shard),
    ];
    // Where a fuzzer wants its seeds.
    if let Some(folder) = std::env::var_os("FUZZ_SEEDS").map(PathBuf::from) {
        for (name, _, bytes) in &targets {
            let folder = folder.join(name.split(' ').next().unwrap());
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("{}-bytes", bytes.len())), bytes).unwrap();
        }
    }
    for (number, (name, target, bytes)) in targets.into_iter().enumerate() {
        assert!(target(bytes), "{name}: the seed is taken");
        let mut seeded = Seeded(number as u64);
        for round in 0..ROUNDS {
            let hostile = changed(bytes, &mut seeded);
            let ended = std::panic::catch_unwind(|| target(&hostile));
            assert!(ended.is_ok(), "{name}, round {round}: {hostile:?}");
        }
    }
}
