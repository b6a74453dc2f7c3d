//! Blocks of a query, taken from both ends: loaded from the front, computed from the back while that is sooner.
//! In: blocks, and speeds and waits as they are now. Out: what to do next. It reads no clock.
//!
//! The two ends are those of Cake (arXiv 2410.03065), here by blocks. If all blocks that are left are loaded, the
//! last comes after `F` seconds, and `C` seconds of scoring are left. A block at the back is computed while the slack
//! `F - C` has room for one and a half computations of it: computing it then moves the end forward, or leaves it
//! where it is if speeds are a little off. The loading that it spares does not count. A rule that wants room for
//! it too, `(F - C) / (m + l) >= 1.5`, waits for the last blocks of a slow tier: 1.28 times as long as computing
//! everything, in the simulation of `tests/planner.rs`, against 1.00.
//!
//! Computing that moves the end by less than a tenth is left: real passes over few blocks cost more than it gains.

use std::collections::VecDeque;

use crate::plan::cost_model::{CostModel, PlannedBlock};

/// Computations of a block for which the slack must have room before it is computed.
const ROOM_MIN: f64 = 1.5;
/// Weight of the time that the rest of a batch takes: the batch fills half of the slack, for speeds may be off, and
/// it cannot be stopped.
const BATCH_WEIGHT: f64 = 2.0;
/// Times that a block may take of its expected time before the rest is believed to be slow too.
const OVERDUE: f64 = 2.0;
/// Share of the time left that computing must save.
const GAIN_MIN: f64 = 0.1;
/// Factor by which the time of loading grows if a tier becomes ten times slower half-way.
pub(crate) const SLOWER: f64 = 5.5;
/// Shortest and longest time until speeds are looked at again, in seconds.
const WAIT_SECONDS: (f64, f64) = (1e-3, 0.05);

/// Wait for a tier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierWait {
    /// Seconds since the tier last delivered, or since the first request if it never did.
    pub seconds: f64,
    /// Whether the tier has delivered nothing yet, so that its latency is part of the wait.
    pub is_first: bool,
}

impl TierWait {
    /// The wait for a tier that was not asked yet.
    pub const NOT_ASKED: Self = Self { seconds: 0.0, is_first: true };
}

/// Next action of the thread that computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Scores these loaded blocks.
    Score(Vec<usize>),
    /// Computes these blocks and scores them. Those that are under way need not arrive any more.
    Recompute(Vec<usize>),
    /// Waits until a block arrives, at most so many seconds, and asks again.
    Wait {
        /// Longest wait, in seconds.
        seconds: f64,
    },
    /// Ends: every block has been handed out.
    Done,
}

/// Blocks of one tier that have not arrived.
#[derive(Clone, Debug, Default)]
struct Line {
    /// Blocks that were not asked for, those to load first in front.
    waiting: VecDeque<usize>,
    /// Blocks under way, the next to arrive in front.
    loading: VecDeque<usize>,
    /// Bytes of all of these.
    bytes: u64,
}

/// The division of a query's blocks into loaded and computed ones, while it is worked on.
#[derive(Clone, Debug)]
pub struct BothEnds {
    blocks: Vec<PlannedBlock>,
    /// Largest number of blocks that are computed together.
    at_once: usize,
    lines: Vec<Line>,
    /// Blocks that arrived and were not handed out.
    arrived: Vec<usize>,
    /// Blocks that have to be computed.
    unloadable: VecDeque<usize>,
    /// Tokens of queries that are still to be scored.
    query_tokens: u64,
}

impl BothEnds {
    /// Puts the blocks of each tier in order: those whose loading spares most computing come first. At most
    /// `at_once` are computed together.
    #[must_use]
    pub fn new(blocks: &[PlannedBlock], costs: &CostModel<'_>, at_once: usize) -> Self {
        let tiers = blocks.iter().map(|block| block.tier).filter(|tier| *tier < costs.tiers.len());
        let count = tiers.max().map_or(0, |tier| tier + 1);
        let mut ends = Self {
            blocks: blocks.to_vec(),
            at_once: at_once.max(1),
            lines: vec![Line::default(); count],
            arrived: Vec::new(),
            unloadable: VecDeque::new(),
            query_tokens: blocks.iter().map(|block| u64::from(block.query_tokens)).sum(),
        };
        let mut order: Vec<(f64, usize)> = blocks
            .iter()
            .map(|block| block.bytes as f64 / f64::from(block.tokens.max(1)))
            .zip(0..)
            .collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (_, at) in order {
            match ends.lines.get_mut(blocks[at].tier) {
                Some(line) => {
                    line.waiting.push_back(at);
                    line.bytes = line.bytes.saturating_add(blocks[at].bytes);
                }
                None => ends.unloadable.push_back(at),
            }
        }
        ends
    }

