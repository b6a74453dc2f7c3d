//! Weights as right sides of products: rows come in row-major, panels of f32, bf16 or int8 are kept, and an
//! epilogue gets the sums. It does not know where weights come from.

use std::ops::Range;

use crate::cpu::gemm::blocking::{
    INPUTS_MAX, ORDER_MIN, PANELS, k_steps_of_pairs, k_steps_of_quads, scales_of,
};
use crate::cpu::gemm::epilogue::{Epilogue, Tile};
use crate::cpu::gemm::pack_lhs::{LhsFormat, PackedLhs};
use crate::cpu::rows::hadamard;
use crate::dtype::ComputeDtype;
use crate::error::PackError;
use crate::isa::Kernel;
use crate::lanes::{LANES, Lanes, PANEL, Pairs, Quads, halves, panels_of};
use crate::memory::aligned::take;
use crate::memory::huge_pages::{Pages, WeightMemory};

/// The weights of a linear layer, packed once for the tiles: panels of 16 outputs, each
/// `[input][16]`, the last one padded with zeros.
pub struct PackedWeights {
    outputs: usize,
    inputs: usize,
    panels: PackedPanels,
}

enum PackedPanels {
    F32(Pages<Lanes>),
    /// Pairs of inputs, with zeros behind them up to a multiple of `K_STEPS_MULTIPLE`.
    Bf16(Pages<Pairs>),
    /// A step with the scales of the outputs, then fours of inputs with zeros behind them up to a
    /// multiple of `K_STEPS_MULTIPLE`. An output's weights are rotated by Hadamard matrices as
    /// a row of the left side is, and then rounded, the largest to 127.
    Int8(Pages<Quads>),
}

impl PackedWeights {
    /// Weights of zero, to be filled. `dtype` is what products are to be computed from: bf16 or
    /// int8, to which weights are rounded, or f32.
    ///
    /// # Errors
    /// [`PackError::OutOfMemory`]; [`PackError::Int8Inputs`] for inputs that int8 cannot have.
    pub fn zeroed(outputs: usize, inputs: usize, dtype: ComputeDtype) -> Result<Self, PackError> {
        Self::zeroed_in(&WeightMemory::default(), outputs, inputs, dtype)
    }

    /// Makes weights like [`PackedWeights::zeroed`], in the memory of a model.
    ///
    /// # Errors
    /// See [`PackedWeights::zeroed`].
    pub fn zeroed_in(
        memory: &WeightMemory,
        outputs: usize,
        inputs: usize,
        dtype: ComputeDtype,
    ) -> Result<Self, PackError> {
        let panels = match dtype {
            ComputeDtype::Bf16 => {
                PackedPanels::Bf16(memory.zeroed(panels_of(outputs) * k_steps_of_pairs(inputs))?)
            }
            ComputeDtype::Int8 if !inputs.is_multiple_of(ORDER_MIN) || inputs > INPUTS_MAX => {
                let (multiple, max) = (ORDER_MIN, INPUTS_MAX);
                return Err(PackError::Int8Inputs { inputs, multiple, max });
            }
            ComputeDtype::Int8 => PackedPanels::Int8(
                memory.zeroed(panels_of(outputs) * (1 + k_steps_of_quads(inputs)))?,
            ),
            _ => PackedPanels::F32(memory.zeroed(panels_of(outputs) * inputs)?),
        };
        Ok(Self { outputs, inputs, panels })
    }

    /// Sets the weights of the outputs from `first` on, row-major.
    pub fn fill(&mut self, first: usize, weights: &[f32]) {
        let (inputs, kernel) = (self.inputs, Kernel::best());
        let rows = (first..).zip(weights.chunks_exact(inputs));
        let rows = rows.map(|(output, row)| (output / PANEL, output % PANEL, row));
        match &mut self.panels {
            PackedPanels::F32(steps) => {
                for (panel, column, row) in rows {
                    for (lanes, weight) in steps[panel * inputs..].iter_mut().zip(row) {
                        lanes.0[column] = *weight;
                    }
                }
            }
            PackedPanels::Bf16(steps) => {
                let mut pairs = vec![0; inputs.div_ceil(2)];
                for (panel, column, row) in rows {
                    kernel.round_to_pairs(row, &mut pairs);
                    let steps = &mut steps[panel * k_steps_of_pairs(inputs)..];
                    for (step, pair) in steps.iter_mut().zip(&pairs) {
                        step.0[column] = *pair;
                    }
                }
            }
            PackedPanels::Int8(steps) => {
                let mut quads = vec![Quads::default(); inputs.div_ceil(4 * LANES)];
                let mut rotated = Vec::new();
                for (panel, column, row) in rows {
                    rotated.clear();
                    rotated.extend_from_slice(row);
                    let scale = kernel.quantise(&mut rotated, &mut quads, 1);
                    let panel = &mut steps[panel * (1 + k_steps_of_quads(inputs))..];
                    bytemuck::cast_mut::<_, Lanes>(&mut panel[0]).0[column] = scale;
                    let quads: &[[i8; 4]] = bytemuck::cast_slice(&quads);
                    for (step, quad) in panel[1..].iter_mut().zip(&quads[..inputs / 4]) {
                        step.0[4 * column..][..4].copy_from_slice(quad);
                    }
                }
            }
        }
    }

