//! The planner against always loading and always computing, over simulated tiers: seeded, without a clock.

#![expect(clippy::print_stdout, reason = "the figures are worth reading")]

use hyperrag_rerank::{
    BothEnds, CostModel, Fetched, ModelRates, PlannedBlock, Step, TierEstimate, TierSpeed, TierWait,
};

/// Bandwidths from 10 MB/s to 10 GB/s, and latencies.
const BANDWIDTHS: [f64; 13] = [1e7, 2e7, 3e7, 4e7, 6e7, 1e8, 2e8, 3e8, 6e8, 1e9, 2e9, 5e9, 1e10];
const LATENCIES: [f64; 3] = [5e-4, 0.02, 0.2];
/// SmolLM2 in bf16 on two cores, and Gemma-2B in bf16 on an A100: bytes of a block, tokens a second.
const MODELS: [(u64, f64); 2] = [(5_900_544, 1400.0), (4_726_784, 31_000.0)];
/// Candidates of a query.
const BLOCKS: usize = 100;

/// Seeded numbers (splitmix64).
struct Seeded(u64);

impl Seeded {
    /// Returns a number from 0 to below 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A tier as it really is: blocks come one after the other, and the bandwidth changes at a moment.
#[derive(Clone, Copy)]
struct RealTier {
    latency: f64,
    bandwidth: f64,
    changes_at: f64,
    factor: f64,
    /// Seed by which each block takes from half to one and a half of its time.
    jitter: Option<u64>,
}

impl RealTier {
    fn steady(latency: f64, bandwidth: f64) -> Self {
        Self { latency, bandwidth, changes_at: f64::INFINITY, factor: 1.0, jitter: None }
    }

    /// Returns the moment at which block `at` of `bytes` has come that begins to come at `start`.
    fn end(&self, start: f64, at: usize, bytes: u64) -> f64 {
        let stretch = |seed| 0.5 + Seeded(seed + 1000 * at as u64).next();
        let bytes = bytes as f64 * self.jitter.map_or(1.0, stretch);
        let before = (self.changes_at - start).max(0.0);
        let end = start + bytes / self.bandwidth;
        if end <= self.changes_at {
            return end;
        }
        let left = bytes - before * self.bandwidth;
        start.max(self.changes_at) + left / (self.bandwidth * self.factor)
    }

    fn speed(&self) -> TierEstimate {
        TierEstimate { latency_seconds: self.latency, bytes_per_second: self.bandwidth }
    }
}

fn rates(tokens_per_second: f64) -> ModelRates {
    ModelRates {
        prefill_tokens_per_second: tokens_per_second,
        query_tokens_per_second: tokens_per_second,
    }
}

/// Returns the blocks of a query: all of one length, or from a quarter of it to all of it.
fn blocks(bytes: u64, seed: Option<u64>) -> Vec<PlannedBlock> {
    let mut seeded = seed.map(Seeded);
    let block = |_| {
        let share = seeded.as_mut().map_or(1.0, |seeded| 0.25 + 0.75 * seeded.next());
        let tokens = (256.0 * share).round();
        let bytes = (bytes as f64 * tokens / 256.0) as u64;
        PlannedBlock { bytes, tokens: tokens as u32, query_tokens: 20, tier: 0 }
    };
    (0..BLOCKS).map(block).collect()
}

fn seconds_of_all_computed(blocks: &[PlannedBlock], rate: f64) -> f64 {
    blocks.iter().map(|block| f64::from(block.tokens + block.query_tokens) / rate).sum()
}

fn seconds_of_all_loaded(blocks: &[PlannedBlock], tier: &RealTier, rate: f64) -> f64 {
    let (mut came, mut scored) = (tier.latency, 0.0_f64);
    for (at, block) in blocks.iter().enumerate() {
        came = tier.end(came, at, block.bytes);
        scored = scored.max(came) + f64::from(block.query_tokens) / rate;
    }
    scored
}

/// A run of the planner over a real tier.
struct Run<'a> {
    blocks: &'a [PlannedBlock],
    tier: RealTier,
    rate: f64,
    ends: BothEnds,
    speed: TierSpeed,
    /// Block under way, and the moment at which it has come.
    under_way: Option<(usize, f64)>,
    /// Moment of the last delivery, or of the first request.
    since: f64,
    is_first: bool,
}

