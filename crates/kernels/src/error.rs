//! The error of this crate. It names no flag and no file, which the caller knows.

use std::io;

/// Reasons why weights cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The system has no memory for the weights.
    #[error("there is no memory for {bytes} bytes of weights")]
    OutOfMemory {
        /// Bytes of the matrix that did not fit.
        bytes: usize,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A product of int8 cannot have so many inputs.
    #[error("int8 for a layer of {inputs} inputs, no multiple of {multiple} up to {max}")]
    Int8Inputs {
        /// Inputs of the layer.
        inputs: usize,
        /// Number that inputs must be a multiple of.
        multiple: usize,
        /// The most inputs that a sum of int8 is exact for.
        max: usize,
    },
}
