//! Tests verification, replicas and repair on the stores of `store.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hyperrag_core::{BoxedError, ModelError};
use hyperrag_store::{NoRepair, Repair, Replica, Tiered, rebuild_manifest, remember_replica};

use super::*;

fn damages(store: &Store, number: u32) -> Vec<Option<u32>> {
    let mut buffer = Vec::new();
    let bytes = AtomicU64::new(0);
    let mut found: Vec<_> = store
        .verify_shard(ShardId(number), &mut buffer, &bytes)
        .unwrap()
        .into_iter()
        .map(|damage| damage.slot)
        .collect();
    found.extend(
        store
            .verify_chunk_file(ShardId(number), &mut buffer, &bytes)
            .unwrap()
            .map(|damage| damage.slot),
    );
    found
}

fn replicate(from: &Path, to: &Path) {
    let replica = Replica::open(from, to).unwrap();
    let shards = replica.manifest().shards.len() as u32;
    for shard in 0..shards {
        replica.copy(ShardId(shard), true, &mut Vec::new(), &AtomicU64::new(0)).unwrap();
    }
    replica.publish().unwrap();
    remember_replica(from, to).unwrap();
}

#[test]
fn every_flipped_byte_of_a_shard_is_verified_and_mended() {
    let folder = store(2);
    let root = folder.path();
    let path = shard(root, 0);
    let whole = fs::read(&path).unwrap();
    let opened = Store::open(root).unwrap();
    assert_eq!(damages(&opened, 0), []);
    let mut repair = Repair::open(root, Arc::new(opened.manifest().clone()), false).unwrap();
    let chunks = input(0).contents.chunks;
    let mut compute =
        |chunks: &[Chunk]| Ok(chunks.iter().map(|c| block(&small().kv_shape, c)).collect());
    let mut buffer = Vec::new();
    for at in 0..whole.len() {
        // Not truncated, because that would wait for the disk.
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[whole[at] ^ 1 << (at % 8)], at as u64).unwrap();
        assert_eq!(damages(&opened, 0).len(), 1, "byte {at}");
        // Repair syncs, so a few bytes of every part must do.
        if at % 211 != 0 {
            file.write_all_at(&[whole[at]], at as u64).unwrap();
            continue;
        }
        let salvage = repair.salvage(ShardId(0), &chunks, &mut buffer).unwrap();
        let top = at < 4096;
        assert!(salvage.damaged() <= usize::from(!top), "byte {at}: {}", salvage.damaged());
        repair.rewrite(ShardId(0), &chunks, &salvage, &mut compute, None, &mut buffer).unwrap();
        assert!(fs::read(&path).unwrap() == whole, "byte {at}");
    }
    fs::write(&path, &whole).unwrap();
    for length in (0..whole.len()).step_by(2039) {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(damages(&opened, 0), [None], "length {length}");
        let salvage = repair.salvage(ShardId(0), &chunks, &mut buffer).unwrap();
        repair.rewrite(ShardId(0), &chunks, &salvage, &mut compute, None, &mut buffer).unwrap();
        assert!(fs::read(&path).unwrap() == whole, "length {length}");
    }
}

