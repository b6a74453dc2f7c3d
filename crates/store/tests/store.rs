//! Round trips, resume, and damage of every byte, on small stores of made-up blocks.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use hyperrag_core::{
    BlockError, BlockKey, BlockRead, Chunk, ChunkId, ChunkRead, Digest, DocId, Document,
    Fingerprint, KvBlock, KvDtype, KvShape, Opened, ShardId, Slot,
};
use hyperrag_store::{
    IndexedDocument, Manifest, ShardChunks, ShardInput, ShardRecord, Store, StoreError, StoreWriter,
};
use proptest::prelude::*;
use tempfile::TempDir;

#[path = "../../../fuzz/changed.rs"]
mod changed;
#[path = "store/fuzz.rs"]
mod fuzz;
#[path = "store/live.rs"]
mod live;
#[path = "store/repair.rs"]
mod repair;
#[path = "../../../tests/cli/seeded.rs"]
mod seeded;
#[path = "store/tiers.rs"]
mod tiers;

use seeded::Seeded;

const HEADER: usize = 256;
const ENTRY: usize = 64;

fn kv_shape(kv_dtype: KvDtype, kv_heads: u32) -> KvShape {
    KvShape { layers: 2, kv_heads, head_dim: 4, hidden: 8, kv_dtype }
}

fn fingerprint(kv_shape: KvShape) -> Fingerprint {
    Fingerprint {
        format_version: hyperrag_store::FORMAT_VERSION,
        model: "fake".into(),
        weights: Digest([1; 32]),
        tokenizer: Digest([2; 32]),
        profile: "plain".into(),
        profile_digest: Digest([3; 32]),
        chunk_tokens: 16,
        unit_rows: 2,
        language: "english".into(),
        kv_shape,
        calibration: None,
        rope: "interleaved, base 100000".into(),
        dtype: "f32".into(),
        kernel: "cpu-f32-v1".into(),
    }
}

fn small() -> Fingerprint {
    fingerprint(kv_shape(KvDtype::Bf16, 1))
}

/// Makes the block of a chunk, seeded by its tokens, of any bits but those of NaN in the hidden state.
fn block(kv_shape: &KvShape, chunk: &Chunk) -> KvBlock {
    let mut seeded = Seeded(chunk.tokens.iter().map(|t| u64::from(*t)).sum());
    let tokens = chunk.tokens.len();
    let kv = (0..tokens * kv_shape.token_bytes()).map(|_| seeded.next() as u8).collect();
    let hidden = (0..kv_shape.hidden).map(|_| seeded.next() as i32 as f32).collect();
    KvBlock::new(*kv_shape, tokens, kv, hidden)
}

/// Makes the input of a shard: two documents of one or two chunks each. Equal numbers give equal inputs.
fn input(number: u32) -> ShardInput {
    let mut seeded = Seeded(u64::from(number));
    let (mut chunks, mut documents) = (Vec::new(), Vec::new());
    for row in [2 * u64::from(number), 2 * u64::from(number) + 1] {
        let id = DocId::stored(&format!("doc {row} ä")).unwrap();
        let first_slot = Slot(chunks.len() as u32);
        let pieces = 2 - (row % 2) as u32;
        for ordinal in 0..pieces {
            let tokens = (0..1 + seeded.next() % 6).map(|_| seeded.next() as u32).collect();
            chunks.push(Chunk { id: ChunkId { document: id.clone(), ordinal }, tokens });
        }
        let title = if row % 2 == 0 { format!("title {row}") } else { String::new() };
        let document = Document { id, title, text: format!("text of row {row}") };
        documents.push(IndexedDocument { row, document, first_slot, chunks: pieces });
    }
    let rows_digest = Digest::of(&number.to_le_bytes());
    let contents = ShardChunks { chunks, documents };
    ShardInput { shard: ShardId(number), rows: 2, rows_digest, contents, replaces: Vec::new() }
}

fn seal(writer: &mut StoreWriter, input: &ShardInput) -> ShardRecord {
    let kv_shape = writer.manifest().fingerprint.kv_shape;
    let mut shard_writer = writer.begin(input).unwrap();
    // Any order of slots gives the same bytes.
    for (slot, chunk) in input.contents.chunks.iter().enumerate().rev() {
        shard_writer.write(Slot(slot as u32), &block(&kv_shape, chunk)).unwrap();
    }
    shard_writer.seal().unwrap()
}

