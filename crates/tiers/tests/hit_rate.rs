//! Hit rate of the tier in memory, beside a tier that drops what was asked for longest ago.

#![expect(clippy::print_stdout, reason = "the figures are worth reading")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyperrag_core::{Answer, Blob, BlobKey, FetchSink, Piece, ShardId, Slot, Tier};
use hyperrag_tiers::RamTier;

/// Documents of the log, one block each.
const BLOCKS: u32 = 5183;
/// Distinct queries, and candidates of each.
const QUERIES: usize = 300;
const CANDIDATES: usize = 100;
/// Queries of the log, and those of them before which nothing is counted.
const ASKED: usize = 3000;
const WARM: usize = 500;

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

    /// Draws a number below `sums.len()`, by sums of weights.
    fn draw(&mut self, sums: &[f64]) -> usize {
        let at = (self.next() >> 11) as f64 / (1u64 << 53) as f64 * sums[sums.len() - 1];
        sums.partition_point(|sum| *sum <= at)
    }
}

/// Returns sums of the weights `1 / rank^skew`.
fn sums(count: usize, skew: f64) -> Vec<f64> {
    let weights = (1..=count).map(|rank| (rank as f64).powf(-skew));
    weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect()
}

/// Returns the candidates of each query of the log. Lists are as flat as those of SciFact, where a tenth of the
/// documents takes 22 % of the reads of 300 queries (here 25). Queries repeat by Zipf(1.0).
fn log() -> Vec<Vec<u32>> {
    let mut seeded = Seeded(1);
    let documents = sums(BLOCKS as usize, 0.35);
    let lists: Vec<Vec<u32>> = (0..QUERIES)
        .map(|_| {
            let mut seen = HashSet::new();
            let mut list = Vec::new();
            while list.len() < CANDIDATES {
                let document = u32::try_from(seeded.draw(&documents)).unwrap();
                if seen.insert(document) {
                    list.push(document);
                }
            }
            list
        })
        .collect();
    let mut reads: HashMap<u32, usize> = HashMap::new();
    lists.iter().flatten().for_each(|block| *reads.entry(*block).or_default() += 1);
    let mut reads: Vec<usize> = reads.into_values().collect();
    reads.sort_unstable_by(|a, b| b.cmp(a));
    let hottest: usize = reads[..BLOCKS as usize / 10].iter().sum();
    let share = hottest as f64 / (QUERIES * CANDIDATES) as f64;
    println!("the hottest tenth of the blocks takes {share:.3} of the reads of all lists");
    assert!((0.20..0.26).contains(&share), "{share}");
    let queries = sums(QUERIES, 1.0);
    (0..ASKED).map(|_| lists[seeded.draw(&queries)].clone()).collect()
}

/// Returns the share of reads that `read` has, after the first queries.
fn hit_rate(log: &[Vec<u32>], mut read: impl FnMut(u32) -> bool) -> f64 {
    let mut hits = 0;
    for (n, list) in log.iter().enumerate() {
        for block in list {
            let hit = read(*block);
            hits += usize::from(hit && n >= WARM);
        }
    }
    hits as f64 / ((ASKED - WARM) * CANDIDATES) as f64
}

/// Reads through a list of `room` blocks that drops what was asked for longest ago.
fn least_recently_used(room: usize) -> impl FnMut(u32) -> bool {
    let (mut when, mut order, mut now) = (HashMap::new(), BTreeMap::new(), 0_u64);
    move |block| {
        now += 1;
        let before = when.insert(block, now);
        if let Some(before) = before {
            order.remove(&before);
        }
        order.insert(now, block);
        if order.len() > room {
            let (_, dropped) = order.pop_first().unwrap();
            when.remove(&dropped);
        }
        before.is_some()
    }
}

struct Last(Mutex<Option<Answer>>);

impl FetchSink for Last {
    fn deliver(&self, _: usize, answer: Answer) {
        *self.0.lock().unwrap() = Some(answer);
    }
}

/// Reads through a tier, and puts what it does not have, as a reader does.
fn through(tier: &RamTier, bytes: &Bytes) -> impl FnMut(u32) -> bool {
    let last = Arc::new(Last(Mutex::default()));
    move |block| {
        let key = BlobKey { table: [7; 16], slot: Slot(block) };
        let blob = Blob { key, shard: ShardId(0), offset: 0, bytes: bytes.len() as u64 };
        let sink = Arc::clone(&last) as Arc<dyn FetchSink>;
        tier.fetch(&[Piece { blob, frame: 0 }], Duration::ZERO, sink);
        let hit = last.0.lock().unwrap().take().unwrap().unwrap().is_some();
        if !hit {
            tier.put(&blob, bytes).unwrap();
        }
        hit
    }
}

#[test]
fn a_tenth_of_the_blocks_in_memory_answers_far_more_than_a_list_by_age() {
    let (log, room) = (log(), BLOCKS as usize / 10);
    let by_age = hit_rate(&log, least_recently_used(room));
    println!("least recently used: {by_age:.3}");
    // One allocation stands for all blocks.
    let bytes = Bytes::from(vec![7; 4 << 20]);
    let budget = room as u64 * bytes.len() as u64;
    for usual in [1_u64 << 20, 2 << 20, 4 << 20, 8 << 20, 16 << 20] {
        let tier = RamTier::for_blocks(budget, usual);
        let rate = hit_rate(&log, through(&tier, &bytes));
        println!("memory, {} MiB as the usual length: {rate:.3}", usual >> 20);
        assert!(tier.held_bytes() <= budget);
        assert!(rate >= 0.37, "{rate}");
    }
    assert!(by_age < 0.32, "{by_age}: the log is no test");
}