#[test]
fn other_blocks_do_not_replace_a_shard() {
    let folder = store(1);
    let root = folder.path();
    let path = shard(root, 0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 200] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let manifest = Arc::new(Store::open(root).unwrap().manifest().clone());
    let mut repair = Repair::open(root, manifest, false).unwrap();
    assert!(matches!(
        StoreWriter::open(root, &small(), None).err(),
        Some(StoreError::Locked { .. })
    ));
    let chunks = input(0).contents.chunks;
    let salvage = repair.salvage(ShardId(0), &chunks, &mut Vec::new()).unwrap();
    assert_eq!(salvage.damaged(), 1);
    let none = |_: &[Chunk]| Err(BoxedError::new(ModelError::Device("no model".to_owned())));
    let computes: [&mut hyperrag_store::ComputeBlocks<'_>; 2] =
        [&mut { other_blocks }, &mut { none }];
    for compute in computes {
        let repaired =
            repair.rewrite(ShardId(0), &chunks, &salvage, compute, None, &mut Vec::new());
        assert!(matches!(repaired, Err(StoreError::NotRepaired { .. })), "{repaired:?}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::read_dir(root.join("shards")).unwrap().count(), 1, "nothing half-written");
    }
}

/// Makes blocks as another kernel would.
fn other_blocks(chunks: &[Chunk]) -> Result<Vec<KvBlock>, BoxedError> {
    let other = |chunk: &Chunk| Chunk { tokens: vec![9; chunk.tokens.len()], ..chunk.clone() };
    Ok(chunks.iter().map(|chunk| block(&small().kv_shape, &other(chunk))).collect())
}

/// Damages the first block of shard 0 and lets `compute`, of the kernel `kernel`, repair it in the store of
/// `manifest`.
fn repaired(
    root: &Path,
    manifest: &Manifest,
    kernel: Option<&str>,
    compute: &mut hyperrag_store::ComputeBlocks<'_>,
) -> Result<bool, StoreError> {
    let path = shard(root, 0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 200] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let mut repair = Repair::open(root, Arc::new(manifest.clone()), false).unwrap();
    let chunks = input(0).contents.chunks;
    let salvage = repair.salvage(ShardId(0), &chunks, &mut Vec::new()).unwrap();
    assert_eq!(salvage.damaged(), 1);
    repair.rewrite(ShardId(0), &chunks, &salvage, compute, kernel, &mut Vec::new())
}

#[test]
fn another_kernel_mends_a_complete_store_in_a_new_snapshot() {
    let folder = store(2);
    let root = folder.path();
    let manifest = || Store::open(root).unwrap().manifest().clone();
    let why = |repaired: Result<bool, StoreError>| match repaired {
        Err(StoreError::NotRepaired { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    let whole = fs::read(shard(root, 0)).unwrap();
    let unfinished = repaired(root, &manifest(), Some("other"), &mut other_blocks);
    assert!(matches!(why(unfinished), NoRepair::OtherKernel));
    fs::write(shard(root, 0), &whole).unwrap();
    StoreWriter::open(root, &small(), None).unwrap().finish().unwrap();
    let first = manifest();

    // A repair that read the manifest before it took the lock does not undo later changes.
    let deleted = hyperrag_store::Tombstones { shard: ShardId(1), rows: vec![2] };
    StoreWriter::open_complete(root).unwrap().delete(&[deleted]).unwrap();
    let stale = repaired(root, &first, Some("other"), &mut other_blocks);
    assert!(matches!(why(stale), NoRepair::Changed));
    fs::write(shard(root, 0), &whole).unwrap();

    let before = manifest();
    assert!(repaired(root, &before, Some("other"), &mut other_blocks).unwrap());
    let after = manifest();
    let repaired_by = Some("other".to_owned());
    let record = &after.shards[0];
    assert_eq!((after.generation, &record.repaired_by), (before.generation + 1, &repaired_by));
    let mut expected = Manifest { generation: after.generation, ..before.clone() };
    expected.shards[0] =
        ShardRecord { kv: record.kv.clone(), repaired_by, ..before.shards[0].clone() };
    assert_eq!(after, expected);
    assert_ne!(record.kv.digest, before.shards[0].kv.digest);
    let opened = Store::open(root).unwrap();
    assert_eq!(damages(&opened, 0), []);
    let found = opened.get_many(&keys(0)).remove(0).unwrap().unwrap();
    let chunks = input(0).contents.chunks;
    assert_eq!(found, other_blocks(&chunks[..1]).unwrap().remove(0));
    drop(opened);
    let names = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["chunks", "generation", "lock", "manifest.json", "shards"]);

    // The store's own kernel returns other bytes for the block than those named now. The other blocks may
    // still be the other kernel's.
    let mut own = |chunks: &[Chunk]| {
        Ok(chunks.iter().map(|chunk| block(&small().kv_shape, chunk)).collect::<Vec<_>>())
    };
    assert!(repaired(root, &manifest(), None, &mut own).unwrap());
    assert_eq!(manifest().shards[0].repaired_by.as_deref(), Some("other"));
    // Equal bytes need no snapshot.
    let last = manifest();
    assert!(!repaired(root, &last, Some("third"), &mut own).unwrap());
    assert_eq!(manifest(), last);
}

#[test]
fn a_block_is_lost_only_where_every_copy_of_it_is_damaged() {
    const UNITS: u32 = 6;
    let (folder, beside) = (store(UNITS), TempDir::new().unwrap());
    let copies = [folder.path().to_owned(), beside.path().join("a"), beside.path().join("b")];
    replicate(&copies[0], &copies[1]);
    replicate(&copies[0], &copies[2]);
    let mut seeded = Seeded(7);
    for round in 0..40 {
        let mut damaged = vec![BTreeSet::new(); copies.len()];
        let mut kept = Vec::new();
        for (copy, damaged) in copies.iter().zip(&mut damaged) {
            for number in 0..UNITS {
                let path = shard(copy, number);
                let whole = fs::read(&path).unwrap();
                let mut bytes = whole.clone();
                for (slot, start) in (4096..whole.len()).step_by(4096).enumerate() {
                    if seeded.next().is_multiple_of(3) {
                        bytes[start + (seeded.next() % 4096) as usize] ^= 1 << (round % 8);
                        damaged.insert((number, slot as u32));
                    }
                }
                fs::write(&path, bytes).unwrap();
                kept.push((path, whole));
            }
        }
        let store = Tiered::open(&copies[0]).unwrap();
        assert!(store.warnings().is_empty());
        for number in 0..UNITS {
            let keys = keys(number);
            for (key, found) in keys.iter().zip(store.get_many(&keys)) {
                let place = (number, key.slot.0);
                let lost = damaged.iter().all(|damaged| damaged.contains(&place));
                match found {
                    Ok(Some(found)) => {
                        assert!(!lost);
                        let chunk = &input(number).contents.chunks[key.slot.0 as usize];
                        assert_eq!(found.kv(), block(&small().kv_shape, chunk).kv());
                    }
                    Ok(None) => panic!("{key:?} is absent"),
                    Err(error) => assert!(lost, "round {round}, {key:?}: {error}"),
                }
            }
        }
        for (path, whole) in kept {
            fs::write(path, whole).unwrap();
        }
    }
}

#[test]
fn every_flipped_byte_of_a_journal_is_mended() {
    let folder = store(3);
    let root = folder.path();
    let path = root.join("journal-000001.log");
    let whole = fs::read(&path).unwrap();
    // No file has digests of the made-up rows, so only intact rows can be known.
    let replica = TempDir::new().unwrap();
    replicate(root, replica.path());
    let copies = [replica.path().to_owned()];
    for at in (0..whole.len() - 1).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 5);
        fs::write(&path, bytes).unwrap();
        let rebuilt = rebuild_manifest(root, &copies, false, &mut not_asked_for).unwrap();
        rebuilt.publish(root).unwrap();
        assert!(fs::read(&path).unwrap() == whole, "byte {at}");
    }
    // A replica that is behind does not count.
    let mut writer = StoreWriter::open(root, &small(), None).unwrap();
    seal(&mut writer, &input(3));
    drop(writer);
    let longer = fs::read(&path).unwrap();
    fs::write(&path, &longer[1..]).unwrap();
    let rebuilt = rebuild_manifest(root, &copies, false, &mut not_asked_for).unwrap();
    assert_eq!(rebuilt.manifest().shards.len(), 4);
    assert!(rebuilt.how.contains("from the shards and chunk files"), "{}", rebuilt.how);
}

fn not_asked_for(_: u32) -> Result<Vec<Fingerprint>, BoxedError> {
    Err(BoxedError::new(ModelError::Device("not asked for".to_owned())))
}

/// Flips a bit of a layer of the first block of shard 0.
fn flip_layer(root: &Path, layer: usize) {
    let path = shard(root, 0);
    let mut bytes = fs::read(&path).unwrap();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (block, head, tokens) = (number(256 + 32), number(256 + 52), number(256 + 48));
    bytes[block + head + layer * small().kv_shape.layer_bytes(tokens)] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn each_layer_comes_from_a_copy_that_has_it_intact() {
    let (folder, beside) = (store(1), TempDir::new().unwrap());
    let (root, replica) = (folder.path(), beside.path().join("a"));
    replicate(root, &replica);
    let expected =
        kv_of(Store::open(root).unwrap().get_many(&keys(0)[..1]).remove(0).unwrap().as_ref());
    flip_layer(root, 0);
    flip_layer(&replica, 1);
    let store = Tiered::open(root).unwrap();
    for copy in [root, &replica] {
        assert!(Store::open(copy).unwrap().get_many(&keys(0)[..1])[0].is_err(), "has all of it");
    }
    assert_eq!(kv_of(store.get_many(&keys(0)[..1]).remove(0).unwrap().as_ref()), expected);
    assert_eq!(by_layers(store.open_many(&keys(0)[..1]).remove(0)).unwrap(), expected);
    let whole = Tiered::open(root).unwrap();
    let opened = whole.open_many(&keys(0)[..1]).remove(0).unwrap().unwrap();
    assert_eq!(kv_of(opened.read().ok().as_ref()), expected);
    let from = |failover: hyperrag_core::Failover| (failover.what, failover.from);
    let [(first, to_replica), (second, back)] =
        <[_; 2]>::try_from(opened.failovers().into_iter().map(from).collect::<Vec<_>>()).unwrap();
    assert!(first.contains("layer 0") && second.contains("layer 1"), "{first}; {second}");
    assert_eq!((to_replica, &*back), (replica.clone(), root));
    // A layer that is damaged in every copy is lost.
    flip_layer(&replica, 0);
    let lost = by_layers(Tiered::open(root).unwrap().open_many(&keys(0)[..1]).remove(0));
    assert!(lost.unwrap_err().to_string().contains("no replica has it intact"));
}
