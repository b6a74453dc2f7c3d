//! The decoder on candle's tensors: on a CUDA device, and on candle's CPU device in tests.
//!
//! Blocks are padded to one fixed number of positions and masked, so that a batch of any blocks is one
//! tensor. Here the bits of a score may depend on the batch: the promise is a tolerance.

#[cfg(not(feature = "candle"))]
mod absent;
#[cfg(feature = "candle")]
mod batch;
mod choice;
#[cfg(feature = "candle")]
mod decoder;
#[cfg(feature = "candle")]
mod head;
#[cfg(feature = "candle")]
mod language_model;
#[cfg(feature = "candle")]
mod load;
#[cfg(feature = "candle")]
mod transfer;

#[cfg(not(feature = "candle"))]
use absent::Device;
#[cfg(not(feature = "candle"))]
pub use absent::{DeviceBlock, DeviceModel};
#[cfg(feature = "candle")]
use candle_core::Device;
pub(crate) use choice::open;
pub use choice::{DeviceChoice, DeviceInfo, DeviceSettings};
#[cfg(feature = "candle")]
pub use decoder::{DeviceBlock, DeviceModel};
