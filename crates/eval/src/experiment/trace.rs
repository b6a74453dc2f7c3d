//! Queries of a seeded trace over tiers that are described, not built: lists of candidates and prices in; hit rates,
//! bytes and times out. A cache keeps blocks by the policy of the tier in memory, which is the real one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyperrag_core::{Answer, Blob, BlobKey, FetchSink, Piece, ShardId, Slot};
use hyperrag_engine::open::tiers::{OpenTier, TierLogins, TierOpenError, TierSpec};
use serde::Serialize;

use crate::metric::run::Run;
use crate::metric::stats::Summary;

/// Bytes that stand for a block in a simulated cache. What a real one keeps beside them is half a percent.
const BLOCK_BYTES: u64 = 64 << 10;
/// Largest number of blocks of a simulation. A larger corpus is simulated by a part of it, with caches that are
/// as much smaller.
pub const BLOCKS_MAX: u64 = 1 << 18;
/// Part of the queries before which nothing is counted.
const WARM_PART: usize = 6;
/// Skew of the documents of synthetic lists, by Zipf's law. A tenth of the documents gets a quarter of the reads, as
/// of SciFact's lists.
const DOCUMENT_SKEW: f64 = 0.35;

/// Lists of candidates: block numbers for each distinct query.
#[derive(Clone, Debug, PartialEq)]
pub struct CandidateLists {
    lists: Vec<Vec<u32>>,
    blocks: u32,
}

impl CandidateLists {
    /// Draws lists of `depth` different blocks of `blocks`, for `queries` queries.
    #[must_use]
    pub fn drawn(blocks: u32, depth: usize, queries: usize, seed: u64) -> Self {
        let mut drawing = Drawing(seed);
        let sums = zipf_sums(blocks as usize, DOCUMENT_SKEW);
        let depth = depth.min(blocks as usize);
        let list = |_| {
            let (mut seen, mut list) = (HashSet::new(), Vec::new());
            // Rare blocks of a nearly full list would be drawn for long: they are taken in order.
            let mut draws = 20 * depth;
            while list.len() < depth && draws > 0 {
                let block = drawing.draw(&sums) as u32;
                draws -= 1;
                if seen.insert(block) {
                    list.push(block);
                }
            }
            let rest = (0..blocks).filter(|block| !seen.contains(block));
            list.extend(rest.take(depth - list.len()));
            list
        };
        Self { lists: (0..queries).map(list).collect(), blocks }
    }

    /// Takes the first `depth` documents of each query of a run, in its order. `None` if it names none.
    #[must_use]
    pub fn of_run(run: &Run, depth: usize) -> Option<Self> {
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut lists = Vec::new();
        for (_, hits) in run.queries() {
            let mut list = Vec::new();
            for hit in hits.iter().take(depth) {
                let next = u32::try_from(numbers.len()).ok()?;
                list.push(*numbers.entry(&hit.document).or_insert(next));
            }
            lists.push(list);
        }
        let blocks = u32::try_from(numbers.len()).ok().filter(|blocks| *blocks > 0)?;
        Some(Self { lists, blocks })
    }

    /// Returns the number of blocks that may be read.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Returns the number of distinct queries.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.lists.len()
    }
}

/// A tier as it is described.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedTier {
    /// Name of the tier.
    pub name: String,
    /// Share of all blocks that it has room for; `None` for a home, which holds all.
    pub share: Option<f64>,
    /// Seconds to the first byte.
    pub latency_seconds: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
}

/// Settings of a simulation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TraceSettings {
    /// Number of queries, the warm ones included.
    pub queries: usize,
    /// Skew by which queries repeat (Zipf); 0 for queries that are all as frequent.
    pub query_skew: f64,
    /// Seed of the draws.
    pub seed: u64,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Seconds to score a query on a block.
    pub query_seconds: f64,
}

/// Work of a tier in a simulation, after the warm queries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SimulatedTier {
    /// Name of the tier.
    pub name: String,
    /// Blocks that it was asked for.
    pub asked: u64,
    /// Blocks that it gave.
    pub hits: u64,
    /// Share of the blocks asked for that it gave.
    pub hit_rate: f64,
    /// Share of all reads that it served.
    pub share_of_reads: f64,
    /// Bytes that it gave for a query, on average.
    pub bytes_a_query: f64,
}

