//! The decoder on candle's tensors: on a CUDA device, and on candle's CPU device in tests.
//!
//! Blocks are padded to one fixed number of positions and masked, so that a batch of any blocks is one
//! tensor. Here the bits of a score may depend on the batch: the promise is a tolerance.

#[cfg(feature = "candle")]
mod batch;
pub(crate) mod choice;
#[cfg(feature = "candle")]
pub(crate) mod decoder;
#[cfg(not(feature = "candle"))]
#[path = "absent.rs"]
pub(crate) mod decoder;
pub(crate) mod device;
#[cfg(feature = "candle")]
mod head;
#[cfg(feature = "candle")]
mod language_model;
#[cfg(feature = "candle")]
mod load;
#[cfg(feature = "candle")]
mod transfer;
