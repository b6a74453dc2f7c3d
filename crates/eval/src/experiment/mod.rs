//! Experiments with a store and its model: how fast, and how good.
//!
//! In: an open session, corpus or model. Out: figures. They print nothing.

pub mod device;
pub mod machine;
pub mod quality;
pub mod speed;
pub mod trace;
pub mod tune;