    /// All panels.
    #[inline]
    #[must_use]
    pub fn panels(&self) -> Range<usize> {
        0..panels_of(self.outputs)
    }

    /// Outputs of the layer.
    #[inline]
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Gives `epilogue` the sums of the rows of `x` with the weights of the outputs in `panels`. `upcast` is a
    /// buffer.
    ///
    /// # Panics
    /// If there are no such panels, or `x` has other inputs or another format.
    pub fn product(
        &self,
        kernel: Kernel,
        x: &PackedLhs,
        panels: Range<usize>,
        upcast: &mut Vec<Lanes>,
        mut epilogue: impl Epilogue,
    ) {
        assert!(panels.end <= panels_of(self.outputs));
        assert!(x.inputs() == self.inputs && x.format() == kernel.lhs_format(self.dtype()));
        let (rows, inputs, first) = (x.rows(), self.inputs, panels.start);
        match &self.panels {
            PackedPanels::F32(steps) => {
                let panel = |p| &steps[(first + p) * inputs..][..inputs];
                kernel.product(x.floats(), inputs, rows, panels.len(), panel, epilogue);
            }
            PackedPanels::Bf16(steps) => {
                let k_steps = k_steps_of_pairs(inputs);
                let panel = |p| &steps[(first + p) * k_steps..][..k_steps];
                if x.format() == LhsFormat::Bf16Pairs {
                    return kernel.product_of_pairs(x.pairs(), rows, panels.len(), panel, epilogue);
                }
                let lanes = take(upcast, PANELS * 2 * k_steps);
                for first in (0..panels.len()).step_by(PANELS) {
                    let count = PANELS.min(panels.len() - first);
                    for (p, lanes) in lanes.chunks_exact_mut(2 * k_steps).take(count).enumerate() {
                        kernel.upcast(panel(first + p), lanes);
                    }
                    let panel = |p| &lanes[p * 2 * k_steps..][..inputs];
                    kernel.product(x.floats(), inputs, rows, count, panel, |tile: Tile<'_>| {
                        epilogue.take(Tile { panel: first, ..tile });
                    });
                }
            }
            PackedPanels::Int8(steps) => {
                let k_steps = 1 + k_steps_of_quads(inputs);
                let panel = |p| &steps[(first + p) * k_steps..][..k_steps];
                let (x, scales) = x.quads();
                kernel.product_of_quads(x, scales, panels.len(), panel, epilogue);
            }
        }
    }

    #[inline]
    fn dtype(&self) -> ComputeDtype {
        match self.panels {
            PackedPanels::F32(_) => ComputeDtype::F32,
            PackedPanels::Bf16(_) => ComputeDtype::Bf16,
            PackedPanels::Int8(_) => ComputeDtype::Int8,
        }
    }

    /// Copies the weights of one output: with tied embeddings, a token's embedding. Weights of int8 come
    /// back as they are rounded.
    pub fn copy_row(&self, output: usize, row: &mut [f32]) {
        let (panel, column) = (output / PANEL, output % PANEL);
        match &self.panels {
            PackedPanels::F32(steps) => {
                for (weight, lanes) in row.iter_mut().zip(&steps[panel * self.inputs..]) {
                    *weight = lanes.0[column];
                }
            }
            PackedPanels::Bf16(steps) => {
                let k_steps = k_steps_of_pairs(self.inputs);
                for (weights, pairs) in row.chunks_mut(2).zip(&steps[panel * k_steps..]) {
                    weights.copy_from_slice(&halves(pairs.0[column])[..weights.len()]);
                }
            }
            PackedPanels::Int8(steps) => {
                let panel = &steps[panel * (1 + k_steps_of_quads(self.inputs))..];
                // Rotated twice a row is itself, times the order of the matrix.
                let scale = scales_of(panel).0[column] / hadamard::order(self.inputs) as f32;
                for (weights, step) in row.chunks_exact_mut(4).zip(&panel[1..]) {
                    for (weight, value) in weights.iter_mut().zip(&step.0[4 * column..]) {
                        *weight = f32::from(*value) * scale;
                    }
                }
                hadamard::hadamard_strided(&mut row[..self.inputs]);
            }
        }
    }
}
