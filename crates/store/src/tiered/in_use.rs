//! A tier with its form, its patience and its counts. It knows no block.

use std::sync::Arc;
use std::time::Duration;

use hyperrag_core::{Tier, TierShape};

use crate::tiered::stats::TierStats;

/// A tier in use.
pub(crate) struct TierInUse {
    pub(crate) tier: Arc<dyn Tier>,
    pub(crate) shape: TierShape,
    pub(crate) patience: Duration,
    pub(crate) stats: TierStats,
}

impl TierInUse {
    pub(crate) fn new(tier: Arc<dyn Tier>, patience: Duration) -> Self {
        let shape = tier.shape();
        Self { tier, shape, patience, stats: TierStats::new() }
    }
}
