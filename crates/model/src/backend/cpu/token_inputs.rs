//! The inputs that a token gives to each layer, beside its embedding, as in Gemma 4.
//!
//! In: embedded rows, later residual rows. Out: the inputs of all layers, and residual rows with a layer's
//! input added. It does not know attention.

use std::f32::consts::FRAC_1_SQRT_2;

use hyperrag_kernels::cpu::gemm::epilogue::StoreOp;
use hyperrag_kernels::lanes::LANES;
use hyperrag_kernels::memory::aligned::take;

use crate::backend::cpu::forward::{Left, TokenRow};
use crate::backend::cpu::model::CpuModel;
use crate::backend::cpu::scratch::Scratch;

impl CpuModel {
    /// Number of values that a token gives to all layers.
    pub(super) fn token_inputs_width(&self) -> usize {
        self.config.layers * self.token_input()
    }

    /// Number of values that a token gives to one layer.
    fn token_input(&self) -> usize {
        self.config.mixed.map_or(0, |mixed| mixed.token_input)
    }

    /// Computes the inputs of all layers, `[row][layer][dim]`: the token's own, and a projection of its
    /// embedding `x`.
    pub(super) fn token_inputs(
        &self,
        rows: &[TokenRow],
        x: &[f32],
        inputs: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let Some(weights) = &self.weights.token_inputs else { return };
        let width = self.token_inputs_width();
        self.norm(x, None, scratch);
        self.linear(&weights.projection, Left::Normed, scratch, inputs, StoreOp::Put);
        let [hidden, own] = [self.config.hidden, self.token_input()].map(|n| (n as f32).sqrt());
        let token = scratch.wide.take(width);
        for (row, inputs) in rows.iter().zip(inputs.chunks_exact_mut(width)) {
            inputs.iter_mut().for_each(|value| *value *= 1.0 / hidden);
            self.norm_in_place(inputs, &weights.norm, &mut scratch.narrow);
            weights.embedding.copy_row(row.token as usize, token);
            for (input, token) in inputs.iter_mut().zip(&*token) {
                *input = (*input + *token * own) * FRAC_1_SQRT_2;
            }
        }
    }

    /// Ends a layer: adds what its gates let through of its input, and multiplies the rows by its factor.
    /// `inputs` are those of all layers and of all rows of the micro-batch.
    pub(super) fn add_token_input(
        &self,
        l: usize,
        rows: &[TokenRow],
        inputs: &[f32],
        x: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let layer = &self.weights.layers[l];
        if let Some(weights) = &layer.input {
            let (own, all) = (self.token_input(), self.token_inputs_width());
            let lanes = (rows.len() * own).div_ceil(LANES);
            let mut buffers = std::mem::take(&mut scratch.gates);
            let [gates, ups] = buffers.each_mut().map(|buffer| take(buffer, lanes));
            let values = &mut bytemuck::cast_slice_mut(ups)[..rows.len() * own];
            for (row, values) in rows.iter().zip(values.chunks_exact_mut(own)) {
                values.copy_from_slice(&inputs[row.index * all + l * own..][..own]);
            }
            self.norm(x, None, scratch);
            let values = &mut bytemuck::cast_slice_mut(gates)[..rows.len() * own];
            self.linear(&weights.gate, Left::Normed, scratch, values, StoreOp::Put);
            self.kernel.gelu_mul(gates, ups);
            let values = &bytemuck::cast_slice(gates)[..rows.len() * own];
            scratch.activated.start(self.kernel, self.lhs_format(), rows.len(), own);
            scratch.activated.set_all(values);
            scratch.gates = buffers;
            self.add_linear(&weights.projection, Left::Activated, Some(&weights.norm), x, scratch);
        }
        if let Some(scale) = &layer.output_scale {
            x.iter_mut().for_each(|value| *value *= scale[0]);
        }
    }
}
