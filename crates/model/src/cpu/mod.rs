//! The decoder on the CPU, in f32, bf16 or int8.
//!
//! In: token ids and blocks. Out: blocks and scores. The bits of a row depend on nothing but the row's
//! own data, whatever the batch and the number of threads.

mod attend;
mod attention;
pub mod bench;
mod calibrate;
mod codec;
mod decoder;
mod generate;
mod hadamard;
mod head;
mod kernel;
mod language_model;
mod layout;
mod passes;
mod past;
mod stored;
mod variant;
mod workspace;

pub use decoder::CpuModel;
pub use kernel::{
    KERNEL_ID, KERNEL_ID_BF16, KERNEL_ID_BF16_AMX, KERNEL_ID_BF16_PAIRS, KERNEL_ID_INT8,
    KERNEL_ID_INT8_AMX, KERNEL_ID_INT8_PAIRS, Kernel,
};