fn build(root: &Path, fingerprint: &Fingerprint, shards: u32) {
    let mut writer = StoreWriter::open(root, fingerprint, None).unwrap();
    for number in 0..shards {
        seal(&mut writer, &input(number));
    }
}

/// Builds a store of `shards` shards in a new folder.
fn store(shards: u32) -> TempDir {
    let folder = TempDir::new().unwrap();
    build(folder.path(), &small(), shards);
    folder
}

fn keys(number: u32) -> Vec<BlockKey> {
    let key = |(slot, chunk): (u32, Chunk)| BlockKey {
        shard: ShardId(number),
        slot: Slot(slot),
        chunk: chunk.id,
    };
    (0..).zip(input(number).contents.chunks).map(key).collect()
}

fn shard(root: &Path, number: u32) -> PathBuf {
    root.join(format!("shards/{number:06}.kv"))
}

fn chunk_file(root: &Path, number: u32) -> PathBuf {
    root.join(format!("chunks/{number:06}.parquet"))
}

/// Result of reading some shards.
#[derive(Debug, PartialEq)]
enum Found {
    /// All shards as written.
    Same,
    /// The last shards are absent, all others as written.
    Fewer,
    /// An error.
    Error(String),
}

/// K and V of a block, and the bits of its hidden state.
type Parts = (Vec<u8>, Vec<u32>);

/// Reads the parts of a block layer by layer.
fn by_layers(opened: Opened<'_>) -> Result<Option<Parts>, BlockError> {
    let Some(block) = opened? else { return Ok(None) };
    let (mut kv, mut buffer) = (Vec::new(), Vec::new());
    for layer in 0..block.kv_shape().layers as usize {
        block.prefetch(layer + 1);
        kv.extend_from_slice(block.layer(layer, &mut buffer)?);
    }
    Ok(Some((kv, block.hidden()?.iter().map(|value| value.to_bits()).collect())))
}

fn kv_of(block: Option<&KvBlock>) -> Option<Parts> {
    let bits = |block: &KvBlock| block.hidden().iter().map(|value| value.to_bits()).collect();
    block.map(|block| (block.kv().to_vec(), bits(block)))
}

/// Opens the store and reads every block and every chunk. Panics if a byte differs from what was written and
/// no error says so.
fn read(root: &Path, shards: u32) -> Found {
    let store = match Store::open(root) {
        Ok(store) => store,
        Err(error) => return Found::Error(error.to_string()),
    };
    let kv_shape = *store.kv_shape();
    let held = store.manifest().shards.len() as u32;
    assert!(held <= shards, "shards out of nothing");
    let mut errors = Vec::new();
    for number in 0..shards {
        let keys = keys(number);
        let blocks = store.get_many(&keys);
        let layers = store.open_many(&keys);
        for (((key, found), layers), chunk) in
            keys.iter().zip(blocks).zip(layers).zip(input(number).contents.chunks)
        {
            assert_eq!(by_layers(layers).ok(), found.as_ref().ok().map(Option::as_ref).map(kv_of));
            match found {
                Ok(Some(found)) => {
                    assert!(number < held);
                    let written = block(&kv_shape, &chunk);
                    let bits = |b: &KvBlock| b.hidden().iter().map(|v| v.to_bits()).collect();
                    let (found_bits, written_bits): (Vec<u32>, Vec<u32>) =
                        (bits(&found), bits(&written));
                    assert_eq!(found_bits, written_bits);
                    assert_eq!(found, written);
                }
                Ok(None) => assert!(number >= held, "a sealed block is absent"),
                Err(error) => errors.push(error.to_string()),
            }
            if number < held {
                match store.chunk(key, &mut Vec::new()) {
                    Ok(found) => assert_eq!(found, chunk),
                    Err(error) => errors.push(error.to_string()),
                }
            }
        }
    }
    match errors.into_iter().next() {
        Some(error) => Found::Error(error),
        None if held < shards => Found::Fewer,
        None => Found::Same,
    }
}

fn error(found: Found) -> String {
    match found {
        Found::Error(error) => error,
        found => panic!("no error: {found:?}"),
    }
}

