//! Times queries over a slow tier, with and without a tier in memory before it. In: the seconds that a model
//! computes for a query, with commas between them, and the number of timed queries. Out: JSON, a line for each
//! skew, share of the store in memory, rate of the slow tier and time of computing: mean latencies and hit rate.
//!
//! Blocks, tiers and the code that reads them are the real ones. Blocks have 4 tokens in place of 256, so a query
//! reads a 64th of the bytes, and the clock is scaled with them: rate and computing keep their proportion. A thread
//! that computes sleeps. Lists of candidates are as flat as those of SciFact, and queries repeat by Zipf's law.

use std::collections::HashSet;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hyperrag_core::{
    BlockKey, BlockRead, Chunk, ChunkId, Digest, DocId, Document, Fingerprint, KvBlock, KvDtype,
    KvShape, LayerSource, ShardId, Slot,
};
use hyperrag_store::{
    FORMAT_VERSION, IndexedDocument, ShardChunks, ShardInput, StoreWriter, TierChoice, Tiered,
};
use hyperrag_tiers::{FolderTier, RamTier, Throttled};

/// Tokens of a block here, and of one whose time is meant.
const TOKENS: u32 = 4;
const TOKENS_MEANT: u32 = 256;
/// Documents, one block each, all in one shard.
const BLOCKS: u32 = 5120;
/// Distinct queries, candidates of each, and queries before anything is timed.
const QUERIES: usize = 300;
const CANDIDATES: usize = 100;
const WARM: usize = 400;
/// Real time of a query without memory.
const UNIT: f64 = 0.05;
/// Threads that compute.
const THREADS: usize = 2;
const SKEWS: [f64; 4] = [0.6, 0.8, 1.0, 1.2];
const SHARES: [f64; 3] = [0.05, 0.1, 0.33];
/// Rates of the slow tier in bytes a second. The last is about that of a page cache.
const RATES: [u64; 4] = [50_000_000, 200_000_000, 1_000_000_000, 5_000_000_000];

/// Seeded numbers (splitmix64).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// Draws a number from 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Returns the place at which sums of the weights `1 / rank^skew` reach a share of all.
fn ranks(count: usize, skew: f64) -> impl Fn(f64) -> usize {
    let mut sum = 0.0;
    let weights = (1..=count).map(|rank| (rank as f64).powf(-skew));
    let sums: Vec<f64> = weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect();
    move |share| sums.partition_point(|sum| *sum <= share * sums[count - 1]).min(count - 1)
}

/// Returns the candidates of each query: a tenth of the documents takes about a quarter of the places.
fn lists() -> Vec<Vec<u32>> {
    let (mut seeded, documents) = (Seeded(1), ranks(BLOCKS as usize, 0.35));
    let mut list = || {
        let mut seen = HashSet::new();
        let mut list = Vec::new();
        while list.len() < CANDIDATES {
            let document = documents(seeded.share()) as u32;
            if seen.insert(document) {
                list.push(document);
            }
        }
        list
    };
    (0..QUERIES).map(|_| list()).collect()
}

/// Draws queries. Each run of `count` has every query as often as its weight says, so that runs are alike.
struct Log<R> {
    rank: R,
    seeded: Seeded,
}

impl<R: Fn(f64) -> usize> Log<R> {
    fn draw(&mut self, count: usize) -> Vec<usize> {
        let seeded = &mut self.seeded;
        let mut drawn: Vec<usize> =
            (0..count).map(|n| (self.rank)((n as f64 + seeded.share()) / count as f64)).collect();
        for n in (1..drawn.len()).rev() {
            drawn.swap(n, (seeded.next() % (n as u64 + 1)) as usize);
        }
        drawn
    }
}

fn fingerprint() -> Fingerprint {
    Fingerprint {
        format_version: FORMAT_VERSION,
        model: "none".into(),
        weights: Digest([1; 32]),
        tokenizer: Digest([2; 32]),
        profile: "plain".into(),
        profile_digest: Digest([3; 32]),
        chunk_tokens: TOKENS,
        unit_rows: BLOCKS,
        language: "english".into(),
        // Those of SmolLM2-135M.
        kv_shape: KvShape {
            layers: 30,
            kv_heads: 3,
            head_dim: 64,
            hidden: 576,
            kv_dtype: KvDtype::Bf16,
        },
        calibration: None,
        rope: "none".into(),
        dtype: "f32".into(),
        kernel: "none".into(),
    }
}

