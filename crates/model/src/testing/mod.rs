//! Test gear: tiny models, entry points for fuzzers, and attention for benches. No part of the library's
//! interface.

pub mod attention;
pub mod fuzz;
#[cfg(feature = "candle")]
pub mod tiny;
