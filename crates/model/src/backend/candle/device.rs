//! The type of devices: candle's, or one without values in a program without candle.

#[cfg(feature = "candle")]
pub(crate) use candle_core::Device;

/// A device.
#[cfg(not(feature = "candle"))]
#[derive(Clone, Copy)]
pub(crate) enum Device {}
