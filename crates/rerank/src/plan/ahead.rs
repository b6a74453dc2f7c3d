//! A plan made before anything is loaded: blocks and speeds in, their division and its time out.

use crate::plan::both_ends::{BothEnds, Step, TierWait};
use crate::plan::cost_model::{CostModel, PlanLimits, PlannedBlock, Policy};
use crate::plan::explain::TierShare;

/// Division of a query's blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Blocks to load, in the order of their use.
    pub load: Vec<usize>,
    /// Blocks to compute, in the order in which they are computed.
    pub recompute: Vec<usize>,
    /// Seconds until the last block is scored, if all speeds are as believed.
    pub seconds: f64,
    /// Explanation by tier.
    pub tiers: Vec<TierShare>,
}

/// Divides the blocks of a query into those to load and those to compute, by the speeds of now. A caller that can
/// decide anew while it works uses [`BothEnds`].
///
/// ```
/// use hyperrag_rerank::{CostModel, ModelRates, PlanLimits, PlannedBlock, Policy, TierEstimate, plan};
///
/// let block = PlannedBlock { bytes: 5_898_240, tokens: 256, query_tokens: 20, tier: 0 };
/// let rates =
///     ModelRates { prefill_tokens_per_second: 1400.0, query_tokens_per_second: 1400.0 };
/// let tiers = [TierEstimate { latency_seconds: 5e-4, bytes_per_second: 32e6 }];
/// let costs = CostModel { tiers: &tiers, rates };
/// let limits = PlanLimits { policy: Policy::Auto, recompute_at_once: 4 };
/// let plan = plan(&[block; 100], &costs, limits);
/// // A block takes as long to load as to compute: about half of them are computed meanwhile.
/// assert!((45..=55).contains(&plan.recompute.len()));
/// ```
#[must_use]
pub fn plan(blocks: &[PlannedBlock], costs: &CostModel<'_>, limits: PlanLimits) -> Plan {
    let mut ends = BothEnds::new(blocks, costs, limits);
    let waits = vec![TierWait::NOT_ASKED; costs.tiers.len()];
    let mut recompute = match limits.policy {
        Policy::Auto => ends.take_back(costs, &waits, blocks.len(), 1.0),
        Policy::Load | Policy::Recompute => Vec::new(),
    };
    let mut load = Vec::new();
    for tier in 0..costs.tiers.len() {
        while let Some(at) = ends.next_load(tier) {
            ends.arrived(at);
            load.push(at);
        }
    }
    loop {
        match ends.next_step(costs, &waits) {
            Step::Recompute(blocks) => recompute.extend(blocks),
            Step::Score(_) => {}
            Step::Wait { .. } | Step::Done => break,
        }
    }
    let tiers = ends.shares(costs);
    Plan { seconds: seconds(blocks, &load, &recompute, costs), load, recompute, tiers }
}

/// Returns the seconds until everything is scored: computing and loading go on at once, and what was loaded last is
/// scored last.
fn seconds(
    blocks: &[PlannedBlock],
    load: &[usize],
    recompute: &[usize],
    costs: &CostModel<'_>,
) -> f64 {
    let score = |at: &usize| costs.score_seconds(blocks[*at].query_tokens.into());
    let computing: f64 =
        recompute.iter().map(|at| costs.prefill_seconds(&blocks[*at]) + score(at)).sum();
    let scoring: f64 = load.iter().map(score).sum();
    let mut ends: Vec<Option<f64>> = vec![None; costs.tiers.len()];
    for at in load {
        let tier = blocks[*at].tier;
        let end = ends[tier].get_or_insert(costs.tier(tier).latency_seconds);
        *end += costs.load_seconds(&blocks[*at]);
    }
    let loading = ends.into_iter().flatten().fold(0.0, f64::max);
    let last = load.last().map_or(0.0, score);
    (computing + scoring).max(if load.is_empty() { 0.0 } else { loading + last })
}
