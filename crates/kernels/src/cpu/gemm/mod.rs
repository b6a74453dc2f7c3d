//! Matrix products: packed rows times packed weights, whose sums an epilogue takes tile by tile.

pub(crate) mod blocking;
mod driver;
pub mod epilogue;
mod epilogue_activation;
pub mod epilogue_log_softmax;
mod int8;
pub mod pack_lhs;
pub mod pack_rhs;
pub mod panels;