impl Run<'_> {
    /// Has the tier deliver all that comes until `now`.
    fn deliver_until(&mut self, now: f64) {
        while let Some((at, end)) = self.under_way.filter(|(_, end)| *end <= now) {
            let (bytes, seconds) = (self.blocks[at].bytes, end - self.since);
            self.speed.note(Fetched { bytes, seconds, was_idle: self.is_first });
            (self.since, self.is_first) = (end, false);
            self.ends.arrived(at);
            self.load_next(end);
        }
    }

    fn load_next(&mut self, start: f64) {
        let next = self.ends.next_load(0);
        self.under_way = next.map(|at| (at, self.tier.end(start, at, self.blocks[at].bytes)));
    }
}

/// Returns the seconds that the planner takes, beginning with the estimate `believed`.
fn seconds_of_planner(
    blocks: &[PlannedBlock],
    tier: RealTier,
    rate: f64,
    believed: TierEstimate,
    recompute_at_once: usize,
) -> f64 {
    let tiers = [believed];
    let costs = CostModel { tiers: &tiers, rates: rates(rate) };
    let ends = BothEnds::new(blocks, &costs, recompute_at_once);
    let speed = TierSpeed::new(believed);
    let mut run =
        Run { blocks, tier, rate, ends, speed, under_way: None, since: 0.0, is_first: true };
    run.load_next(tier.latency);
    let (mut now, mut handed_out) = (0.0, 0);
    loop {
        run.deliver_until(now);
        let tiers = [run.speed.estimate()];
        let costs = CostModel { tiers: &tiers, rates: rates(run.rate) };
        let waits = [TierWait { seconds: now - run.since, is_first: run.is_first }];
        match run.ends.next_step(&costs, &waits) {
            Step::Score(taken) => {
                handed_out += taken.len();
                let tokens: u32 = taken.iter().map(|at| blocks[*at].query_tokens).sum();
                now += f64::from(tokens) / rate;
            }
            Step::Recompute(taken) => {
                handed_out += taken.len();
                if run.under_way.is_some_and(|(at, _)| taken.contains(&at)) {
                    run.under_way = None;
                }
                let block = |at: &usize| blocks[*at].tokens + blocks[*at].query_tokens;
                now += f64::from(taken.iter().map(block).sum::<u32>()) / rate;
            }
            Step::Wait { seconds } => {
                let (_, end) = run.under_way.expect("something is under way");
                now = end.min(now + seconds).max(now + 1e-9);
            }
            Step::Done => break,
        }
    }
    assert_eq!(handed_out, blocks.len(), "each block is scored once");
    now
}

/// Runs `compared` on each model, bandwidth and latency.
fn each_tier(mut compared: impl FnMut(u64, f64, RealTier)) {
    for (bytes, rate) in MODELS {
        for latency in LATENCIES {
            for bandwidth in BANDWIDTHS {
                compared(bytes, rate, RealTier::steady(latency, bandwidth));
            }
        }
    }
}

/// Returns the planner's time over the better of always loading and always computing, where so many blocks are
/// computed at once.
fn ratio(
    blocks: &[PlannedBlock],
    tier: RealTier,
    rate: f64,
    believed: TierEstimate,
    at_once: usize,
) -> f64 {
    let better =
        seconds_of_all_loaded(blocks, &tier, rate).min(seconds_of_all_computed(blocks, rate));
    seconds_of_planner(blocks, tier, rate, believed, at_once) / better
}

#[test]
fn it_is_never_a_tenth_slower_than_the_better_of_both() {
    let (mut best, mut worst) = (f64::INFINITY, 0.0_f64);
    each_tier(|bytes, rate, tier| {
        for (seed, at_once) in [(None, 1), (None, 8), (Some(1), 1), (Some(2), 4)] {
            for jitter in [None, seed] {
                let tier = RealTier { jitter, ..tier };
                let found = ratio(&blocks(bytes, seed), tier, rate, tier.speed(), at_once);
                let RealTier { latency, bandwidth, .. } = tier;
                assert!(
                    found <= 1.10,
                    "{found}: {rate} tokens/s, {bandwidth} B/s, {latency} s, {jitter:?}, {at_once}"
                );
                (best, worst) = (best.min(found), worst.max(found));
            }
        }
    });
    println!("time over the better of both: {best:.3} to {worst:.3}");
    assert!(best < 0.6 && worst > 0.9, "{best} to {worst}: nothing is compared");
}

#[test]
fn it_is_nearly_twice_as_fast_at_the_crossing() {
    for (bytes, rate) in MODELS {
        // Here both take the same time, but for the latency.
        let bandwidth = bytes as f64 / (256.0 / rate);
        for latency in [5e-4, 0.02] {
            let tier = RealTier::steady(latency, bandwidth);
            let found = ratio(&blocks(bytes, None), tier, rate, tier.speed(), 1);
            println!("at the crossing: {found:.3}");
            assert!(found <= 0.65, "{found}: {rate} tokens/s, {latency} s");
        }
    }
}

