//! Jobs over a store that is there: what is deleted, compacted, copied, checked, mended or upgraded.
//!
//! In: the store's folder. Out: a report, and the changed store. They do not know queries.

pub mod compact;
pub mod delete;
pub mod export;
pub mod from_tier;
pub mod recompute;
pub mod repair;
pub mod repair_model;
pub mod replicate;
pub mod tiers;
pub mod upgrade;
pub mod verify;