#[test]
fn shards_come_back() {
    for kv_dtype in KvDtype::ALL {
        for kv_heads in [1, 2] {
            let folder = TempDir::new().unwrap();
            let fingerprint = fingerprint(kv_shape(kv_dtype, kv_heads));
            build(folder.path(), &fingerprint, 3);
            assert_eq!(read(folder.path(), 3), Found::Same);

            let writer = StoreWriter::open(folder.path(), &fingerprint, None).unwrap();
            let Manifest { fingerprint: stored, complete, shards, generation, .. } =
                writer.manifest();
            assert_eq!((stored, *complete, *generation), (&fingerprint, false, 1));
            for (number, record) in (0..).zip(shards) {
                let input = input(number);
                assert_eq!(writer.chunks(ShardId(number)).unwrap(), input.contents);
                let chunks = &input.contents.chunks;
                let tokens: usize = chunks.iter().map(|c| c.tokens.len()).sum();
                let counts = (record.rows, record.documents, record.chunks, record.tokens);
                assert_eq!(counts, (2, 2, chunks.len() as u64, tokens as u64));
                assert_eq!(record.rows_digest, input.rows_digest);
                let bytes = fs::read(shard(folder.path(), number)).unwrap();
                assert_eq!(record.kv.bytes, bytes.len() as u64);
                assert_eq!(bytes.len() % 4096, 0);
            }
        }
    }
}

#[test]
fn a_shard_without_chunks_comes_back() {
    let folder = TempDir::new().unwrap();
    let mut writer = StoreWriter::open(folder.path(), &small(), None).unwrap();
    let contents = ShardChunks { chunks: Vec::new(), documents: Vec::new() };
    let empty = ShardInput { contents: contents.clone(), ..input(0) };
    assert_eq!(seal(&mut writer, &empty).chunks, 0);
    assert_eq!(writer.chunks(ShardId(0)).unwrap(), contents);
    let found = Store::open(folder.path()).unwrap().get_many(&keys(0)[..1]).remove(0);
    assert!(found.unwrap_err().to_string().contains("no such block"));
}

#[test]
fn another_chunk_in_that_place_is_damage_and_another_shard_is_absent() {
    let folder = store(1);
    let store = Store::open(folder.path()).unwrap();
    let mut wrong = keys(0)[0].clone();
    wrong.chunk.ordinal += 7;
    assert!(store.get_many(&[wrong.clone()])[0].is_err());
    assert!(store.chunk(&wrong, &mut Vec::new()).is_err());
    let beyond = BlockKey { slot: Slot(99), ..keys(0)[0].clone() };
    assert!(store.get_many(std::slice::from_ref(&beyond))[0].is_err());
    assert!(store.chunk(&beyond, &mut Vec::new()).is_err());
    let absent = BlockKey { shard: ShardId(1), ..keys(0)[0].clone() };
    assert!(matches!(store.get_many(std::slice::from_ref(&absent))[0], Ok(None)));
    assert!(store.chunk(&absent, &mut Vec::new()).is_err());
}

/// Returns names and bytes of all files of a folder, without subfolders.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn an_interrupted_build_goes_on_to_the_same_bytes() {
    let whole = store(3);
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    build(root, &small(), 1);
    let before = ["", "shards", "chunks"].map(|sub| contents(&root.join(sub)));
    for written in 0..2 {
        let mut writer = StoreWriter::open(root, &small(), None).unwrap();
        let input = input(1);
        let mut begun = writer.begin(&input).unwrap();
        for (slot, chunk) in input.contents.chunks.iter().enumerate().take(written) {
            begun.write(Slot(slot as u32), &block(&small().kv_shape, chunk)).unwrap();
        }
        assert_eq!(fs::read_dir(root.join("shards")).unwrap().count(), 2);
        drop(begun);
        assert_eq!(before, ["", "shards", "chunks"].map(|sub| contents(&root.join(sub))));
    }
    assert_eq!(read(root, 3), Found::Fewer);
    // Leftovers of a killed process: partial files, published files without a line, half a line.
    fs::write(root.join("shards/000001.kv.tmp"), b"partial").unwrap();
    fs::write(root.join("shards/000001.kv"), b"never entered").unwrap();
    let journal = root.join("journal-000001.log");
    let line = fs::read(&journal).unwrap();
    fs::write(&journal, [&line[..], &line[..20]].concat()).unwrap();
    assert_eq!(read(root, 3), Found::Fewer);
    let mut writer = StoreWriter::open(root, &small(), None).unwrap();
    assert_eq!(fs::read(&journal).unwrap(), line, "half a line is cut off");
    seal(&mut writer, &input(1));
    seal(&mut writer, &input(2));
    assert_eq!(read(root, 3), Found::Same);
    for sub in ["shards", "chunks", ""] {
        let files = |root: &Path| {
            contents(&root.join(sub)).into_iter().filter(|f| f.0 != Path::new("lock"))
        };
        assert!(files(whole.path()).eq(files(root)), "{sub}");
    }
}

