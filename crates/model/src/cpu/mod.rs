//! The decoder on the CPU, in f32, of bf16 or of int8, by the kernels of `hyperrag-kernels`, whose bits depend on
//! nothing but a row's own data.

mod attend;
mod attention;
pub mod bench;
mod calibrate;
mod codec;
mod decoder;
mod element_rows;
mod generate;
mod head;
mod language_model;
mod layout;
mod passes;
mod past;
mod stored;
mod variant;
mod workspace;

pub use decoder::CpuModel;
