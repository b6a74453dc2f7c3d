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
mod head;
mod kv_rows;
mod language_model;
mod layout;
mod passes;
mod past;
mod stored;
mod variant;
mod workspace;

pub use decoder::CpuModel;
