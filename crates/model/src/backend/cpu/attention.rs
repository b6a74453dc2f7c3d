//! Causal attention of one sequence and one KV head, over all positions before or over a window, for
//! stored and fresh K and V alike.
//!
//! K and V of the block and of the sequence's own rows are laid side by side as one run of positions,
//! so that a pass in two parts adds in the same order as one whole pass.

use std::ops::Range;

use hyperrag_kernels::cpu::attention::mask::CausalMask;
use hyperrag_kernels::cpu::attention::softmax::Scores;
use hyperrag_kernels::cpu::gemm::epilogue::OutputRows;
use hyperrag_kernels::cpu::gemm::pack_lhs::{LhsFormat, PackedLhs};
use hyperrag_kernels::cpu::gemm::panels::{RhsPanels, k_steps};
use hyperrag_kernels::isa::Kernel;
use hyperrag_kernels::lanes::{PANEL, panels_of};
use hyperrag_kernels::memory::aligned::take;

use crate::backend::cpu::kv_cache::PastHead;
use crate::backend::cpu::kv_codec::{KvCodec, KvPart, KvRowIndex};
use crate::backend::cpu::kv_panels::KvPanels;
use crate::backend::cpu::scratch::Scratch;

/// Number of query positions in a step. K after the last position of a step and before the window of
/// its first is not read.
const STEP: usize = 32;
/// Alignment of the first position of a step's K and V: the columns of a panel, and the number of
/// values that the widest instruction for pairs adds at once.
const ALIGN: usize = 32;

/// Q, K and V of a sequence in the fused rows.
pub(crate) struct QkvHeads<'a> {
    /// Rows of the sequence, `[row][Q heads, K heads, V heads][dim]`, or without K and V if these are
    /// `shared`. Q is rotated and scaled.
    pub(crate) qkv: &'a [f32],
    /// K and V of another layer for the rows, `[row][K heads, V heads][dim]`.
    pub(crate) shared: Option<&'a [f32]>,
    /// Number of query heads.
    pub(crate) heads: usize,
    /// Number of KV heads.
    pub(crate) kv_heads: usize,
    /// Dimensions of one head.
    pub(crate) dim: usize,
    /// Soft cap of the scores.
    pub(crate) cap: Option<f32>,
    /// Number of positions that a position sees, including itself; `None` for all before it.
    pub(crate) window: Option<usize>,
}

/// Source of K and V of the earlier positions, and destination of the sequence's own K and V.
pub(crate) struct KvHead<'a> {
    pub(crate) codec: &'a KvCodec,
    /// Format in which Q, K, V and the weights of the positions are multiplied.
    pub(crate) format: LhsFormat,
    pub(crate) past: Option<PastHead<'a>>,
    pub(crate) layer: usize,
    /// Index of the KV head.
    pub(crate) head: usize,
    /// Places for K and V of this head in the block that is made.
    pub(crate) kv_out: Option<(&'a mut [u8], &'a mut [u8])>,
}