#[test]
fn a_bandwidth_that_changes_tenfold_half_way_costs_at_most_a_tenth() {
    let mut worst = 0.0_f64;
    each_tier(|bytes, rate, steady| {
        let blocks = blocks(bytes, None);
        let better = seconds_of_all_loaded(&blocks, &steady, rate)
            .min(seconds_of_all_computed(&blocks, rate));
        for factor in [0.1, 10.0] {
            let tier = RealTier { changes_at: better / 2.0, factor, ..steady };
            let found = ratio(&blocks, tier, rate, steady.speed(), 1);
            worst = worst.max(found);
            let RealTier { latency, bandwidth, .. } = tier;
            assert!(
                found <= 1.10,
                "{found}: {rate} tokens/s, {bandwidth} B/s times {factor}, {latency} s"
            );
        }
    });
    println!("with a tenfold change: at most {worst:.3}");
}

#[test]
fn a_wrong_belief_is_corrected_while_it_works() {
    each_tier(|bytes, rate, tier| {
        for factor in [1.0 / 3.0, 3.0] {
            let bytes_per_second = factor * tier.bandwidth;
            let believed = TierEstimate { bytes_per_second, ..tier.speed() };
            let found = ratio(&blocks(bytes, None), tier, rate, believed, 1);
            let RealTier { latency, bandwidth, .. } = tier;
            assert!(
                found <= 1.15,
                "{found}: {rate} tokens/s, {bandwidth} B/s believed times {factor}, {latency} s"
            );
        }
    });
}

/// Returns what is computed before anything has come, if each tier was asked for one block.
fn computed_at_once(blocks: &[PlannedBlock], costs: &CostModel<'_>, at_once: usize) -> Vec<usize> {
    let mut ends = BothEnds::new(blocks, costs, at_once);
    let asked = TierWait { seconds: 0.0, is_first: true };
    let waits: Vec<TierWait> = costs.tiers.iter().map(|_| asked).collect();
    for tier in 0..costs.tiers.len() {
        let _ = ends.next_load(tier);
    }
    match ends.next_step(costs, &waits) {
        Step::Recompute(taken) => taken,
        _ => Vec::new(),
    }
}

#[test]
fn the_blocks_of_the_slower_of_two_tiers_are_computed() {
    let mut both = blocks(5_900_544, None);
    both.iter_mut().step_by(2).for_each(|block| block.tier = 1);
    let tiers =
        [1e9, 5e6].map(|bytes_per_second| TierEstimate { latency_seconds: 5e-4, bytes_per_second });
    let costs = CostModel { tiers: &tiers, rates: rates(1400.0) };
    let taken = computed_at_once(&both, &costs, 100);
    assert!(taken.len() > 15 && taken.iter().all(|at| both[*at].tier == 1), "{taken:?}");
    // Blocks of a tier that nobody measured are computed.
    let unknown = PlannedBlock { tier: 7, ..both[0] };
    assert_eq!(computed_at_once(&[unknown], &costs, 1), [0]);
}

#[test]
fn a_block_that_moves_to_another_tier_comes_from_there() {
    let blocks = &blocks(5_900_544, None)[..4];
    let tiers =
        [1e9, 5e6].map(|bytes_per_second| TierEstimate { latency_seconds: 5e-4, bytes_per_second });
    let costs = CostModel { tiers: &tiers, rates: rates(1400.0) };
    let mut ends = BothEnds::new(blocks, &costs, 1);
    (0..4).for_each(|at| assert_eq!(ends.next_load(0), Some(at)));
    let asked = TierWait { seconds: 0.0, is_first: true };
    assert!(matches!(ends.next_step(&costs, &[asked, asked]), Step::Wait { .. }));
    // The other tier takes 1.2 s a block: it is sooner computed.
    ends.moved(1, 1);
    ends.moved(2, 1);
    assert_eq!((ends.tier(0), ends.tier(2)), (0, 1));
    assert_eq!(ends.next_step(&costs, &[asked, asked]), Step::Recompute(vec![2]));
    // What came or was computed moves no more.
    ends.arrived(0);
    ends.moved(0, 1);
    ends.moved(2, 0);
    assert_eq!((ends.tier(0), ends.tier(2)), (0, 1));
    assert_eq!(ends.next_step(&costs, &[asked, asked]), Step::Score(vec![0]));
    [1, 3].into_iter().for_each(|at| ends.arrived(at));
    assert_eq!(ends.next_step(&costs, &[asked, asked]), Step::Score(vec![1, 3]));
    assert_eq!(ends.next_step(&costs, &[asked, asked]), Step::Done);
}

