//! Reasons of a plan: blocks and their outcomes come in, a line for each tier goes out.

use std::fmt;

use crate::plan::cost_model::{CostModel, PlannedBlock, Policy};
use crate::plan::tier_speed::TierEstimate;

/// Treatment of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Not handed out yet.
    Open,
    /// Loaded from its tier.
    Loaded,
    /// Computed again.
    Computed,
}

/// Reason for the division of a tier's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanReason {
    /// The user chose.
    Chosen(Policy),
    /// Blocks come before they are needed.
    LoadingKeepsUp,
    /// Blocks come later than computing ends, so both work at once.
    BothAtOnce,
    /// Blocks come so late that computing alone ends sooner.
    ComputingIsSooner,
}

impl fmt::Display for PlanReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chosen(Policy::Load) => "all are loaded, as chosen",
            Self::Chosen(_) => "all are computed, as chosen",
            Self::LoadingKeepsUp => "loading keeps up with scoring",
            Self::BothAtOnce => "some are computed while others load",
            Self::ComputingIsSooner => "computing is sooner",
        })
    }
}

/// Division of the blocks of a tier.
#[derive(Clone, Debug, PartialEq)]
pub struct TierShare {
    /// Index of the tier.
    pub tier: usize,
    /// Number of blocks that are loaded.
    pub loaded: usize,
    /// Bytes of these.
    pub loaded_bytes: u64,
    /// Number of blocks that are computed.
    pub computed: usize,
    /// Speed of the tier as believed.
    pub speed: TierEstimate,
    /// Mean seconds to load a block, without the latency.
    pub load_seconds: f64,
    /// Mean seconds to compute a block.
    pub prefill_seconds: f64,
    /// Reason.
    pub reason: PlanReason,
}

/// Joins the blocks of each tier that has some, in the order of the tiers.
pub(super) fn shares(
    blocks: &[PlannedBlock],
    outcomes: &[Outcome],
    costs: &CostModel<'_>,
    policy: Policy,
) -> Vec<TierShare> {
    let mut tiers: Vec<usize> = blocks.iter().map(|block| block.tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    let share = |tier: usize| {
        let of_tier = || blocks.iter().zip(outcomes).filter(move |(block, _)| block.tier == tier);
        let with = |outcome| of_tier().filter(move |(_, found)| **found == outcome);
        let count = of_tier().count().max(1) as f64;
        let mean = |seconds: &dyn Fn(&PlannedBlock) -> f64| {
            of_tier().map(|(block, _)| seconds(block)).sum::<f64>() / count
        };
        let (loaded, computed) = (with(Outcome::Loaded).count(), with(Outcome::Computed).count());
        TierShare {
            tier,
            loaded,
            loaded_bytes: with(Outcome::Loaded).map(|(block, _)| block.bytes).sum(),
            computed,
            speed: costs.tier(tier),
            load_seconds: mean(&|block| costs.load_seconds(block)),
            prefill_seconds: mean(&|block| costs.prefill_seconds(block)),
            reason: match (policy, loaded, computed) {
                (Policy::Load | Policy::Recompute, ..) => PlanReason::Chosen(policy),
                (Policy::Auto, _, 0) => PlanReason::LoadingKeepsUp,
                (Policy::Auto, 0, _) => PlanReason::ComputingIsSooner,
                (Policy::Auto, ..) => PlanReason::BothAtOnce,
            },
        }
    };
    tiers.into_iter().map(share).collect()
}
