//! Measures the cost of many blocks: `many_blocks FOLDER [BLOCKS]` builds a store of BLOCKS (a million)
//! blocks and one of a thousandth, with one layer, one KV head and chunks of 8 tokens. Prints the build's
//! rate by tenths, the time to open, and the time of a block at a random place of either, from the page cache
//! and from the disk.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyperrag_core::{
    BlockKey, BlockRead, Chunk, ChunkId, Digest, DocId, Document, Fingerprint, KvBlock, KvDtype,
    KvShape, ShardId, Slot,
};
use hyperrag_store::{IndexedDocument, ShardChunks, ShardInput, Store, StoreWriter};
use rustix::fs::{Advice, fadvise};

/// Number of blocks of a shard, one a row.
const UNIT_ROWS: u32 = 256;
const TOKENS: usize = 8;
/// Number of blocks read at random in a round, from the page cache.
const READS: u32 = 20_000;
/// Number of blocks read at random in a round, from the disk.
const COLD_READS: u32 = 1000;
const ROUNDS: usize = 5;

fn fingerprint() -> Fingerprint {
    let kv_shape =
        KvShape { layers: 1, kv_heads: 1, head_dim: 64, hidden: 64, kv_dtype: KvDtype::Bf16 };
    Fingerprint {
        format_version: hyperrag_store::FORMAT_VERSION,
        model: "none".into(),
        weights: Digest([1; 32]),
        tokenizer: Digest([2; 32]),
        profile: "plain".into(),
        profile_digest: Digest([3; 32]),
        chunk_tokens: TOKENS as u32,
        unit_rows: UNIT_ROWS,
        language: "english".into(),
        kv_shape,
        calibration: None,
        rope: "interleaved, base 100000".into(),
        dtype: "f32".into(),
        kernel: "none".into(),
    }
}

fn chunk_id(row: u32) -> ChunkId {
    let document = DocId::new(&row.to_string()).expect("digits are an id");
    ChunkId { document, ordinal: 0 }
}

fn unit(shard: u32) -> ShardInput {
    let rows = shard * UNIT_ROWS..(shard + 1) * UNIT_ROWS;
    let tokens = |row: u32| (0..TOKENS as u32).map(|token| row ^ token << 24).collect();
    let chunks = rows.clone().map(|row| Chunk { id: chunk_id(row), tokens: tokens(row) }).collect();
    let documents = rows.clone().zip(0..).map(|(row, slot)| {
        let id = chunk_id(row).document;
        let document = Document { id, title: String::new(), text: format!("text of row {row}") };
        IndexedDocument { row: row.into(), document, first_slot: Slot(slot), chunks: 1 }
    });
    let documents = documents.collect();
    ShardInput {
        shard: ShardId(shard),
        rows: UNIT_ROWS.into(),
        rows_digest: Digest::of(&shard.to_le_bytes()),
        contents: ShardChunks { chunks, documents },
        replaces: Vec::new(),
    }
}

/// Builds the missing shards of a store. Returns the time of each, in seconds.
fn build(root: &Path, shards: u32) -> Result<Vec<f64>, Box<dyn Error>> {
    let fingerprint = fingerprint();
    let mut writer = StoreWriter::open(root, &fingerprint, None)?;
    let bytes = TOKENS * fingerprint.kv_shape.token_bytes();
    let mut seconds = Vec::new();
    for shard in writer.manifest().next_shard().0..shards {
        let unit = unit(shard);
        let start = Instant::now();
        let mut sealing = writer.begin(&unit)?;
        for slot in 0..UNIT_ROWS {
            let kv = vec![slot as u8; bytes];
            sealing.write(
                Slot(slot),
                &KvBlock::new(fingerprint.kv_shape, TOKENS, kv, vec![0.5; 64]),
            )?;
        }
        sealing.seal()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    if !writer.manifest().complete {
        writer.finish()?;
    }
    Ok(seconds)
}

/// Returns the `i`th random place (a multiplicative sequence over all rows).
fn place(i: u32, blocks: u32) -> BlockKey {
    let row = (u64::from(i) * 2_654_435_761 % u64::from(blocks)) as u32;
    BlockKey { shard: ShardId(row / UNIT_ROWS), slot: Slot(row % UNIT_ROWS), chunk: chunk_id(row) }
}

/// Measures the time of a read from the page cache.
fn read(store: &Store, blocks: u32) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    for i in 0..READS {
        store.get_many(&[place(i, blocks)]).remove(0)?.ok_or("a block is absent")?;
    }
    Ok(start.elapsed() / READS)
}

/// Measures the time of a read from the disk. Before each read, the system is asked to drop the shard's
/// pages.
fn read_cold(store: &Store, blocks: u32) -> Result<Duration, Box<dyn Error>> {
    let mut times = Vec::new();
    for i in 0..COLD_READS {
        let key = place(i, blocks);
        let shard = File::open(store.root().join(format!("shards/{:06}.kv", key.shard.0)))?;
        fadvise(&shard, 0, None, Advice::DontNeed)?;
        let start = Instant::now();
        store.get_many(&[key]).remove(0)?.ok_or("a block is absent")?;
        times.push(start.elapsed());
    }
    Ok(median(times))
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

#[expect(clippy::print_stdout, reason = "the figures are its output")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder: PathBuf = arguments.next().ok_or("usage: many_blocks FOLDER [BLOCKS]")?.into();
    let blocks: u32 = arguments.next().map_or(Ok(1_000_000), |number| number.parse())?;
    let shards = [(blocks / 1000).div_ceil(UNIT_ROWS), blocks.div_ceil(UNIT_ROWS)];
    let roots = [folder.join("few"), folder.join("many")];
    build(&roots[0], shards[0])?;
    let seconds = build(&roots[1], shards[1])?;
    if seconds.len() >= 10 {
        let rate =
            |part: &[f64]| part.len() as f64 * f64::from(UNIT_ROWS) / part.iter().sum::<f64>();
        let tenths: Vec<f64> = seconds.chunks(seconds.len().div_ceil(10)).map(rate).collect();
        let tenths: Vec<String> = tenths.iter().map(|rate| format!("{rate:.0}")).collect();
        println!("blocks/s in each tenth of the build: {}", tenths.join(" "));
    }
    let mut opened = Vec::new();
    let (mut reads, mut cold) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        for (i, root) in roots.iter().enumerate() {
            let start = Instant::now();
            let store = Store::open(root)?;
            if i == 1 {
                opened.push(start.elapsed());
            }
            let blocks = shards[i] * UNIT_ROWS;
            read(&store, blocks)?; // What is opened once is open.
            reads[i].push(read(&store, blocks)?);
            cold[i].push(read_cold(&store, blocks)?);
        }
    }
    println!(
        "opening {} blocks: {:.1?} (median of {ROUNDS})",
        shards[1] * UNIT_ROWS,
        median(opened)
    );
    for (from, times) in [("page cache", reads), ("disk", cold)] {
        let [few, many] = times.map(median);
        println!(
            "a block at a random place, from the {from}: {few:.1?} of {}, {many:.1?} of {}: {:.2} times",
            shards[0] * UNIT_ROWS,
            shards[1] * UNIT_ROWS,
            many.as_secs_f64() / few.as_secs_f64()
        );
    }
    Ok(())
}
