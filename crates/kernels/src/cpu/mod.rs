//! Kernels of the CPU. Rows, weights and bytes come in, rows and bytes go out, on the caller's thread.

pub mod attention;
pub mod gemm;
mod microkernel;
pub mod rows;