#[test]
fn finish_makes_a_snapshot() {
    let folder = store(2);
    let root = folder.path();
    let mut writer = StoreWriter::open(root, &small(), None).unwrap();
    writer.finish().unwrap();
    assert!(writer.manifest().complete);
    drop(writer);
    assert!(!root.join("journal-000001.log").exists());
    assert!(!root.join("manifest.json.tmp").exists());
    assert_eq!(read(root, 2), Found::Same);
    let manifest = Store::open(root).unwrap().manifest().clone();
    assert_eq!((manifest.complete, manifest.generation, manifest.shards.len()), (true, 2, 2));
    // A journal of the former generation, left by a crash, is ignored and removed.
    fs::write(root.join("journal-000001.log"), "old\n").unwrap();
    assert_eq!(StoreWriter::open(root, &small(), None).unwrap().manifest(), &manifest);
    assert!(!root.join("journal-000001.log").exists());
    // The snapshot holds everything now, so every byte but the line end counts.
    flip_every_byte(root, 2, &root.join("manifest.json"));
    truncate_everywhere(root, 2, &root.join("manifest.json"));
}

#[test]
fn a_reader_never_sees_less_than_before() {
    let folder = TempDir::new().unwrap();
    for round in 0..40 {
        let root = &folder.path().join(round.to_string());
        let mut before = (0, 0);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                build(root, &small(), 4);
                StoreWriter::open(root, &small(), None).unwrap().finish().unwrap();
            });
            let mut finished = false;
            while !finished {
                finished = writer.is_finished();
                match Store::open(root) {
                    Ok(store) => {
                        let manifest = store.manifest();
                        let now = (manifest.generation, manifest.shards.len());
                        assert!(now.0 >= before.0 && now.1 >= before.1, "{now:?} after {before:?}");
                        before = now;
                    }
                    Err(StoreError::Absent { .. }) if before == (0, 0) => {}
                    Err(error) => panic!("round {round}: {error}"),
                }
            }
        });
        assert_eq!(before, (2, 4));
    }
}

#[test]
#[should_panic(expected = "a complete store takes no more shards")]
fn a_complete_store_takes_no_more_shards() {
    let folder = store(1);
    let mut writer = StoreWriter::open(folder.path(), &small(), None).unwrap();
    writer.finish().unwrap();
    let _ = writer.begin(&input(1));
}

/// Writes the blocks of these slots of shard 0, which has three, and seals it.
fn seal_slots(slots: &[u32]) {
    let folder = TempDir::new().unwrap();
    let mut writer = StoreWriter::open(folder.path(), &small(), None).unwrap();
    let input = input(0);
    let mut begun = writer.begin(&input).unwrap();
    for slot in slots {
        let chunk = &input.contents.chunks[*slot as usize];
        begun.write(Slot(*slot), &block(&small().kv_shape, chunk)).unwrap();
    }
    begun.seal().unwrap();
}

#[test]
#[should_panic(expected = "slot 0 is written once")]
fn no_slot_is_written_twice() {
    seal_slots(&[0, 0, 2]);
}

#[test]
#[should_panic(expected = "every slot of the shard is written")]
fn no_slot_is_left_out() {
    seal_slots(&[0, 2]);
}

/// Starts a shard whose last chunk has this many positions.
fn begin_chunk_of(tokens: usize) {
    let mut long = input(0);
    long.contents.chunks[2].tokens = vec![7; tokens];
    let folder = TempDir::new().unwrap();
    StoreWriter::open(folder.path(), &small(), None).unwrap().begin(&long).unwrap();
}

