//! Help for unit tests: numbers that look random, and the values that a packed left side holds.

use hyperrag_core::KvDtype;

use crate::cpu::gemm::epilogue::OutputRows;
use crate::cpu::gemm::pack_lhs::PackedLhs;
use crate::cpu::gemm::pack_rhs::PackedWeights;
use crate::cpu::rows::format::RowFormat;
use crate::dtype::ComputeDtype;
use crate::isa::Kernel;

/// splitmix64 (Steele, Lea and Flood 2014): numbers that a seed gives.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Bits of the values of an operand, which are those of its product with the identity.
pub(crate) fn values_of(operand: &PackedLhs, kernel: Kernel, dtype: ComputeDtype) -> Vec<u32> {
    let inputs = operand.inputs();
    let mut weights = PackedWeights::zeroed(inputs, inputs, dtype).unwrap();
    for i in 0..inputs {
        let mut row = vec![0.0; inputs];
        row[i] = 1.0;
        weights.fill(i, &row);
    }
    let mut values = vec![0.0; operand.rows() * inputs];
    let out = OutputRows::put(kernel, &mut values, inputs);
    weights.product(kernel, operand, weights.panels(), &mut Vec::new(), out);
    values.into_iter().map(f32::to_bits).collect()
}

/// Element types as formats of rows.
#[derive(Clone, Copy)]
pub(crate) struct TestRows(pub(crate) KvDtype);

impl RowFormat for TestRows {
    fn is_scaled_int8(self) -> bool {
        self.0 == KvDtype::Int8
    }

    fn row_bytes(self, dim: usize) -> usize {
        self.0.row_bytes(dim)
    }

    #[inline(always)]
    fn encode(self, row: &[f32], bytes: &mut [u8]) {
        self.0.encode(row, bytes);
    }

    #[inline(always)]
    fn decode(self, bytes: &[u8], row: &mut [f32]) {
        self.0.decode(bytes, row);
    }
}