    /// Takes the block that is to be loaded next from a tier. `None` says that the tier has nothing more to do.
    pub fn next_load(&mut self, tier: usize) -> Option<usize> {
        let line = self.lines.get_mut(tier)?;
        let at = line.waiting.pop_front()?;
        line.loading.push_back(at);
        Some(at)
    }

    /// Returns the tier that a block is loaded from.
    ///
    /// # Panics
    /// If there is no such block.
    #[must_use]
    pub fn tier(&self, at: usize) -> usize {
        self.blocks[at].tier
    }

    /// Whether blocks of a tier have not arrived.
    #[must_use]
    pub fn waits_for(&self, tier: usize) -> bool {
        self.lines.get(tier).is_some_and(|line| line.bytes > 0)
    }

    /// Notes that a block that is under way comes from another tier than was thought.
    pub fn moved(&mut self, at: usize, tier: usize) {
        if self.landed(at) {
            if self.lines.len() <= tier {
                self.lines.resize(tier + 1, Line::default());
            }
            self.blocks[at].tier = tier;
            self.lines[tier].loading.push_back(at);
            self.lines[tier].bytes = self.lines[tier].bytes.saturating_add(self.blocks[at].bytes);
        }
    }

    /// Whether blocks come so fast that none would be computed, and that all that is left may be read as it comes:
    /// even a tier that becomes ten times slower half-way ends before everything is computed.
    #[must_use]
    pub fn keeps_up(&self, costs: &CostModel<'_>, waits: &[TierWait]) -> bool {
        let away = || self.lines.iter().flat_map(|line| line.waiting.iter().chain(&line.loading));
        let prefill: f64 = away().map(|at| costs.prefill_seconds(&self.blocks[*at])).sum();
        let ends = (0..self.lines.len()).map(|tier| self.end_of(tier, costs, waits));
        let (finish, score) = (ends.fold(0.0, f64::max), costs.score_seconds(self.query_tokens));
        let blocks = away().count().max(1) as f64;
        !gains(finish, finish - score, blocks, prefill / blocks)
            && SLOWER * finish <= prefill + score
    }

    /// Takes all blocks that are not handed out and need not be computed, those that arrived first.
    pub fn take_rest(&mut self) -> Vec<usize> {
        let mut taken = std::mem::take(&mut self.arrived);
        for line in std::mem::take(&mut self.lines) {
            taken.extend(line.loading.into_iter().chain(line.waiting));
        }
        taken.iter().for_each(|at| self.end(*at));
        taken
    }

    /// Takes the last block from the back if at least `left` have not arrived. While nothing is known of the
    /// model's speed, it tells it.
    pub fn take_last(&mut self, left: usize) -> Option<usize> {
        let away = |line: &Line| line.waiting.len() + line.loading.len();
        let longest = (0..self.lines.len()).max_by_key(|tier| self.lines[*tier].bytes)?;
        let line = &mut self.lines[longest];
        if away(line) < left.max(1) {
            return None;
        }
        let at = line.waiting.pop_back().or_else(|| line.loading.pop_back())?;
        line.bytes -= self.blocks[at].bytes.min(line.bytes);
        self.end(at);
        Some(at)
    }

    /// Notes that a block has arrived. One that was given up meanwhile is not used.
    pub fn arrived(&mut self, at: usize) {
        if self.landed(at) {
            self.arrived.push(at);
        }
    }

    /// Notes that a block cannot be loaded. It is computed.
    pub fn failed(&mut self, at: usize) {
        if self.landed(at) {
            self.unloadable.push_back(at);
        }
    }

    /// Takes a block that is under way out of its line. Returns whether it was still waited for.
    fn landed(&mut self, at: usize) -> bool {
        let Some(block) = self.blocks.get(at) else { return false };
        let Some(line) = self.lines.get_mut(block.tier) else { return false };
        let Some(place) = line.loading.iter().position(|loading| *loading == at) else {
            return false;
        };
        line.loading.remove(place);
        line.bytes -= block.bytes.min(line.bytes);
        true
    }

    /// Says what to do next, by the speeds and the waits of now. `waits` has one for each tier; a tier without one
    /// counts as not asked. Loaded blocks come first.
    pub fn next_step(&mut self, costs: &CostModel<'_>, waits: &[TierWait]) -> Step {
        if !self.arrived.is_empty() {
            let arrived = std::mem::take(&mut self.arrived);
            arrived.iter().for_each(|at| self.end(*at));
            return Step::Score(arrived);
        }
        if !self.unloadable.is_empty() {
            let count = self.unloadable.len().min(self.at_once);
            let taken: Vec<usize> = self.unloadable.drain(..count).collect();
            taken.iter().for_each(|at| self.end(*at));
            return Step::Recompute(taken);
        }
        let taken = self.take_back(costs, waits);
        if !taken.is_empty() {
            return Step::Recompute(taken);
        }
        let left = self.lines.iter().any(|line| line.loading.len() + line.waiting.len() > 0);
        match left {
            true => Step::Wait { seconds: self.patience(costs, waits) },
            false => Step::Done,
        }
    }