#[test]
fn a_chunk_may_have_all_positions() {
    begin_chunk_of(16);
}

#[test]
#[should_panic(expected = "chunks have 1..=16 positions")]
fn a_chunk_that_is_too_long_is_refused() {
    begin_chunk_of(17);
}

#[test]
#[should_panic(expected = "chunks have 1..=16 positions")]
fn an_empty_chunk_is_refused() {
    begin_chunk_of(0);
}

/// Changes each byte by itself and expects an error.
fn flip_every_byte(root: &Path, shards: u32, path: &Path) {
    let bytes = fs::read(path).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    for (at, byte) in bytes.iter().enumerate() {
        // One bit after the other, and the bit of a letter's case.
        let masks = [1 << (at % 8), 0x20];
        for mask in masks {
            file.write_all_at(&[byte ^ mask], at as u64).unwrap();
            let found = read(root, shards);
            let message = format!("{} byte {at} ^ {mask:#04x}", path.display());
            // The manifest's own checksum may be in capitals: it is the same number, and the same store.
            let same = (*byte ^ mask).eq_ignore_ascii_case(byte) && path.ends_with("manifest.json");
            match found {
                Found::Error(_) => {}
                Found::Same if same && at < bytes.len() / 2 => {}
                found => panic!("{message}: {found:?}"),
            }
        }
        file.write_all_at(&[*byte], at as u64).unwrap();
    }
    assert_eq!(read(root, shards), Found::Same, "all was put back");
}

#[test]
fn every_flipped_byte_of_manifest_and_journal_is_found() {
    let folder = store(2);
    for name in ["manifest.json", "journal-000001.log"] {
        flip_every_byte(folder.path(), 2, &folder.path().join(name));
    }
}

#[test]
fn every_flipped_byte_of_a_shard_is_found() {
    let folder = store(1);
    flip_every_byte(folder.path(), 1, &shard(folder.path(), 0));
}

#[test]
fn every_flipped_byte_of_a_chunk_file_is_found() {
    let folder = store(1);
    flip_every_byte(folder.path(), 1, &chunk_file(folder.path(), 0));
}

/// Cuts the file at each length and expects an error, or the end of the journal's lines.
fn truncate_everywhere(root: &Path, shards: u32, path: &Path) {
    let bytes = fs::read(path).unwrap();
    for length in (0..bytes.len()).rev() {
        OpenOptions::new().write(true).open(path).unwrap().set_len(length as u64).unwrap();
        let message = format!("{} cut at {length}", path.display());
        match read(root, shards) {
            Found::Error(_) => {}
            Found::Fewer => assert!(path.extension().unwrap() == "log", "{message}"),
            // Only the line end is gone.
            Found::Same => {
                assert!(path.ends_with("manifest.json") && length + 1 == bytes.len(), "{message}");
            }
        }
    }
    fs::write(path, bytes).unwrap();
    assert_eq!(read(root, shards), Found::Same, "all was put back");
}

#[test]
fn every_cut_is_found() {
    let folder = store(2);
    let root = folder.path();
    truncate_everywhere(root, 2, &root.join("manifest.json"));
    truncate_everywhere(root, 2, &root.join("journal-000001.log"));
    truncate_everywhere(root, 2, &shard(root, 0));
    truncate_everywhere(root, 2, &chunk_file(root, 1));
    for path in [shard(root, 1), chunk_file(root, 0)] {
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, [&bytes[..], &[0; 4096]].concat()).unwrap();
        error(read(root, 2));
        fs::remove_file(&path).unwrap();
        assert!(error(read(root, 2)).contains("missing"));
        fs::write(&path, bytes).unwrap();
    }
    fs::remove_file(root.join("manifest.json")).unwrap();
    assert!(error(read(root, 2)).contains("missing"));
    let reopened = StoreWriter::open(root, &small(), None).err();
    assert!(matches!(reopened, Some(StoreError::Damaged { .. })), "{reopened:?}");
}

