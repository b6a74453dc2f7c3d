//! The decoder on candle's tensors: on a CUDA device, and on candle's CPU device in tests.
//!
//! Blocks are padded to one static number of positions and masked, so that a batch of any blocks
//! is one tensor. Here the bits of a score may depend on the batch: the promise is a tolerance.

mod batch;
mod choice;
mod decoder;
mod head;
mod language_model;
mod load;
mod transfer;

pub(crate) use choice::open;
pub use choice::{DeviceChoice, DeviceInfo};
pub use decoder::{DeviceBlock, DeviceModel};
pub use load::DeviceSettings;
pub(crate) use transfer::first_line;
