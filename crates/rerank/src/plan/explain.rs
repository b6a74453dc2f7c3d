//! Reasons of a plan: what became of the blocks of a tier comes in, words go out.

use std::fmt;

use crate::plan::tier_speed::TierEstimate;

/// Division of the blocks of a far place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierShare {
    /// Number of the place in the order in which places are asked.
    pub place: usize,
    /// Number of blocks that came from it and were scored.
    pub loaded: u64,
    /// Bytes of these.
    pub loaded_bytes: u64,
    /// Number of blocks that were to come from it and were computed meanwhile.
    pub computed: u64,
    /// Speed of the place as it was measured; `None` if nothing has come from it.
    pub speed: Option<TierEstimate>,
}

impl TierShare {
    /// Returns the reason for the division.
    #[must_use]
    pub fn reason(&self) -> PlanReason {
        match (self.loaded, self.computed) {
            (0, _) if self.speed.is_none() => PlanReason::NothingCame,
            (_, 0) => PlanReason::LoadingKeepsUp,
            (0, _) => PlanReason::ComputingIsSooner,
            _ => PlanReason::BothAtOnce,
        }
    }
}

/// Reason for the division of a tier's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanReason {
    /// Blocks come before they are needed.
    LoadingKeepsUp,
    /// Blocks come later than computing ends, so both work at once.
    BothAtOnce,
    /// Nothing had come when all was done.
    NothingCame,
    /// Blocks come so late that computing alone ends sooner.
    ComputingIsSooner,
}

impl fmt::Display for PlanReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingCame => "nothing came in time",
            Self::LoadingKeepsUp => "loading keeps up with scoring",
            Self::BothAtOnce => "blocks come later than others are computed",
            Self::ComputingIsSooner => "computing all was sooner",
        })
    }
}
