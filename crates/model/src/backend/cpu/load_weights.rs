//! Reads weights from a file and packs them into the panels of products.

use hyperrag_kernels::cpu::gemm::pack_rhs::PackedWeights;
use hyperrag_kernels::dtype::ComputeDtype;
use hyperrag_kernels::lanes::{PANEL, panels_of};
use hyperrag_kernels::memory::huge_pages::WeightMemory;

use crate::arch::weights::{RowOrder, TensorRows, WeightSource};
use crate::error::LoadError;
use crate::format::model_file::{ModelFile, StoredTensor};

/// Locates weights in a file. They are read when they are packed.
pub(super) struct FileWeights<'a>(pub(super) &'a mut ModelFile);

/// A matrix in parts, one below the other.
pub(super) struct UnpackedMatrix {
    parts: Vec<(StoredTensor, RowOrder)>,
    inputs: usize,
    /// Whether panels of the parts alternate. If not, one part follows the other. Gates and ups
    /// alternate, because they are needed together.
    alternating: bool,
}

impl UnpackedMatrix {
    /// Reads the parts and packs them, in the memory of their model.
    pub(super) fn pack(
        self,
        memory: &WeightMemory,
        dtype: ComputeDtype,
    ) -> Result<PackedWeights, LoadError> {
        let rows = self.parts.iter().map(|(part, _)| part.rows());
        let (count, outputs) = match self.alternating {
            true => (self.parts.len(), rows.map(|rows| panels_of(rows) * PANEL).sum()),
            false => (1, rows.sum()),
        };
        let matrix = PackedWeights::zeroed_in(memory, outputs, self.inputs, dtype);
        let mut matrix = matrix.map_err(LoadError::packing)?;
        let mut first = 0;
        for (part, order) in self.parts {
            let mut row = 0;
            part.each_rows(|values| {
                for values in values.chunks_exact(self.inputs) {
                    let place = order.place(row);
                    matrix.fill(first + place / PANEL * count * PANEL + place % PANEL, values);
                    row += 1;
                }
            })?;
            first += if self.alternating { PANEL } else { row };
        }
        Ok(matrix)
    }
}

impl WeightSource for FileWeights<'_> {
    type Matrix = UnpackedMatrix;
    type Vector = Vec<f32>;

    fn has(&self, name: &str) -> bool {
        self.0.has(name)
    }

    fn pairs_halves(&self) -> bool {
        self.0.pairs_halves()
    }

    fn matrix(
        &mut self,
        parts: Vec<TensorRows>,
        inputs: usize,
    ) -> Result<UnpackedMatrix, LoadError> {
        let stored = |part: TensorRows| Ok((self.0.stored_rows(&part, Some(inputs))?, part.order));
        let parts = parts.into_iter().map(stored);
        Ok(UnpackedMatrix { parts: parts.collect::<Result<_, _>>()?, inputs, alternating: false })
    }

    fn gates_and_ups(
        &mut self,
        parts: Vec<TensorRows>,
        inputs: usize,
    ) -> Result<UnpackedMatrix, LoadError> {
        Ok(UnpackedMatrix { alternating: true, ..self.matrix(parts, inputs)? })
    }

    fn vector_times(&mut self, parts: Vec<TensorRows>, times: f32) -> Result<Vec<f32>, LoadError> {
        let mut values = self.0.values_of(&parts, None)?;
        values.iter_mut().for_each(|value| *value *= times);
        Ok(values)
    }
}
