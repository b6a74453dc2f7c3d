//! Arithmetic on the CPU: matrix products, attention's weights and row operations, one set for each
//! instruction set.
//!
//! In: floats, bytes of rows, weights. Out: floats, bytes of rows, log-probabilities. This crate knows no
//! model, no file and no thread.
//!
//! Every sum has one order, fixed by the length of the data alone: a product adds in order of `k` with
//! fused multiply-adds, and a row sum has [`lanes::LANES`] partial sums that are joined as a tree. So all
//! kernels give the same bits, which the tests check, and a row's result depends on nothing but the row.
//! The exceptions are AVX-512's instruction for pairs of bf16, and AMX: each has bits, and a kernel id, of
//! its own. Sums of int8 are exact, in any order.
//!
//! ```
//! use hyperrag_kernels::cpu::gemm::epilogue::OutputRows;
//! use hyperrag_kernels::cpu::gemm::pack_lhs::PackedLhs;
//! use hyperrag_kernels::cpu::gemm::pack_rhs::PackedWeights;
//! use hyperrag_kernels::dtype::ComputeDtype;
//! use hyperrag_kernels::isa::Kernel;
//!
//! let kernel = Kernel::best();
//! // Two outputs of three inputs.
//! let mut weights = PackedWeights::zeroed(2, 3, ComputeDtype::F32)?;
//! weights.fill(0, &[1.0, 0.0, 0.0, 0.0, 2.0, 1.0]);
//! let mut x = PackedLhs::default();
//! x.start(kernel, kernel.lhs_format(ComputeDtype::F32), 1, 3).set_all(&[5.0, 7.0, 9.0]);
//! let mut out = [0.0; 2];
//! weights.product(kernel, &x, weights.panels(), &mut Vec::new(), OutputRows::put(kernel, &mut out, 2));
//! assert_eq!(out, [5.0, 23.0]);
//! # Ok::<(), hyperrag_kernels::error::PackError>(())
//! ```

pub mod activation;
pub mod cpu;
pub mod dtype;
pub mod error;
pub mod isa;
pub mod lanes;
pub mod memory;
#[cfg(test)]
mod testing;
