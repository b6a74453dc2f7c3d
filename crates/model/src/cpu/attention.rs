//! Causal attention of one sequence and one KV head, over stored and fresh K and V alike.
//!
//! K and V of the block and of the sequence's own rows are laid side by side as one run of
//! positions, so that a pass in two parts adds in the same order as one whole pass.

use super::codec::{Codec, Part, Place};
use super::kernel::{Kernel, PANEL, panels_of};
use super::past::Past;
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

/// Where K and V of the positions before come from, and where those of the sequence go.
pub(crate) struct Source<'a> {
    pub(crate) codec: &'a Codec,
    pub(crate) past: Option<Past<'a>>,
    pub(crate) layer: usize,
    /// KV head.
    pub(crate) head: usize,
    /// Places of K and V of this head in the block that is made.
    pub(crate) kept: Option<(&'a mut [u8], &'a mut [u8])>,
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

    /// K or V of a row, for one KV head.
    fn fresh(&self, part: Part, row: usize, head: usize) -> &[f32] {
        let before = if part == Part::Key { self.heads } else { self.heads + self.kv_heads };
        self.row(row, before + head, 1)
    }

    /// Attention of a KV head: `out` is `[row][group][dim]`.
    pub(crate) fn attend(
        &self,
        kernel: Kernel,
        source: Source<'_>,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let (rows, group) = (self.rows(), self.heads / self.kv_heads);
        let (stored, head) = (source.past.map_or(0, Past::tokens), source.head);
        self.lay_out(source, scratch);
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
            let run = stored + rows;
            kernel.product(
                scores,
                scores_stride,
                steps * group,
                |panel| &values[panel * run..][..visible],
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
        let keys = |p: usize| &keys[p * self.dim..(p + 1) * self.dim];
        kernel.product(queries, self.dim, rows, keys, scores, columns, columns);
    }

    /// K as panels `[16 positions][dim][16]`, V as panels `[16 dims][position][16]`, in f32.
    fn lay_out(&self, source: Source<'_>, scratch: &mut Scratch) {
        let Source { codec, past, layer, head, mut kept } = source;
        let stored = past.map_or(0, Past::tokens);
        let positions = stored + self.rows();
        let key_lanes = panels_of(positions) * self.dim;
        let value_panels = panels_of(self.dim);
        let Scratch { keys, values, queries, bytes, .. } = scratch;
        let keys = take(keys, key_lanes);
        let values = take(values, value_panels * positions);
        let row = take(queries, self.dim);
        let row_bytes = codec.element.row_bytes(self.dim);
        let bytes = take(bytes, row_bytes);
        let mut put = |part: Part, position: usize, row: &[f32]| match part {
            Part::Key => {
                let panel = &mut keys[position / PANEL * self.dim..];
                for (lanes, k) in panel.iter_mut().zip(row) {
                    lanes.0[position % PANEL] = *k;
                }
            }
            Part::Value => {
                for (panel, part) in row.chunks(PANEL).enumerate() {
                    values[panel * positions + position].0[..part.len()].copy_from_slice(part);
                }
            }
        };
        for part in [Part::Key, Part::Value] {
            let place = |position, tokens| Place { layer, head, position, tokens };
            if let Some(block) = past {
                let held = match part {
                    Part::Key => block.keys(layer, head),
                    Part::Value => block.values(layer, head),
                };
                for (position, held) in held.chunks_exact(row_bytes).enumerate() {
                    codec.decode(part, place(position, stored), held, row);
                    put(part, position, row);
                }
            }
            let mut kept = kept.as_mut().map(|(keys, values)| match part {
                Part::Key => keys.chunks_exact_mut(row_bytes),
                Part::Value => values.chunks_exact_mut(row_bytes),
            });
            for fresh in 0..self.rows() {
                row.copy_from_slice(self.fresh(part, fresh, head));
                let place = place(stored + fresh, positions);
                // The query's rows are never stored; few bits would only cost accuracy.
                if past.is_some() && codec.element.is_calibrated() {
                    codec.exact(part, place, row);
                } else {
                    let bytes = kept.as_mut().and_then(Iterator::next).unwrap_or(&mut *bytes);
                    codec.encode(part, place, row, bytes);
                    codec.decode(part, place, bytes, row);
                }
                put(part, stored + fresh, row);
            }
        }
    }
}
