//! The planner: which blocks of a query are loaded and which are computed again, by measured speeds.
//!
//! In: bytes and tokens of blocks, speeds of tiers and of the model. Out: decisions, and what explains them. It
//! reads no clock and no block.

pub(crate) mod both_ends;
pub(crate) mod cost_model;
pub(crate) mod explain;
pub(crate) mod planner;
pub(crate) mod tier_speed;
