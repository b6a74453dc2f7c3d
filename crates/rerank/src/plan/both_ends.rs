//! Blocks of a query, taken from both ends: loaded from the front, computed from the back while that is sooner.
//! In: blocks, and speeds and waits as they are now. Out: what to do next. It reads no clock.
//!
//! The two ends are those of Cake (arXiv 2410.03065), here by blocks. If all blocks that are left are loaded, the
//! last comes after `F` seconds, and `C` seconds of scoring are left. A block at the back is computed while the slack
//! `F - C` has room for one and a half computations of it: computing it then moves the end forward, or leaves it
//! where it is if speeds are a little off. The loading that it spares does not count. A rule that wants room for
//! it too, `(F - C) / (m + l) >= 1.5`, waits for the last blocks of a slow tier: 1.28 times as long as computing
//! everything, in the simulation of `tests/planner.rs`, against 1.00.

use std::collections::VecDeque;

use crate::plan::cost_model::{CostModel, PlanLimits, PlannedBlock, Policy};
use crate::plan::explain::{Outcome, TierShare, shares};

/// Computations of a block for which the slack must have room before it is computed.
const ROOM_MIN: f64 = 1.5;
/// Weight of the time that the rest of a batch takes: the batch fills half of the slack, for speeds may be off, and
/// it cannot be stopped.
const BATCH_WEIGHT: f64 = 2.0;
/// Times that a block may take of its expected time before the rest is believed to be slow too.
const OVERDUE: f64 = 2.0;
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
    limits: PlanLimits,
    lines: Vec<Line>,
    /// Blocks that arrived and were not handed out.
    arrived: Vec<usize>,
    /// Blocks that have to be computed.
    unloadable: VecDeque<usize>,
    outcomes: Vec<Outcome>,
    /// Tokens of queries that are still to be scored.
    query_tokens: u64,
}

impl BothEnds {
    /// Puts the blocks of each tier in order: those whose loading spares most computing come first.
    #[must_use]
    pub fn new(blocks: &[PlannedBlock], costs: &CostModel<'_>, limits: PlanLimits) -> Self {
        let tiers = blocks.iter().map(|block| block.tier).filter(|tier| *tier < costs.tiers.len());
        let count = tiers.max().map_or(0, |tier| tier + 1);
        let mut ends = Self {
            blocks: blocks.to_vec(),
            limits,
            lines: vec![Line::default(); count],
            arrived: Vec::new(),
            unloadable: VecDeque::new(),
            outcomes: vec![Outcome::Open; blocks.len()],
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
                Some(line) if limits.policy != Policy::Recompute => {
                    line.waiting.push_back(at);
                    line.bytes = line.bytes.saturating_add(blocks[at].bytes);
                }
                _ => ends.unloadable.push_back(at),
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
            arrived.iter().for_each(|at| self.end(*at, Outcome::Loaded));
            return Step::Score(arrived);
        }
        let most = self.limits.recompute_at_once.max(1);
        if !self.unloadable.is_empty() {
            let count = self.unloadable.len().min(most);
            let taken: Vec<usize> = self.unloadable.drain(..count).collect();
            taken.iter().for_each(|at| self.end(*at, Outcome::Computed));
            return Step::Recompute(taken);
        }
        let taken = self.take_back(costs, waits, most, BATCH_WEIGHT);
        if !taken.is_empty() {
            return Step::Recompute(taken);
        }
        let left = self.lines.iter().any(|line| line.loading.len() + line.waiting.len() > 0);
        match left {
            true => Step::Wait { seconds: self.patience(costs, waits) },
            false => Step::Done,
        }
    }

    /// Takes at most `most` blocks from the back that are sooner computed than loaded. The time of those that are
    /// taken counts `weight` times against the slack.
    pub(super) fn take_back(
        &mut self,
        costs: &CostModel<'_>,
        waits: &[TierWait],
        most: usize,
        weight: f64,
    ) -> Vec<usize> {
        let (mut taken, mut spent) = (Vec::new(), 0.0);
        while self.limits.policy == Policy::Auto && taken.len() < most {
            let ends = (0..self.lines.len()).map(|tier| self.end_of(tier, costs, waits));
            let last = ends.zip(0..).max_by(|a, b| a.0.total_cmp(&b.0));
            let Some((finish, tier)) = last.filter(|(finish, _)| *finish > 0.0) else { break };
            let slack = finish - weight * spent - costs.score_seconds(self.query_tokens);
            let Some(at) = self.back_of(tier, slack, costs) else { break };
            spent += costs.prefill_seconds(&self.blocks[at]);
            spent += costs.score_seconds(self.blocks[at].query_tokens.into());
            let line = &mut self.lines[tier];
            match line.waiting.back() == Some(&at) {
                true => line.waiting.pop_back(),
                false => line.loading.pop_back(),
            };
            line.bytes -= self.blocks[at].bytes.min(line.bytes);
            self.end(at, Outcome::Computed);
            taken.push(at);
        }
        taken
    }

    /// Returns the block at the back of a tier if `slack` seconds have room for its computation.
    fn back_of(&self, tier: usize, slack: f64, costs: &CostModel<'_>) -> Option<usize> {
        let line = self.lines.get(tier)?;
        let at = *line.waiting.back().or(line.loading.back())?;
        let block = &self.blocks[at];
        let prefill = costs.prefill_seconds(block);
        let fits = match line.waiting.len() + line.loading.len() {
            // There is none behind it whose computation could be one too many.
            1 => slack + costs.score_seconds(block.query_tokens.into()) > prefill,
            _ => slack >= ROOM_MIN * prefill,
        };
        fits.then_some(at)
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

    fn end(&mut self, at: usize, outcome: Outcome) {
        self.outcomes[at] = outcome;
        self.query_tokens -= u64::from(self.blocks[at].query_tokens);
    }

    /// Explains what became of the blocks of each tier.
    #[must_use]
    pub fn shares(&self, costs: &CostModel<'_>) -> Vec<TierShare> {
        shares(&self.blocks, &self.outcomes, costs, self.limits.policy)
    }
}