#[test]
fn all_are_read_as_they_come_where_loading_keeps_up() {
    let blocks = blocks(5_900_544, None);
    // Scoring takes 1.4 s, computing everything 20 s.
    for (bytes_per_second, expected) in [(1e8, false), (2e8, true), (5e8, true), (1e10, true)] {
        let tiers = [TierEstimate { latency_seconds: 5e-4, bytes_per_second }];
        let costs = CostModel { tiers: &tiers, rates: rates(1400.0) };
        let mut ends = BothEnds::new(&blocks, &costs, 4);
        (0..2).for_each(|at| assert_eq!(ends.next_load(0), Some(at)));
        let asked = TierWait { seconds: 0.0, is_first: true };
        assert_eq!(ends.keeps_up(&costs, &[asked]), expected, "{bytes_per_second}");
        // A tier that is long overdue is slow.
        let overdue = TierWait { seconds: 30.0, is_first: true };
        assert!(!ends.keeps_up(&costs, &[overdue]));
        ends.arrived(1);
        let rest = ends.take_rest();
        assert_eq!((rest.len(), rest[0], rest[1]), (100, 1, 0));
        assert_eq!(ends.next_step(&costs, &[asked]), Step::Done);
    }
    // Where queries are as long as chunks, computing is near: a tier that becomes slow would be too late.
    let long: Vec<PlannedBlock> =
        blocks.iter().map(|block| PlannedBlock { query_tokens: 256, ..*block }).collect();
    let tiers = [TierEstimate { latency_seconds: 5e-4, bytes_per_second: 5e7 }];
    let costs = CostModel { tiers: &tiers, rates: rates(1400.0) };
    let ends = BothEnds::new(&long, &costs, 4);
    assert!(!ends.keeps_up(&costs, &[TierWait::NOT_ASKED]));
}

#[test]
fn the_last_block_tells_the_speed_of_the_model() {
    let blocks = &blocks(5_900_544, None)[..4];
    let tiers = [TierEstimate { latency_seconds: 5e-4, bytes_per_second: 1e6 }];
    let unknown = rates(0.0);
    let costs = CostModel { tiers: &tiers, rates: unknown };
    let mut ends = BothEnds::new(blocks, &costs, 4);
    let asked = [TierWait { seconds: 5.0, is_first: true }];
    (0..2).for_each(|at| assert_eq!(ends.next_load(0), Some(at)));
    // Nothing is computed of which it is not known how long it takes, however late the tier is.
    assert!(matches!(ends.next_step(&costs, &asked), Step::Wait { .. }));
    assert_eq!((ends.take_last(5), ends.take_last(4), ends.take_last(4)), (None, Some(3), None));
    assert_eq!(ends.take_last(1), Some(2));
    // Also one that is under way, which is not used any more.
    assert_eq!(ends.take_last(1), Some(1));
    ends.arrived(1);
    assert!(matches!(ends.next_step(&costs, &asked), Step::Wait { .. }));
}

#[test]
fn a_block_that_fails_is_computed_and_a_late_one_is_not_used() {
    let blocks = &blocks(5_900_544, None)[..2];
    let tiers = [TierEstimate { latency_seconds: 5e-4, bytes_per_second: 1e9 }];
    let costs = CostModel { tiers: &tiers, rates: rates(1400.0) };
    let mut ends = BothEnds::new(blocks, &costs, 4);
    let waits = [TierWait::NOT_ASKED];
    assert_eq!((ends.next_load(0), ends.next_load(0), ends.next_load(0)), (Some(0), Some(1), None));
    assert!(matches!(ends.next_step(&costs, &waits), Step::Wait { .. }));
    ends.failed(0);
    assert_eq!(ends.next_step(&costs, &waits), Step::Recompute(vec![0]));
    ends.arrived(0);
    ends.failed(0);
    // Block 1 is long overdue: computing it is sooner than waiting on.
    let overdue = [TierWait { seconds: 5.0, is_first: true }];
    assert_eq!(ends.next_step(&costs, &overdue), Step::Recompute(vec![1]));
    ends.arrived(1);
    assert_eq!(ends.next_step(&costs, &overdue), Step::Done);
}