impl QkvHeads<'_> {
    fn stride(&self) -> usize {
        let kv_heads = if self.shared.is_some() { 0 } else { self.kv_heads };
        (self.heads + 2 * kv_heads) * self.dim
    }

    /// Number of rows of the sequence.
    fn rows(&self) -> usize {
        self.qkv.len() / self.stride()
    }

    /// Returns `count` heads of a row from head `head` on, counted through Q, K and V.
    fn row(&self, row: usize, head: usize, count: usize) -> &[f32] {
        &self.qkv[row * self.stride() + head * self.dim..][..count * self.dim]
    }

    /// Returns K or V of a row for one KV head.
    fn fresh(&self, part: KvPart, row: usize, head: usize) -> &[f32] {
        let before = if part == KvPart::Key { 0 } else { self.kv_heads };
        match self.shared {
            Some(kv) => {
                let first = (row * 2 * self.kv_heads + before + head) * self.dim;
                &kv[first..first + self.dim]
            }
            None => self.row(row, self.heads + before + head, 1),
        }
    }

    /// Computes attention of a KV head into `out`, `[row][group][dim]`.
    pub(crate) fn attend(
        &self,
        kernel: Kernel,
        kv: KvHead<'_>,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let (rows, group) = (self.rows(), self.heads / self.kv_heads);
        let (stored, head) = (kv.past.map_or(0, |past| past.tokens), kv.head);
        let format = kv.format;
        self.pack_kv(kernel, kv, scratch);
        let Scratch { keys, values, lhs, softmax, .. } = scratch;
        let [key_steps, value_steps] = [self.dim, stored + rows].map(|n| k_steps(format, n));
        for first in (0..rows).step_by(STEP) {
            let steps = STEP.min(rows - first);
            let seen = self.aligned_first(stored + first)..stored + first + steps;
            self.set_queries(kernel, format, head, first..first + steps, lhs);
            let keys = &keys[seen.start / PANEL * key_steps..panels_of(seen.end) * key_steps];
            let keys = RhsPanels { format, k_steps: key_steps, stride: key_steps, steps: keys };
            let mask =
                CausalMask { first: stored + first - seen.start, group, window: self.window() };
            softmax.take(kernel, &Scores { queries: lhs, keys, mask, cap: self.cap });
            let values = &values[step_of(format, seen.start)..panels_of(self.dim) * value_steps];
            // Masked positions have weight 0, which leaves every sum as it is.
            let k_steps = k_steps(format, seen.len());
            let values = RhsPanels { format, k_steps, stride: value_steps, steps: values };
            let out = &mut out[first * group * self.dim..][..steps * group * self.dim];
            values.product(kernel, softmax.weights(), OutputRows::put(kernel, out, self.dim));
            kernel.divide_rows(out, softmax.sums());
        }
    }

    /// Largest number of positions that a position sees.
    fn window(&self) -> usize {
        self.window.unwrap_or(usize::MAX)
    }

    /// Returns the first position that `position` sees, rounded down to the alignment.
    fn aligned_first(&self, position: usize) -> usize {
        (position + 1).saturating_sub(self.window()) / ALIGN * ALIGN
    }

    /// Packs Q of the rows `step`, `[row][group]`, as the left side of the product with K.
    fn set_queries(
        &self,
        kernel: Kernel,
        format: LhsFormat,
        head: usize,
        step: Range<usize>,
        lhs: &mut PackedLhs,
    ) {
        let group = self.heads / self.kv_heads;
        lhs.start(kernel, format, step.len() * group, self.dim);
        for (i, row) in step.enumerate() {
            let queries = self.row(row, head * group, group).chunks_exact(self.dim);
            for (head, query) in queries.enumerate() {
                lhs.set(i * group + head, 0, query);
            }
        }
    }

    /// Packs K and V of all visible positions as the right sides of the two products.
    fn pack_kv(&self, kernel: Kernel, kv: KvHead<'_>, scratch: &mut Scratch) {
        let KvHead { codec, format, past, layer, head, mut kv_out } = kv;
        let stored = past.map_or(0, |past| past.tokens);
        let positions = stored + self.rows();
        let Scratch { keys, values, row, rounded, bytes, .. } = scratch;
        let mut panels =
            KvPanels::start(kernel, format, positions, self.dim, keys, values, rounded);
        let (row, unseen) = (row.take(self.dim), self.aligned_first(stored));
        let row_bytes = codec.row_bytes(self.dim);
        for part in [KvPart::Key, KvPart::Value] {
            let index = |position, tokens| KvRowIndex { layer, head, position, tokens };
            if let Some(past) = past {
                let held = match part {
                    KvPart::Key => past.keys,
                    KvPart::Value => past.values,
                };
                let seen = held.get(unseen * row_bytes..).unwrap_or_default();
                panels.put_stored(codec, part, index(unseen, stored), seen, row);
            }
            // The query's rows are never stored; few bits would only cost accuracy.
            let exact = past.is_some() && codec.kv_dtype.is_calibrated();
            let bytes = match &mut kv_out {
                _ if exact => &mut [],
                Some((keys, _)) if part == KvPart::Key => &mut **keys,
                Some((_, values)) => &mut **values,
                None => take(bytes, self.rows() * row_bytes),
            };
            for fresh in 0..self.rows() {
                row.copy_from_slice(self.fresh(part, fresh, head));
                let index = index(stored + fresh, positions);
                if exact {
                    codec.exact(part, index, row);
                    panels.put(part, index.position, row);
                } else {
                    let bytes = &mut bytes[fresh * row_bytes..][..row_bytes];
                    codec.encode(part, index, row, bytes);
                }
            }
            panels.put_stored(codec, part, index(stored, positions), bytes, row);
        }
    }
}

/// Returns the step of a panel that holds a position, which is the first of its step.
fn step_of(format: LhsFormat, position: usize) -> usize {
    match format {
        LhsFormat::Bf16Pairs => position / 2,
        _ => position,
    }
}
