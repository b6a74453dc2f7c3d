//! Converts rows of K and V to the bytes of a block and back. Stored, read and fresh rows go through
//! the same code, so that reuse equals recompute to the bit. It does not know where blocks are kept.

use std::sync::Arc;

use hyperrag_core::{Calibration, KvDtype};
use hyperrag_kernels::cpu::rows::hadamard::order;
use hyperrag_kernels::isa::Kernel;

use crate::arch::rope::Rotations;
use crate::backend::cpu::kv_rows::KvRows;
use crate::random::SplitMix;

/// Place of a row in a block.
#[derive(Clone, Copy)]
pub(crate) struct KvRowIndex {
    pub(crate) layer: usize,
    /// Index of the KV head.
    pub(crate) head: usize,
    pub(crate) position: usize,
    /// Number of positions of the chunk.
    pub(crate) tokens: usize,
}

/// K or V.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KvPart {
    /// K. Rows are encoded from unrotated K and decoded to rotated K. They are rotated before they are
    /// stored, or, if calibrated, after they are read.
    Key,
    Value,
}

/// An element type with everything that it needs.
#[derive(Clone)]
pub(crate) struct KvCodec {
    kernel: Kernel,
    pub(crate) kv_dtype: KvDtype,
    calibration: Option<Arc<Calibration>>,
    /// Rotary angles of each layer.
    rotations: Arc<[Arc<Rotations>]>,
    /// A sign for each dimension, divided by the norm of the Hadamard matrix.
    signs: Arc<Vec<f32>>,
    /// Dimensions of a stored row. A row of K or V is one stored row, or several where layers differ.
    dim: usize,
}

impl KvCodec {
    /// Returns a codec without a calibration, which [`KvCodec::calibrated`] adds.
    pub(crate) fn new(
        kernel: Kernel,
        kv_dtype: KvDtype,
        dim: usize,
        rotations: Vec<Arc<Rotations>>,
    ) -> Self {
        let rotations = rotations.into();
        let signs = Arc::new(signs(dim));
        Self { kernel, kv_dtype, calibration: None, rotations, signs, dim }
    }

    pub(crate) fn calibrated(&self, kv_dtype: KvDtype, calibration: Arc<Calibration>) -> Self {
        Self { kv_dtype, calibration: Some(calibration), ..self.clone() }
    }

    /// Returns a codec for another element type, without a calibration.
    pub(crate) fn uncalibrated(&self, kv_dtype: KvDtype) -> Self {
        Self { kv_dtype, calibration: None, ..self.clone() }
    }

    /// Rotates rows of heads to their position.
    pub(crate) fn rotate(&self, layer: usize, position: usize, heads: &mut [f32]) {
        self.rotate_times(layer, position, heads, 1.0);
    }

    /// Rotates rows of heads to their position and multiplies them by `by`.
    pub(crate) fn rotate_times(&self, layer: usize, position: usize, heads: &mut [f32], by: f32) {
        self.kernel.rotate(heads, self.angles(layer, position), by);
    }

    /// Undoes [`KvCodec::rotate`], up to rounding.
    pub(crate) fn rotate_back(&self, layer: usize, position: usize, row: &mut [f32]) {
        for (pair, (cos, sin)) in row.chunks_exact_mut(2).zip(self.angles(layer, position)) {
            let (a, b) = (pair[0], pair[1]);
            pair[0] = a * cos + b * sin;
            pair[1] = b * cos - a * sin;
        }
    }

    fn angles(&self, layer: usize, position: usize) -> &[(f32, f32)] {
        self.rotations[layer].at(position)
    }

    /// Returns the bytes of a row of K or V of `dim` dimensions.
    pub(crate) fn row_bytes(&self, dim: usize) -> usize {
        dim / self.dim * self.kv_dtype.row_bytes(self.dim)
    }

    /// Writes the stored rows of a row.
    fn encode_rows(&self, row: &[f32], bytes: &mut [u8]) {
        let rows = row.chunks_exact(self.dim);
        for (row, bytes) in rows.zip(bytes.chunks_exact_mut(self.kv_dtype.row_bytes(self.dim))) {
            self.kernel.encode(KvRows(self.kv_dtype), row, bytes);
        }
    }

    /// Writes a row to `bytes`. Destroys `row`.
    pub(crate) fn encode(
        &self,
        part: KvPart,
        index: KvRowIndex,
        row: &mut [f32],
        bytes: &mut [u8],
    ) {
        if let Some(means) = self.means(part, index) {
            self.kernel.mix(row, means, &self.signs);
        } else if part == KvPart::Key {
            self.rotate(index.layer, index.position, row);
        }
        self.encode_rows(row, bytes);
    }

    /// Writes a row whose K is already rotated to its position, see [`KvCodec::encode`].
    pub(crate) fn encode_rotated(
        &self,
        part: KvPart,
        index: KvRowIndex,
        row: &mut [f32],
        bytes: &mut [u8],
    ) {
        if self.calibration.is_none() {
            return self.encode_rows(row, bytes);
        }
        if part == KvPart::Key {
            self.rotate_back(index.layer, index.position, row);
        }
        self.encode(part, index, row, bytes);
    }

    /// Reads a row; K is rotated to its position.
    pub(crate) fn decode(&self, part: KvPart, index: KvRowIndex, bytes: &[u8], row: &mut [f32]) {
        let stored = bytes.chunks_exact(self.kv_dtype.row_bytes(self.dim));
        for (bytes, row) in stored.zip(row.chunks_exact_mut(self.dim)) {
            self.kernel.decode(KvRows(self.kv_dtype), bytes, row);
        }
        if let Some(means) = self.means(part, index) {
            self.kernel.unmix(row, means, &self.signs);
            if part == KvPart::Key {
                self.rotate(index.layer, index.position, row);
            }
        }
    }