/// Result of a simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SimulatedTrace {
    /// Queries that were counted.
    pub queries: usize,
    /// Distinct queries of the trace.
    pub distinct_queries: usize,
    /// Blocks of the simulation.
    pub blocks: u32,
    /// Share of the reads that the most read tenth of the blocks has, over all lists.
    pub hottest_tenth: f64,
    /// Each tier, in the order in which they are asked.
    pub tiers: Vec<SimulatedTier>,
    /// Times of a query on an idle machine, in seconds.
    pub seconds: Summary,
}

/// Why nothing was simulated.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// No tier holds all blocks.
    #[error("the last tier must have no size: it holds all blocks")]
    NoHome,
    /// No query is left to be counted.
    #[error("there are too few queries to simulate")]
    TooFew,
    /// A cache that cannot be made.
    #[error(transparent)]
    Tier(#[from] TierOpenError),
}

/// Runs a trace over tiers. Each query reads its blocks from the first tier that has them, and every cache before
/// that takes them in. A tier gives a query's blocks one after the other, all tiers at once, while blocks are
/// scored.
///
/// # Errors
/// [`TraceError`].
pub fn simulate(
    lists: &CandidateLists,
    tiers: &[DescribedTier],
    settings: TraceSettings,
) -> Result<SimulatedTrace, TraceError> {
    if tiers.last().is_none_or(|home| home.share.is_some()) {
        return Err(TraceError::NoHome);
    }
    let room = |share: f64| (share * f64::from(lists.blocks)).round() as u64;
    let caches = tiers.iter().map(|tier| tier.share.map(|share| cache(room(share))).transpose());
    let mut caches = caches.collect::<Result<Vec<_>, _>>()?;
    let mut drawing = Drawing(settings.seed ^ 0x5eed);
    let sums = zipf_sums(lists.lists.len(), settings.query_skew);
    let warm = settings.queries / WARM_PART;
    let (mut asked, mut hits) = (vec![0_u64; tiers.len()], vec![0_u64; tiers.len()]);
    let mut seconds = Vec::new();
    for query in 0..settings.queries {
        let list = &lists.lists[drawing.draw(&sums)];
        let mut given = vec![0_u64; tiers.len()];
        for block in list {
            for (tier, cache) in caches.iter_mut().enumerate() {
                asked[tier] += u64::from(query >= warm);
                if cache.as_mut().is_none_or(|cache| cache(*block)) {
                    given[tier] += 1;
                    break;
                }
            }
        }
        if query >= warm {
            hits.iter_mut().zip(&given).for_each(|(all, given)| *all += given);
            seconds.push(seconds_of(list.len(), &given, tiers, settings));
        }
    }
    let summary = Summary::of(&seconds).ok_or(TraceError::TooFew)?;
    let counted = seconds.len() as f64;
    let reads = hits.iter().sum::<u64>().max(1) as f64;
    let tier = |((tier, asked), hits): ((&DescribedTier, &u64), &u64)| SimulatedTier {
        name: tier.name.clone(),
        asked: *asked,
        hits: *hits,
        hit_rate: *hits as f64 / (*asked).max(1) as f64,
        share_of_reads: *hits as f64 / reads,
        bytes_a_query: *hits as f64 * settings.block_bytes as f64 / counted,
    };
    Ok(SimulatedTrace {
        queries: seconds.len(),
        distinct_queries: lists.lists.len(),
        blocks: lists.blocks,
        hottest_tenth: hottest_tenth(lists),
        tiers: tiers.iter().zip(&asked).zip(&hits).map(tier).collect(),
        seconds: summary,
    })
}

