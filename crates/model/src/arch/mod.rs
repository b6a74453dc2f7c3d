//! The decoder as data: sizes and settings, rotary positions, and which tensors it has.

pub(crate) mod config;
mod known_sizes;
mod layers;
pub(crate) mod mixed;
pub(crate) mod refused;
pub(crate) mod rope;
pub(crate) mod weights;
