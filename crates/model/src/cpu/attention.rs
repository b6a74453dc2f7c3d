//! Causal attention of one sequence and one KV head, to all positions before or to a window's, over
//! stored and fresh K and V alike.
//!
//! K and V of the block and of the sequence's own rows are laid side by side as one run of
//! positions, so that a pass in two parts adds in the same order as one whole pass.

use std::ops::Range;

use hyperrag_kernels::cpu::attention::mask::Seen;
use hyperrag_kernels::cpu::attention::softmax::Scores;
use hyperrag_kernels::cpu::gemm::epilogue::Rows;
use hyperrag_kernels::cpu::gemm::pack_lhs::{LhsFormat, PackedLhs};
use hyperrag_kernels::cpu::gemm::panels::{Panels, depth};
use hyperrag_kernels::isa::Kernel;
use hyperrag_kernels::lanes::{PANEL, panels_of};
use hyperrag_kernels::memory::aligned::take;

use super::codec::{Codec, Part, Place};
use super::layout::Layout;
use super::past::PastHead;
use super::workspace::Scratch;

/// Query positions of a step; K beyond the last one's position, and before the first one's window,
/// is not touched.
const STEP: usize = 32;
/// The first position of a step's K and V is a multiple of this: a panel's columns, and what the
/// widest instruction for pairs adds at once.
const ALIGN: usize = 32;

/// Where Q, K and V of a sequence stand in the fused rows.
pub(crate) struct Heads<'a> {
    /// Rows of the sequence, `[row][Q heads, K heads, V heads][dim]`, Q at its position and scaled.
    pub(crate) qkv: &'a [f32],
    /// Query heads.
    pub(crate) heads: usize,
    /// KV heads.
    pub(crate) kv_heads: usize,
    /// Dimensions of one head.
    pub(crate) dim: usize,
    /// The bound to which scores are squeezed.
    pub(crate) cap: Option<f32>,
    /// Positions that a position sees, itself among them; `None` for all before it.
    pub(crate) window: Option<usize>,
}

/// Where K and V of the positions before come from, and where those of the sequence go.
pub(crate) struct Source<'a> {
    pub(crate) codec: &'a Codec,
    /// Format in which Q, K, V and the weights of the positions are multiplied.
    pub(crate) format: LhsFormat,
    pub(crate) past: Option<PastHead<'a>>,
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
        let (stored, head) = (source.past.map_or(0, |past| past.tokens), source.head);
        let format = source.format;
        self.lay_out(kernel, source, scratch);
        let Scratch { keys, values, operand, softmax, .. } = scratch;
        let depths = [self.dim, stored + rows].map(|inputs| depth(format, inputs));
        for first in (0..rows).step_by(STEP) {
            let steps = STEP.min(rows - first);
            let seen = self.aligned_first(stored + first)..stored + first + steps;
            self.set_queries(kernel, format, head, first..first + steps, operand);
            let keys = &keys[seen.start / PANEL * depths[0]..panels_of(seen.end) * depths[0]];
            let keys = Panels { format, depth: depths[0], stride: depths[0], steps: keys };
            let own = Seen { first: stored + first - seen.start, group, window: self.window() };
            softmax.take(kernel, &Scores { queries: operand, keys, seen: own, cap: self.cap });
            let values = &values[step_of(format, seen.start)..panels_of(self.dim) * depths[1]];
            // What is masked has weight 0, which leaves every sum as it is.
            let depth = depth(format, seen.len());
            let values = Panels { format, depth, stride: depths[1], steps: values };
            let out = &mut out[first * group * self.dim..][..steps * group * self.dim];
            values.product(kernel, softmax.weights(), Rows::put(kernel, out, self.dim));
            kernel.divide_rows(out, softmax.sums());
        }
    }

    /// Positions that a position sees at most.
    fn window(&self) -> usize {
        self.window.unwrap_or(usize::MAX)
    }

    /// The first position that `position` sees, where the products of a step that begins there begin.
    fn aligned_first(&self, position: usize) -> usize {
        (position + 1).saturating_sub(self.window()) / ALIGN * ALIGN
    }

    /// Q of the rows `step`, `[row][group]`, as the left side of the product with K.
    fn set_queries(
        &self,
        kernel: Kernel,
        format: LhsFormat,
        head: usize,
        step: Range<usize>,
        operand: &mut PackedLhs,
    ) {
        let group = self.heads / self.kv_heads;
        operand.start(kernel, format, step.len() * group, self.dim);
        for (i, row) in step.enumerate() {
            let queries = self.row(row, head * group, group).chunks_exact(self.dim);
            for (head, query) in queries.enumerate() {
                operand.set(i * group + head, 0, query);
            }
        }
    }

    /// Lays K and V of all positions that are seen out as the right sides of the two products.
    fn lay_out(&self, kernel: Kernel, source: Source<'_>, scratch: &mut Scratch) {
        let Source { codec, format, past, layer, head, mut kept } = source;
        let stored = past.map_or(0, |past| past.tokens);
        let positions = stored + self.rows();
        let Scratch { keys, values, row, rounded, bytes, .. } = scratch;
        let mut layout = Layout::start(kernel, format, positions, self.dim, keys, values, rounded);
        let (row, unseen) = (row.take(self.dim), self.aligned_first(stored));
        let row_bytes = codec.element.row_bytes(self.dim);
        for part in [Part::Key, Part::Value] {
            let place = |position, tokens| Place { layer, head, position, tokens };
            if let Some(past) = past {
                let held = match part {
                    Part::Key => past.keys,
                    Part::Value => past.values,
                };
                let seen = held.get(unseen * row_bytes..).unwrap_or_default();
                layout.put_stored(codec, part, place(unseen, stored), seen, row);
            }
            // The query's rows are never stored; few bits would only cost accuracy.
            let exact = past.is_some() && codec.element.is_calibrated();
            let bytes = match &mut kept {
                _ if exact => &mut [],
                Some((keys, _)) if part == Part::Key => &mut **keys,
                Some((_, values)) => &mut **values,
                None => take(bytes, self.rows() * row_bytes),
            };
            for fresh in 0..self.rows() {
                row.copy_from_slice(self.fresh(part, fresh, head));
                let place = place(stored + fresh, positions);
                if exact {
                    codec.exact(part, place, row);
                    layout.put(part, place.position, row);
                } else {
                    let bytes = &mut bytes[fresh * row_bytes..][..row_bytes];
                    codec.encode(part, place, row, bytes);
                }
            }
            layout.put_stored(codec, part, place(stored, positions), bytes, row);
        }
    }
}

/// The step of a panel with the value of a position, the first of its step.
fn step_of(format: LhsFormat, position: usize) -> usize {
    match format {
        LhsFormat::Bf16Pairs => position / 2,
        _ => position,
    }
}