#[test]
fn moved_blocks_and_shards_are_found() {
    let folder = store(2);
    let root = folder.path();
    let first = fs::read(shard(root, 0)).unwrap();
    let second = fs::read(shard(root, 1)).unwrap();

    // Two blocks swapped, then their entries too, with right checksums.
    let mut swapped = first.clone();
    let (a, b) = swapped[4096..3 * 4096].split_at_mut(4096);
    a.swap_with_slice(b);
    fs::write(shard(root, 0), &swapped).unwrap();
    error(read(root, 2));
    for range in [0..32, 40..60] {
        for at in range {
            swapped.swap(HEADER + at, HEADER + ENTRY + at);
        }
    }
    let blocks = u32::from_le_bytes(swapped[16..20].try_into().unwrap()) as usize;
    let table = crc32fast::hash(&swapped[HEADER..HEADER + blocks * ENTRY]);
    swapped[20..24].copy_from_slice(&table.to_le_bytes());
    fix_header(&mut swapped);
    fs::write(shard(root, 0), &swapped).unwrap();
    assert!(error(read(root, 2)).contains("not those that the manifest names"));

    // A shard under the number of another.
    fs::write(shard(root, 0), &second).unwrap();
    error(read(root, 2));
    let mut renumbered = second.clone();
    renumbered[12..16].copy_from_slice(&0_u32.to_le_bytes());
    fix_header(&mut renumbered);
    fs::write(shard(root, 0), &renumbered).unwrap();
    error(read(root, 2));
    fs::write(shard(root, 0), &first).unwrap();
    fs::rename(chunk_file(root, 1), chunk_file(root, 0)).unwrap();
    error(read(root, 2));

    // The same shard in a store of another model of the same sizes.
    let other = TempDir::new().unwrap();
    build(other.path(), &Fingerprint { weights: Digest([9; 32]), ..small() }, 2);
    let fresh = store(2);
    fs::copy(shard(other.path(), 0), shard(fresh.path(), 0)).unwrap();
    assert!(error(read(fresh.path(), 2)).contains("another store"));
}

fn fix_header(shard: &mut [u8]) {
    let crc = crc32fast::hash(&shard[..HEADER - 4]);
    shard[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn the_field_that_differs_is_named() {
    let folder = store(1);
    let mut wide = small();
    wide.kv_shape.kv_dtype = KvDtype::F32;
    let cases = [
        (Fingerprint { weights: Digest([9; 32]), ..small() }, "weights"),
        (Fingerprint { chunk_tokens: 17, ..small() }, "chunk_tokens"),
        (wide, "element"),
    ];
    for (current, field) in cases {
        let error = StoreWriter::open(folder.path(), &current, None).err().unwrap();
        assert!(error.to_string().contains(field), "{error}");
        let StoreError::Mismatch { mismatch, .. } = error else { panic!("{error:?}") };
        assert_eq!(mismatch.field, field);
    }
    assert_eq!(read(folder.path(), 1), Found::Same);
}

#[test]
fn there_is_one_writer() {
    let folder = store(1);
    let writer = StoreWriter::open(folder.path(), &small(), None).unwrap();
    let error = StoreWriter::open(folder.path(), &small(), None).err().unwrap();
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    assert_eq!(read(folder.path(), 1), Found::Same, "readers need no lock");
    drop(writer);
    StoreWriter::open(folder.path(), &small(), None).unwrap();
}

#[test]
fn other_folders_are_left_alone() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    assert!(matches!(Store::open(root), Err(StoreError::Absent { .. })));
    assert!(matches!(Store::open(&root.join("none")), Err(StoreError::Absent { .. })));
    File::create(root.join("thesis.tex")).unwrap();
    let refused = StoreWriter::open(root, &small(), None).err();
    assert!(matches!(refused, Some(StoreError::NotAStore { .. })), "{refused:?}");
    assert_eq!(fs::read_dir(root).unwrap().count(), 1);
    StoreWriter::open(&root.join("a/b"), &small(), None).unwrap();
}

#[test]
fn a_crash_before_the_first_manifest_is_no_hindrance() {
    let folder = TempDir::new().unwrap();
    drop(StoreWriter::open(folder.path(), &small(), None).unwrap());
    fs::remove_file(folder.path().join("manifest.json")).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Absent { .. })));
    build(folder.path(), &small(), 1);
    assert_eq!(read(folder.path(), 1), Found::Same);
}

/// Overwrites the journal with a record and its checksum.
fn enter(root: &Path, record: &ShardRecord) {
    let sealed = format!("{{\"record\":{}}}", serde_json::to_string(record).unwrap());
    let line = format!("{:08x} {sealed}\n", crc32fast::hash(sealed.as_bytes()));
    fs::write(root.join("journal-000001.log"), line).unwrap();
}

