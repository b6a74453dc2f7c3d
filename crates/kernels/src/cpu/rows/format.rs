//! The interface of byte formats of rows, which the caller defines and the kernels compile for each
//! instruction set.

/// A format of rows of values in bytes. Its functions are to be `#[inline(always)]`, so that they become
/// part of functions that are compiled for an instruction set.
pub trait RowFormat: Copy {
    /// Returns whether rows are as `rows/kv_int8.rs` has them: a scale in bf16, the largest magnitude over
    /// 127, then a signed byte for each value.
    fn is_scaled_int8(self) -> bool;

    /// Bytes that a row of `dim` values takes.
    fn row_bytes(self, dim: usize) -> usize;

    /// Writes a row to `bytes`.
    ///
    /// # Panics
    /// If `bytes` is not exactly as long as the encoded row.
    fn encode(self, row: &[f32], bytes: &mut [u8]);

    /// Reads `bytes` back into a row.
    ///
    /// # Panics
    /// If the lengths do not fit.
    fn decode(self, bytes: &[u8], row: &mut [f32]);
}
