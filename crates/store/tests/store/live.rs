//! Tests deletion and compaction while readers hold the store.

use std::sync::atomic::{AtomicBool, AtomicU64};

use hyperrag_store::Tombstones;

use super::*;

fn complete(root: &Path, shards: u32) -> StoreWriter {
    let mut writer = StoreWriter::open(root, &small(), None).unwrap();
    for number in 0..shards {
        seal(&mut writer, &input(number));
    }
    writer.finish().unwrap();
    writer
}

fn deleted(shard: u32, rows: &[u64]) -> Tombstones {
    Tombstones { shard: ShardId(shard), rows: rows.to_vec() }
}

fn compact(writer: &mut StoreWriter) -> u64 {
    let compacted = writer.compact(&AtomicBool::new(false), &AtomicU64::new(0)).unwrap();
    writer.publish(compacted.unwrap()).unwrap()
}

fn shards(root: &Path) -> usize {
    fs::read_dir(root.join("shards")).unwrap().count()
}

#[test]
fn live_blocks_move_as_they_are_and_readers_keep_what_they_opened() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    let mut writer = complete(root, 4);
    let reader = Store::open(root).unwrap();
    writer.delete(&[deleted(0, &[1]), deleted(2, &[4, 5])]).unwrap();
    let live = writer.manifest().live_rows();
    let counts: Vec<u64> = (0..9).filter(|row| live.contains(*row)).collect();
    assert_eq!(counts, [0, 2, 3, 6, 7]);

    assert_eq!(compact(&mut writer), 0, "a reader holds all of it");
    assert_eq!(shards(root), 5);
    for number in 0..4 {
        for (key, chunk) in keys(number).iter().zip(input(number).contents.chunks) {
            let found = reader.get_many(std::slice::from_ref(key)).remove(0).unwrap().unwrap();
            assert_eq!(found.kv(), block(&small().kv_shape, &chunk).kv());
            assert_eq!(reader.chunk(key, &mut Vec::new()).unwrap(), chunk);
        }
    }
    drop(reader);

    let manifest = writer.manifest().clone();
    let numbers: Vec<u32> = manifest.shards.iter().map(|record| record.shard.0).collect();
    assert_eq!(numbers, [1, 3, 4]);
    assert_eq!(
        (manifest.next_row(), manifest.next_shard(), manifest.tombstones.len()),
        (8, ShardId(5), 0)
    );
    let store = Store::open(root).unwrap();
    let [left] = &store.chunks(ShardId(4)).unwrap().documents[..] else { panic!("one is left") };
    assert_eq!((left.row, left.first_slot), (0, Slot(0)));
    for key in keys(0).iter().take(left.chunks as usize) {
        let moved = BlockKey { shard: ShardId(4), ..key.clone() };
        let found = store.get_many(std::slice::from_ref(&moved)).remove(0).unwrap().unwrap();
        let chunk = store.chunk(&moved, &mut Vec::new()).unwrap();
        assert_eq!(found.kv(), block(&small().kv_shape, &chunk).kv());
        assert!(matches!(store.get_many(std::slice::from_ref(key))[0], Ok(None)));
    }
    drop(store);
    drop(writer);

    // The next change frees the files that nobody reads any more.
    let mut writer = StoreWriter::open_complete(root).unwrap();
    assert_eq!(shards(root), 3);
    writer.delete(&[deleted(1, &[2])]).unwrap();
    let retired = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("retired");
    assert!(!fs::read_dir(root).unwrap().any(|entry| retired(entry.unwrap())));
}

#[test]
fn a_damaged_block_is_not_taken_over() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    let mut writer = complete(root, 2);
    writer.delete(&[deleted(0, &[1])]).unwrap();
    let path = shard(root, 0);
    let whole = fs::read(&path).unwrap();
    for at in [4096 + 200, 4096 + 40, 300, 20] {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&path, bytes).unwrap();
        let refused = writer.compact(&AtomicBool::new(false), &AtomicU64::new(0));
        assert!(matches!(refused, Err(StoreError::Damaged { .. })), "byte {at}");
        assert_eq!(shards(root), 2, "byte {at}: nothing is left behind");
    }
    fs::write(&path, whole).unwrap();
    assert!(compact(&mut writer) > 0);
}

#[test]
fn what_a_killed_compaction_left_is_removed() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    let mut writer = complete(root, 2);
    writer.delete(&[deleted(0, &[0]), deleted(1, &[3])]).unwrap();
    let before = writer.manifest().clone();
    drop(writer.compact(&AtomicBool::new(false), &AtomicU64::new(0)).unwrap());
    drop(writer);
    assert_eq!(shards(root), 3);
    assert_eq!(read(root, 2), Found::Same);
    let mut writer = StoreWriter::open_complete(root).unwrap();
    assert_eq!((writer.manifest(), shards(root)), (&before, 2));
    compact(&mut writer);
    assert_eq!((writer.manifest().shards.len(), shards(root)), (1, 1));
}