    /// Takes the blocks from the back that are sooner computed than loaded, as many as are computed together.
    fn take_back(&mut self, costs: &CostModel<'_>, waits: &[TierWait]) -> Vec<usize> {
        let (mut taken, mut spent) = (Vec::new(), 0.0);
        while taken.len() < self.at_once {
            let ends = (0..self.lines.len()).map(|tier| self.end_of(tier, costs, waits));
            let last = ends.zip(0..).max_by(|a, b| a.0.total_cmp(&b.0));
            let Some((finish, tier)) = last.filter(|(finish, _)| *finish > 0.0) else { break };
            let slack = finish - BATCH_WEIGHT * spent - costs.score_seconds(self.query_tokens);
            let Some(at) = self.back_of(tier, finish, slack, costs) else { break };
            spent += costs.prefill_seconds(&self.blocks[at]);
            spent += costs.score_seconds(self.blocks[at].query_tokens.into());
            let line = &mut self.lines[tier];
            match line.waiting.back() == Some(&at) {
                true => line.waiting.pop_back(),
                false => line.loading.pop_back(),
            };
            line.bytes -= self.blocks[at].bytes.min(line.bytes);
            self.end(at);
            taken.push(at);
        }
        taken
    }

    /// Returns the block at the back of a tier that ends after `finish` seconds, if `slack` seconds have room for
    /// its computation and that gains something.
    fn back_of(
        &self,
        tier: usize,
        finish: f64,
        slack: f64,
        costs: &CostModel<'_>,
    ) -> Option<usize> {
        let line = self.lines.get(tier)?;
        let at = *line.waiting.back().or(line.loading.back())?;
        let block = &self.blocks[at];
        let prefill = costs.prefill_seconds(block);
        let left = line.waiting.len() + line.loading.len();
        let fits = match left {
            // There is none behind it whose computation could be one too many.
            1 => slack + costs.score_seconds(block.query_tokens.into()) > prefill,
            _ => slack >= ROOM_MIN * prefill,
        };
        (fits && gains(finish, slack, left as f64, prefill)).then_some(at)
    }

    /// Returns the seconds until a tier's last block has come. A block that is overdue makes the rest as slow as
    /// itself.
    fn end_of(&self, tier: usize, costs: &CostModel<'_>, waits: &[TierWait]) -> f64 {
        let line = &self.lines[tier];
        if line.bytes == 0 {
            return 0.0;
        }
        let (expected, wait) = self.expected(tier, costs, waits);
        let first = line.loading.front().map_or(0, |at| self.blocks[*at].bytes);
        let rest = costs.tier(tier).seconds_of(line.bytes.saturating_sub(first));
        if line.loading.is_empty() {
            return expected + rest;
        }
        let overdue = wait.seconds / (OVERDUE * expected).max(1e-9);
        (expected - wait.seconds).abs() + rest * overdue.max(1.0)
    }

    /// Returns the seconds that the next block of a tier takes by its speed, and the wait so far.
    fn expected(&self, tier: usize, costs: &CostModel<'_>, waits: &[TierWait]) -> (f64, TierWait) {
        let (speed, wait) = (costs.tier(tier), waits.get(tier).copied());
        let wait = wait.unwrap_or(TierWait::NOT_ASKED);
        let latency = if wait.is_first { speed.latency_seconds } else { 0.0 };
        let next = self.lines[tier].loading.front();
        (latency + next.map_or(0.0, |at| costs.load_seconds(&self.blocks[*at])), wait)
    }

    /// Returns the seconds after which a decision may be another one.
    fn patience(&self, costs: &CostModel<'_>, waits: &[TierWait]) -> f64 {
        let busy = (0..self.lines.len()).filter(|tier| self.lines[*tier].bytes > 0);
        let next = busy.map(|tier| {
            let (expected, wait) = self.expected(tier, costs, waits);
            expected - wait.seconds
        });
        next.fold(WAIT_SECONDS.1, f64::min).max(WAIT_SECONDS.0)
    }

    fn end(&mut self, at: usize) {
        self.query_tokens -= u64::from(self.blocks[at].query_tokens);
    }
}

/// Whether computing some of `blocks`, each in `prefill` seconds, while the others load moves the end of all loading,
/// after `finish` seconds, forward by a tenth. `slack` seconds are free for computing.
fn gains(finish: f64, slack: f64, blocks: f64, prefill: f64) -> bool {
    let load = finish / blocks.max(1.0);
    slack * load >= GAIN_MIN * finish * (prefill + load)
}
