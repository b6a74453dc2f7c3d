//! Costs of single blocks: bytes, tokens, and speeds of tiers and model come in, seconds go out.

use crate::plan::tier_speed::TierEstimate;

/// Smallest rate of a model, in tokens a second: nothing is divided by 0.
const RATE_MIN: f64 = 1e-9;

/// A candidate's block that is loaded or computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedBlock {
    /// Size in the tier, in bytes.
    pub bytes: u64,
    /// Tokens of the chunk, which are computed if the block is not loaded.
    pub tokens: u32,
    /// Tokens of the query, which are computed either way.
    pub query_tokens: u32,
    /// Index of the tier that the block would be loaded from.
    pub tier: usize,
}

/// Measured rates of a model, in tokens a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelRates {
    /// Rate at which chunks are computed.
    pub prefill_tokens_per_second: f64,
    /// Rate at which queries are scored on blocks.
    pub query_tokens_per_second: f64,
}

/// Speeds as they are believed now.
#[derive(Clone, Copy, Debug)]
pub struct CostModel<'a> {
    /// Speed of each tier. A block of another tier is computed.
    pub tiers: &'a [TierEstimate],
    /// Rates of the model.
    pub rates: ModelRates,
}

impl CostModel<'_> {
    pub(super) fn tier(&self, tier: usize) -> TierEstimate {
        self.tiers.get(tier).copied().unwrap_or(TierEstimate::SILENT)
    }

    /// Returns the seconds to load the block, without the latency.
    pub(super) fn load_seconds(&self, block: &PlannedBlock) -> f64 {
        self.tier(block.tier).seconds_of(block.bytes)
    }

    /// Returns the seconds to compute the block.
    pub(super) fn prefill_seconds(&self, block: &PlannedBlock) -> f64 {
        f64::from(block.tokens) / self.rates.prefill_tokens_per_second.max(RATE_MIN)
    }

    /// Returns the seconds to score so many tokens of queries.
    pub(super) fn score_seconds(&self, query_tokens: u64) -> f64 {
        query_tokens as f64 / self.rates.query_tokens_per_second.max(RATE_MIN)
    }
}
