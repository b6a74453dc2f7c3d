//! The decoder on the CPU, in f32 or of bf16: kernels of our own whose bits depend on nothing but a row's
//! own data.

mod attention;
pub mod bench;
mod calibrate;
mod codec;
mod decoder;
mod generate;
mod head;
mod kernel;
mod language_model;
mod past;
mod variant;
mod workspace;

pub use decoder::CpuModel;
pub use kernel::{KERNEL_ID, KERNEL_ID_BF16, KERNEL_ID_BF16_AMX, KERNEL_ID_BF16_PAIRS, Kernel};
