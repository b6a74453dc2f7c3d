//! Element types as formats of rows, which the kernels compile for each instruction set.

use hyperrag_core::KvDtype;
use hyperrag_kernels::cpu::rows::format::RowFormat;

/// Rows of an element type.
#[derive(Clone, Copy)]
pub(super) struct KvRows(pub(super) KvDtype);

impl RowFormat for KvRows {
    #[inline(always)]
    fn is_scaled_int8(self) -> bool {
        self.0 == KvDtype::Int8
    }

    #[inline(always)]
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