/// Returns the time of a query whose blocks come from several tiers at once.
fn seconds_of(
    candidates: usize,
    given: &[u64],
    tiers: &[DescribedTier],
    settings: TraceSettings,
) -> f64 {
    let load = |(given, tier): (&u64, &DescribedTier)| match given {
        0 => 0.0,
        given => {
            let bytes = *given as f64 * settings.block_bytes as f64;
            tier.latency_seconds + bytes / tier.bytes_per_second
        }
    };
    let loading = given.iter().zip(tiers).map(load).fold(0.0, f64::max);
    loading.max(candidates as f64 * settings.query_seconds) + settings.query_seconds
}

/// Returns the share of the reads that the most read tenth of the blocks has.
fn hottest_tenth(lists: &CandidateLists) -> f64 {
    let mut reads = vec![0_u64; lists.blocks as usize];
    lists.lists.iter().flatten().for_each(|block| reads[*block as usize] += 1);
    reads.sort_unstable_by(|a, b| b.cmp(a));
    let hottest: u64 = reads[..(reads.len() / 10).max(1)].iter().sum();
    hottest as f64 / reads.iter().sum::<u64>().max(1) as f64
}

/// The last answer of a tier.
#[derive(Default)]
struct LastAnswer(Mutex<Option<Answer>>);

impl FetchSink for LastAnswer {
    fn deliver(&self, _: usize, answer: Answer) {
        // A poisoned lock would mean a panic, at which the program ends.
        if let Ok(mut last) = self.0.lock() {
            *last = Some(answer);
        }
    }
}

/// Makes a cache with room for so many blocks: the tier in memory. It tells whether it had a block, and takes in one
/// that it had not.
fn cache(blocks: u64) -> Result<impl FnMut(u32) -> bool, TierOpenError> {
    // The tier counts keys and the headers of allocations too.
    let budget = blocks.saturating_mul(BLOCK_BYTES + 256).max(1);
    let spec = TierSpec::Ram { bytes: budget };
    let opened = OpenTier::open(&spec, &TierLogins::default(), BLOCK_BYTES)?;
    let tier = opened.map(|opened| opened.tier);
    // One allocation stands for all blocks.
    let bytes = vec![0_u8; BLOCK_BYTES as usize].into();
    let last = Arc::new(LastAnswer::default());
    Ok(move |block: u32| {
        let Some(tier) = &tier else { return false };
        let key = BlobKey { table: [0; 16], slot: Slot(block) };
        let blob = Blob { key, shard: ShardId(0), offset: 0, bytes: BLOCK_BYTES };
        let sink = Arc::clone(&last) as Arc<dyn FetchSink>;
        tier.fetch(&[Piece { blob, frame: 0 }], Duration::ZERO, sink);
        let answer = last.0.lock().ok().and_then(|mut last| last.take());
        let hit = matches!(answer, Some(Ok(Some(_))));
        if !hit {
            // A cache without room for one block takes none in.
            let _ = tier.put(&blob, &bytes);
        }
        hit
    })
}

/// Returns sums of the weights `1 / rank^skew`.
fn zipf_sums(count: usize, skew: f64) -> Vec<f64> {
    let weights = (1..=count).map(|rank| (rank as f64).powf(-skew));
    let sums = weights.scan(0.0, |sum, weight| {
        *sum += weight;
        Some(*sum)
    });
    sums.collect()
}

/// Seeded numbers: splitmix64 (Steele, Lea and Flood 2014).
struct Drawing(u64);