#[test]
fn impossible_lengths_cost_no_memory() {
    let folder = store(1);
    let root = folder.path();
    let record = Store::open(root).unwrap().manifest().shards[0].clone();
    let changes: [fn(&mut ShardRecord); 5] = [
        |record| record.chunks = u64::MAX,
        |record| record.chunks = 1 << 20,
        |record| record.kv.bytes = u64::MAX,
        |record| record.chunk_file.bytes = u64::MAX,
        |record| record.shard = ShardId(u32::MAX),
    ];
    for change in changes {
        let mut hostile = record.clone();
        change(&mut hostile);
        enter(root, &hostile);
        error(read(root, 1));
    }

    // Shard and record agree on the largest number of blocks allowed, and on one more.
    let bytes = fs::read(shard(root, 0)).unwrap();
    for blocks in [1 << 20, (1 << 20) + 1, u32::MAX] {
        let mut hostile = bytes.clone();
        hostile[16..20].copy_from_slice(&blocks.to_le_bytes());
        fix_header(&mut hostile);
        fs::write(shard(root, 0), &hostile).unwrap();
        enter(root, &ShardRecord { chunks: blocks.into(), ..record.clone() });
        let error = error(read(root, 1));
        let why = if blocks == 1 << 20 { "would end at" } else { "at most" };
        assert!(error.contains(why), "{error}");
    }

    // A manifest with sizes of petabytes and the right checksum.
    fs::write(shard(root, 0), &bytes).unwrap();
    enter(root, &record);
    let text = fs::read_to_string(root.join("manifest.json")).unwrap();
    let body = text.split_once("\"manifest\":").unwrap().1.trim_end().strip_suffix('}').unwrap();
    let body = body.replace("\"hidden\":8", "\"hidden\":4294967295");
    let checksum = Digest::of(body.as_bytes());
    let text = format!("{{\"checksum\":\"{checksum}\",\"manifest\":{body}}}");
    fs::write(root.join("manifest.json"), text).unwrap();
    let hostile = Store::open(root).unwrap();
    assert!(hostile.get_many(&keys(0)).iter().all(Result::is_err));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_chunks_come_back(
        documents in prop::collection::vec(
            ("\\PC{1,40}", ".{0,20}", ".{0,60}",
             prop::collection::vec(prop::collection::vec(any::<u32>(), 1..16), 1..4)),
            1..5,
        ),
        f32: bool, kv_heads in 1..3u32,
    ) {
        let kv_shape = kv_shape(if f32 { KvDtype::F32 } else { KvDtype::Bf16 }, kv_heads);
        let mut contents = ShardChunks { chunks: Vec::new(), documents: Vec::new() };
        for (row, (id, title, text, pieces)) in (0..).zip(documents) {
            let Ok(id) = DocId::stored(&format!("{row} {id}")) else { continue };
            let first_slot = Slot(contents.chunks.len() as u32);
            let document = Document { id: id.clone(), title, text };
            let chunks = pieces.len() as u32;
            contents.documents.push(IndexedDocument { row: 3 * row, document, first_slot, chunks });
            for (ordinal, tokens) in (0..).zip(pieces) {
                let id = ChunkId { document: id.clone(), ordinal };
                contents.chunks.push(Chunk { id, tokens });
            }
        }
        let folder = TempDir::new().unwrap();
        let mut writer = StoreWriter::open(folder.path(), &fingerprint(kv_shape), None).unwrap();
        seal(&mut writer, &ShardInput { contents: contents.clone(), ..input(0) });
        prop_assert_eq!(&writer.chunks(ShardId(0)).unwrap(), &contents);
        let store = Store::open(folder.path()).unwrap();
        for (slot, chunk) in (0..).zip(&contents.chunks) {
            let (shard, slot) = (ShardId(0), Slot(slot));
            let key = BlockKey { shard, slot, chunk: chunk.id.clone() };
            prop_assert_eq!(&store.chunk(&key, &mut Vec::new()).unwrap(), chunk);
            let found = store.get_many(&[key]).remove(0).unwrap();
            prop_assert_eq!(found, Some(block(&kv_shape, chunk)));
        }
    }
}