fn key(number: u32) -> Result<BlockKey, Box<dyn Error>> {
    let chunk = ChunkId { document: DocId::stored(&format!("d{number}"))?, ordinal: 0 };
    Ok(BlockKey { shard: ShardId(0), slot: Slot(number), chunk })
}

/// Builds a store of made-up blocks. Returns the length of its shards, in bytes.
fn build(root: &Path) -> Result<u64, Box<dyn Error>> {
    let fingerprint = fingerprint();
    let (mut seeded, kv_shape) = (Seeded(2), fingerprint.kv_shape);
    let mut writer = StoreWriter::open(root, &fingerprint, None)?;
    let (mut chunks, mut documents) = (Vec::new(), Vec::new());
    for number in 0..BLOCKS {
        let key = key(number)?;
        let (title, text) = (String::new(), String::new());
        let document = Document { id: key.chunk.document.clone(), title, text };
        let (row, first_slot) = (u64::from(number), key.slot);
        documents.push(IndexedDocument { row, document, first_slot, chunks: 1 });
        chunks.push(Chunk { id: key.chunk, tokens: vec![number; TOKENS as usize] });
    }
    let (shard, rows, replaces) = (ShardId(0), BLOCKS.into(), Vec::new());
    let (rows_digest, contents) = (Digest([4; 32]), ShardChunks { chunks, documents });
    let input = ShardInput { shard, rows, rows_digest, contents, replaces };
    let mut file = writer.begin(&input)?;
    for slot in (0..BLOCKS).map(Slot) {
        let bytes = TOKENS as usize * kv_shape.token_bytes();
        let kv = (0..bytes / 8).flat_map(|_| seeded.next().to_le_bytes()).collect();
        let hidden = vec![1.0; kv_shape.hidden as usize];
        file.write(slot, &KvBlock::new(kv_shape, TOKENS as usize, kv, hidden))?;
    }
    file.seal()?;
    Ok(writer.manifest().shards.iter().map(|record| record.kv.bytes).sum())
}

/// Reads blocks as a model does: each thread its part of them, layer by layer, and computes after each layer.
fn read(
    store: &Tiered,
    keys: &[BlockKey],
    layers: usize,
    compute: f64,
) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    let opened: Result<Vec<_>, _> = store.open_many(keys).into_iter().collect();
    let blocks: Option<Vec<_>> = opened?.into_iter().collect();
    let blocks = blocks.ok_or("a block is absent")?;
    let step = Duration::from_secs_f64(compute / layers as f64);
    let pass = |blocks: &[Box<dyn LayerSource + '_>]| -> Result<(), String> {
        let (mut buffer, mut busy) = (Vec::new(), start);
        for layer in 0..layers {
            for block in blocks {
                block.layer(layer, &mut buffer).map_err(|error| error.to_string())?;
                block.prefetch(layer + 2);
            }
            busy = busy.max(Instant::now()) + step;
            // What is too short to sleep for is slept for later.
            let left = busy.saturating_duration_since(Instant::now());
            if left > Duration::from_micros(200) || layer + 1 == layers {
                thread::sleep(left);
            }
        }
        for block in blocks {
            block.hidden().map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let parts = blocks.chunks(blocks.len().div_ceil(THREADS));
        let passes: Vec<_> = parts.map(|part| scope.spawn(|| pass(part))).collect();
        passes.into_iter().try_for_each(|pass| pass.join().unwrap_or(Err("a panic".to_owned())))
    })?;
    Ok(start.elapsed().as_secs_f64())
}

/// A store whose blocks come over a link, if need be with memory before it.
struct Setting {
    store: Tiered,
    link: Arc<Throttled<FolderTier>>,
    layers: usize,
    /// Length of the blocks of a query, in bytes.
    query_bytes: f64,
}

/// Mean latencies of queries in seconds of the time that is meant, and share of blocks that came from memory.
struct Timed {
    seconds: f64,
    seconds_without: f64,
    hit_rate: f64,
}