impl Drawing {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws an index by sums of weights; 0 if there are none.
    fn draw(&mut self, sums: &[f64]) -> usize {
        let all = sums.last().copied().unwrap_or(0.0);
        let at = (self.next() >> 11) as f64 / (1_u64 << 53) as f64 * all;
        sums.partition_point(|sum| *sum <= at).min(sums.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: TraceSettings = TraceSettings {
        queries: 3000,
        query_skew: 1.0,
        seed: 1,
        block_bytes: 5_900_544,
        query_seconds: 1e-3,
    };

    fn tier(name: &str, share: Option<f64>, bytes_per_second: f64) -> DescribedTier {
        DescribedTier { name: name.to_owned(), share, latency_seconds: 1e-3, bytes_per_second }
    }

    #[test]
    fn a_tenth_in_memory_answers_two_fifths_of_scifacts_reads() {
        let lists = CandidateLists::drawn(5183, 100, 300, 1);
        let tiers = [tier("ram", Some(0.1), 1e10), tier("disk", None, 1e9)];
        let found = simulate(&lists, &tiers, SETTINGS).unwrap();
        let ram = &found.tiers[0];
        assert!((0.37..0.50).contains(&ram.hit_rate), "{found:?}");
        assert!((0.2..0.3).contains(&found.hottest_tenth), "{found:?}");
        assert_eq!(found.tiers[1].asked, ram.asked - ram.hits);
        assert_eq!(found.tiers[1].hits, found.tiers[1].asked, "a home has all");
        assert_eq!((found.queries, ram.asked), (2500, 250_000));
        let bytes: f64 = found.tiers.iter().map(|tier| tier.bytes_a_query).sum();
        assert!((bytes / (100.0 * 5_900_544.0) - 1.0).abs() < 1e-9, "{bytes}");
        // The same seed gives the same trace.
        assert_eq!(simulate(&lists, &tiers, SETTINGS).unwrap(), found);
        let other = TraceSettings { seed: 2, ..SETTINGS };
        assert_ne!(simulate(&lists, &tiers, other).unwrap(), found);
    }

    #[test]
    fn more_room_hits_more_and_answers_sooner() {
        let lists = CandidateLists::drawn(2000, 50, 100, 3);
        let of = |share| {
            let tiers = [tier("ram", Some(share), 1e10), tier("s3", None, 2e8)];
            let found = simulate(&lists, &tiers, SETTINGS).unwrap();
            (found.tiers[0].hit_rate, found.seconds.mean)
        };
        let rooms = [0.0, 0.1, 0.3, 0.6, 2.0].map(of);
        assert_eq!(rooms[0].0, 0.0);
        assert!(
            rooms.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 > pair[1].1),
            "{rooms:?}"
        );
        // With room for all, only the first read of a block misses.
        assert!(rooms[4].0 > 0.95, "{rooms:?}");
    }

    #[test]
    fn times_are_those_of_the_slowest_tier_or_of_scoring() {
        let tiers = [tier("a", Some(1.0), 5_900_544.0), tier("b", None, 2.0 * 5_900_544.0)];
        // Two seconds from a, and a half from b, while four blocks are scored.
        let seconds = seconds_of(3, &[2, 1], &tiers, SETTINGS);
        assert!((seconds - (2.001 + 0.001)).abs() < 1e-9, "{seconds}");
        let slow = TraceSettings { query_seconds: 1.0, ..SETTINGS };
        assert!((seconds_of(3, &[2, 1], &tiers, slow) - 4.0).abs() < 1e-9);
    }

    #[test]
    fn lists_come_from_a_run() {
        let text = "q1 Q0 a 1 3 t\nq1 Q0 b 2 2 t\nq1 Q0 c 3 1 t\nq2 Q0 b 1 3 t\nq2 Q0 d 2 2 t\n";
        let run = Run::parse(text.as_bytes(), "run").unwrap();
        let lists = CandidateLists::of_run(&run, 2).unwrap();
        assert_eq!(lists.lists, [vec![0, 1], vec![1, 2]]);
        assert_eq!((lists.blocks(), lists.queries()), (3, 2));
        assert_eq!(CandidateLists::of_run(&Run::default(), 2), None);
    }

    #[test]
    fn tiers_without_a_home_and_too_few_queries_are_refused() {
        let lists = CandidateLists::drawn(10, 5, 3, 1);
        // A list of all blocks is drawn to its end.
        assert_eq!(CandidateLists::drawn(10, 20, 1, 1).lists[0].len(), 10);
        let none = simulate(&lists, &[tier("ram", Some(0.5), 1e9)], SETTINGS);
        assert!(matches!(none, Err(TraceError::NoHome)), "{none:?}");
        let few = TraceSettings { queries: 0, ..SETTINGS };
        let none = simulate(&lists, &[tier("s3", None, 1e9)], few);
        assert!(matches!(none, Err(TraceError::TooFew)), "{none:?}");
    }
}