    /// Reads rows from `index`'s position on and rounds them to pairs of bf16. `row` is a buffer for
    /// one row.
    pub(crate) fn decode_to_pairs(
        &self,
        part: KvPart,
        index: KvRowIndex,
        bytes: &[u8],
        row: &mut [f32],
        pairs: &mut [u32],
    ) {
        if self.calibration.is_none() {
            let rows = KvRows(self.kv_dtype);
            return self.kernel.decode_to_pairs(rows, bytes, &mut row[..self.dim], pairs);
        }
        let rows = bytes.chunks_exact(self.row_bytes(row.len()));
        let pairs = pairs.chunks_exact_mut(row.len().div_ceil(2));
        for (i, (bytes, pairs)) in rows.zip(pairs).enumerate() {
            self.decode(part, KvRowIndex { position: index.position + i, ..index }, bytes, row);
            self.kernel.round_to_pairs(row, pairs);
        }
    }

    /// Rotates a row of K to its position, without rounding; leaves V as it is.
    pub(crate) fn exact(&self, part: KvPart, index: KvRowIndex, row: &mut [f32]) {
        if part == KvPart::Key {
            self.rotate(index.layer, index.position, row);
        }
    }

    fn means(&self, part: KvPart, index: KvRowIndex) -> Option<&[f32]> {
        let calibration = self.calibration.as_ref()?;
        let KvRowIndex { layer, head, position, tokens } = index;
        let at = calibration.fixed().place(position, tokens);
        Some(match part {
            KvPart::Key => calibration.keys(at, layer, head),
            KvPart::Value => calibration.values(at, layer, head),
        })
    }
}

/// Draws signs from a fixed seed and divides them by the square root of the matrix's order. Signs and
/// matrix, then matrix and signs, give the row back.
fn signs(dim: usize) -> Vec<f32> {
    let norm = 1.0 / (order(dim) as f32).sqrt();
    let mut random = SplitMix(0);
    (0..dim).map(|_| if random.next() & 1 == 0 { norm } else { -norm }).collect()
}

#[cfg(test)]
mod tests {
    use hyperrag_core::{FixedPositions, KvShape};
    use proptest::prelude::*;

    use super::*;

    fn codec(kv_dtype: KvDtype, dim: usize) -> KvCodec {
        let angles = (0..16 * dim / 2).map(|n| (n as f32).sin_cos());
        let angles = angles.map(|(sin, cos)| (cos, sin)).collect();
        let rotations = Arc::new(Rotations::new(angles, dim));
        let codec = KvCodec::new(Kernel::best(), kv_dtype, dim, vec![rotations; 2]);
        if !kv_dtype.is_calibrated() {
            return codec;
        }
        let kv_shape =
            KvShape { layers: 2, kv_heads: 2, head_dim: dim as u32, hidden: 8, kv_dtype };
        let fixed = FixedPositions { first: 1, last: 2 };
        let means = (0..4 * 2 * 4 * dim).map(|n| (n % 7) as f32 - 3.0).collect();
        codec.calibrated(kv_dtype, Arc::new(Calibration::new(&kv_shape, fixed, means)))
    }

    proptest! {
        #[test]
        fn rows_come_back_rotated(
            half in 1usize..40, values in prop::collection::vec(-3.0_f32..3.0, 80),
            position in 0usize..9, layer in 0usize..2, head in 0usize..2,
        ) {
            let dim = 2 * half;
            let index = KvRowIndex { layer, head, position, tokens: 9 };
            for (kv_dtype, off) in [
                (KvDtype::F32, 1e-5), (KvDtype::Bf16, 0.02), (KvDtype::Int8, 0.04),
                (KvDtype::Int5, 1.0), (KvDtype::Int4, 1.2),
            ] {
                let codec = codec(kv_dtype, dim);
                let mut bytes = vec![0; kv_dtype.row_bytes(dim)];
                for part in [KvPart::Key, KvPart::Value] {
                    let mut row = values[..dim].to_vec();
                    codec.encode(part, index, &mut row, &mut bytes);
                    codec.decode(part, index, &bytes, &mut row);
                    let mut expected = values[..dim].to_vec();
                    if part == KvPart::Key {
                        codec.rotate(layer, position, &mut expected);
                    }
                    let square = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>();
                    let difference: Vec<f32> =
                        row.iter().zip(&expected).map(|(a, b)| a - b).collect();
                    // Error of a row, relative to a row that has its largest value in all dimensions.
                    let error = (square(&difference) / dim as f32).sqrt();
                    prop_assert!(error <= off, "{} {}: {}", kv_dtype, dim, error);
                }
            }
        }

        #[test]
        fn rotating_back_gives_the_row(values in prop::collection::vec(-3.0_f32..3.0, 24), position in 0usize..9) {
            let codec = codec(KvDtype::F32, 24);
            let mut row = values.clone();
            codec.rotate(0, position, &mut row);
            codec.rotate_back(0, position, &mut row);
            for (a, b) in row.iter().zip(&values) {
                prop_assert!((a - b).abs() < 1e-5);
            }
            let means = vec![0.25; row.len()];
            codec.kernel.mix(&mut row, &means, &codec.signs);
            codec.kernel.unmix(&mut row, &means, &codec.signs);
            for (a, b) in row.iter().zip(&values) {
                prop_assert!((a - b).abs() < 1e-4);
            }
        }
    }
}