impl Setting {
    fn open(root: &Path, store_bytes: u64, share: f64) -> Result<Self, Box<dyn Error>> {
        let frame_bytes = (1 << 20) * u64::from(TOKENS) / u64::from(TOKENS_MEANT);
        let folder = FolderTier::new(root).with_frames(frame_bytes);
        let link = Arc::new(Throttled::new(Arc::new(folder), 0));
        let (bytes, patience) = (store_bytes / u64::from(BLOCKS), Duration::from_secs(60));
        let mut tiers = Vec::new();
        if share > 0.0 {
            let budget = (share * store_bytes as f64) as u64;
            let tier = Arc::new(RamTier::for_blocks(budget, bytes));
            tiers.push(TierChoice::Tier { tier, patience });
        }
        tiers.push(TierChoice::Tier { tier: Arc::clone(&link) as _, patience });
        let store = Tiered::open(root)?.with_tiers(tiers);
        let layers = store.kv_shape().layers as usize;
        Ok(Self { store, link, layers, query_bytes: bytes as f64 * CANDIDATES as f64 })
    }

    fn hits_and_misses(&self) -> (u64, u64) {
        let work = self.store.tier_work();
        let (memory, link) = (&work[0], &work[work.len() - 1]);
        if work.len() == 1 { (0, 0) } else { (memory.hits, link.hits) }
    }

    /// Times queries in turns with those of a setting without memory.
    fn time(
        &self,
        alone: &Self,
        queries: &[Vec<BlockKey>],
        rate: u64,
        compute: f64,
    ) -> Result<Timed, Box<dyn Error>> {
        let smaller = f64::from(TOKENS_MEANT / TOKENS);
        let load = smaller * self.query_bytes / rate as f64;
        // Real seconds of a second that is meant.
        let scale = UNIT / load.max(compute);
        for link in [&self.link, &alone.link] {
            link.set_rate((rate as f64 / smaller / scale) as u64);
        }
        let before = self.hits_and_misses();
        let (mut with, mut without) = (0.0, 0.0);
        for keys in queries {
            with += read(&self.store, keys, self.layers, compute * scale)?;
            without += read(&alone.store, keys, self.layers, compute * scale)?;
        }
        let after = self.hits_and_misses();
        let (hits, misses) = (after.0 - before.0, after.1 - before.1);
        let mean = |sum: f64| sum / queries.len() as f64 / scale;
        let hit_rate = hits as f64 / (hits + misses).max(1) as f64;
        Ok(Timed { seconds: mean(with), seconds_without: mean(without), hit_rate })
    }
}

#[expect(clippy::print_stdout, reason = "the figures are its output")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let computes = arguments.next().ok_or("usage: skew SECONDS,SECONDS [QUERIES]")?;
    let computes = computes.split(',').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let count = arguments.next().map_or(Ok(16), |count| count.parse())?;
    let folder = tempfile::tempdir()?;
    let bytes = build(folder.path())?;
    let lists: Result<Vec<Vec<BlockKey>>, _> =
        lists().iter().map(|list| list.iter().map(|number| key(*number)).collect()).collect();
    let lists = lists?;
    let cells = RATES.iter().flat_map(|rate| computes.iter().map(move |compute| (*rate, *compute)));
    let cells: Vec<(u64, f64)> = cells.collect();
    let alone = Setting::open(folder.path(), bytes, 0.0)?;
    for skew in SKEWS {
        for share in SHARES {
            let setting = Setting::open(folder.path(), bytes, share)?;
            let mut log = Log { rank: ranks(QUERIES, skew), seeded: Seeded(3) };
            let mut draw = |count| -> Vec<Vec<BlockKey>> {
                log.draw(count).into_iter().map(|n| lists[n].clone()).collect()
            };
            setting.link.set_rate(0);
            for keys in draw(WARM) {
                read(&setting.store, &keys, setting.layers, 0.0)?;
            }
            for (rate, compute) in &cells {
                let timed = setting.time(&alone, &draw(count), *rate, *compute)?;
                let cell = serde_json::json!({
                    "skew": skew, "share": share, "rate": rate, "compute_seconds": compute,
                    "hit_rate": timed.hit_rate, "seconds": timed.seconds,
                    "seconds_without": timed.seconds_without,
                });
                println!("{cell}");
            }
        }
    }
    Ok(())
}
