//! Causal attention of one sequence and one KV head, over stored and fresh K and V alike.
//!
//! K and V of the block and of the sequence's own rows are laid side by side as one run of
//! positions, so that a pass in two parts adds in the same order as one whole pass.

use hyperrag_kv::{Element, KvBlock};

use super::kernel::{Kernel, LANES, PANEL, panels_of};
use super::workspace::{Scratch, take};

/// Query positions of a step; K beyond the last one's position is not touched.
const STEP: usize = 32;

/// Where Q, K and V of a sequence stand in the fused rows.
pub(crate) struct Heads<'a> {
    /// Rows of the sequence, `[row][Q heads, K heads, V heads][dim]`.
    pub(crate) qkv: &'a [f32],
    /// Query heads.
    pub(crate) heads: usize,
    /// KV heads.
    pub(crate) kv_heads: usize,
    /// Dimensions of one head.
    pub(crate) dim: usize,
}

impl Heads<'_> {
    fn stride(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.dim
    }

    /// Rows of the sequence.
    fn rows(&self) -> usize {
        self.qkv.len() / self.stride()
    }

    /// `count` heads of a row, starting with head `head` of Q, K and V counted through.
    fn row(&self, row: usize, head: usize, count: usize) -> &[f32] {
        &self.qkv[row * self.stride() + head * self.dim..][..count * self.dim]
    }

    /// K of a row, for one KV head.
    pub(crate) fn key(&self, row: usize, head: usize) -> &[f32] {
        self.row(row, self.heads + head, 1)
    }

    /// V of a row, for one KV head.
    pub(crate) fn value(&self, row: usize, head: usize) -> &[f32] {
        self.row(row, self.heads + self.kv_heads + head, 1)
    }

    /// Copies K (or V) of all rows to its place in a block.
    pub(crate) fn store(&self, head: usize, element: Element, keys: &mut [u8], values: &mut [u8]) {
        let bytes = element.row_bytes(self.dim);
        let out = keys.chunks_exact_mut(bytes).zip(values.chunks_exact_mut(bytes));
        for (row, (key, value)) in out.enumerate() {
            element.encode(self.key(row, head), key);
            element.encode(self.value(row, head), value);
        }
    }

    /// Attention of KV head `head`: `out` is `[row][group][dim]`.
    pub(crate) fn attend(
        &self,
        kernel: Kernel,
        past: Option<(&KvBlock, usize)>,
        head: usize,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let (rows, group) = (self.rows(), self.heads / self.kv_heads);
        let stored = past.map_or(0, |(block, _)| block.tokens());
        self.lay_out(past, head, scratch);
        for first in (0..rows).step_by(STEP) {
            let steps = STEP.min(rows - first);
            let visible = stored + first + steps;
            self.attend_step(kernel, head, first..first + steps, visible, scratch);
            let scores_stride = panels_of(visible) * PANEL;
            let results = &mut out[first * group * self.dim..][..steps * group * self.dim];
            let Scratch { scores, values, rows: sums, .. } = &mut *scratch;
            let sums = take(sums, steps * group);
            for (i, row) in scores.chunks_mut(scores_stride).take(steps * group).enumerate() {
                sums[i] = kernel.softmax(row, stored + first + i / group + 1);
            }
            let run = 2 * (stored + rows);
            kernel.product(
                scores,
                scores_stride,
                steps * group,
                |panel| &values[panel * run..][..2 * visible],
                results,
                self.dim,
                self.dim,
            );
            for (result, sum) in results.chunks_exact_mut(self.dim).zip(sums) {
                let scale = 1.0 / *sum;
                result.iter_mut().for_each(|value| *value *= scale);
            }
        }
    }

    /// Scores of the query rows `step` against the first `visible` positions.
    fn attend_step(
        &self,
        kernel: Kernel,
        head: usize,
        step: std::ops::Range<usize>,
        visible: usize,
        scratch: &mut Scratch,
    ) {
        let group = self.heads / self.kv_heads;
        let rows = step.len() * group;
        let Scratch { keys, queries, scores, .. } = scratch;
        let queries = take(queries, rows * self.dim);
        let scale = 1.0 / (self.dim as f32).sqrt();
        for (row, out) in step.zip(queries.chunks_exact_mut(group * self.dim)) {
            for (out, value) in out.iter_mut().zip(self.row(row, head * group, group)) {
                *out = value * scale;
            }
        }
        let columns = panels_of(visible) * PANEL;
        let scores = take(scores, rows * columns);
        let panel = 2 * self.dim;
        let keys = |p: usize| &keys[p * panel..(p + 1) * panel];
        kernel.product(queries, self.dim, rows, keys, scores, columns, columns);
    }

    /// K as panels `[32 positions][dim][32]`, V as panels `[32 dims][position][32]`, in f32.
    fn lay_out(&self, past: Option<(&KvBlock, usize)>, head: usize, scratch: &mut Scratch) {
        let stored = past.map_or(0, |(block, _)| block.tokens());
        let positions = stored + self.rows();
        let key_lanes = panels_of(positions) * self.dim * 2;
        let value_panels = panels_of(self.dim);
        let Scratch { keys, values, queries, .. } = scratch;
        let keys = take(keys, key_lanes);
        let values = take(values, value_panels * positions * 2);
        let row = take(queries, self.dim);
        let mut put = |position: usize, key: Option<&[f32]>, value: Option<&[f32]>| {
            let (panel, column) = (position / PANEL, position % PANEL);
            for (dim, k) in key.unwrap_or_default().iter().enumerate() {
                let lanes = &mut keys[(panel * self.dim + dim) * 2 + column / LANES];
                lanes.0[column % LANES] = *k;
            }
            for (i, part) in value.unwrap_or_default().chunks(LANES).enumerate() {
                let lanes = &mut values[(i / 2 * positions + position) * 2 + i % 2];
                lanes.0[..part.len()].copy_from_slice(part);
            }
        };
        if let Some((block, layer)) = past {
            let element = block.geometry().element;
            let bytes = element.row_bytes(self.dim);
            for (position, key) in block.keys(layer, head).chunks_exact(bytes).enumerate() {
                element.decode(key, row);
                put(position, Some(row), None);
            }
            for (position, value) in block.values(layer, head).chunks_exact(bytes).enumerate() {
                element.decode(value, row);
                put(position, None, Some(row));
            }
        }
        for row in 0..self.rows() {
            put(stored + row, Some(self.key(row, head)), Some(self.value(row, head)));
        }
    }
}
