//! Causal attention of one sequence and one KV head, to all positions before or to a window's, over
//! stored and fresh K and V alike.
//!
//! K and V of the block and of the sequence's own rows are laid side by side as one run of
//! positions, so that a pass in two parts adds in the same order as one whole pass.

use std::ops::Range;

use hyperrag_kv::Element;

use super::codec::{Codec, Part, Place};
use super::kernel::{
    Form, Kernel, Lanes, Operand, PANEL, Pairs, Rows, Seen, Then, depth_of, panels_of,
};
use super::past::PastHead;
use super::workspace::{Scratch, take};

/// Query positions of a step; K beyond the last one's position, and before the first one's window,
/// is not touched.
const STEP: usize = 32;
/// The first position of a step's K and V is a multiple of this: a panel's columns, and what the
/// widest instruction for pairs adds at once.
const ALIGN: usize = 32;

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
    /// By which scores are multiplied.
    pub(crate) scale: f32,
    /// The bound to which scores are squeezed.
    pub(crate) cap: Option<f32>,
    /// Positions that a position sees, itself among them; `None` for all before it.
    pub(crate) window: Option<usize>,
}

/// Where K and V of the positions before come from, and where those of the sequence go.
pub(crate) struct Source<'a> {
    pub(crate) codec: &'a Codec,
    /// In what form Q, K, V and the weights of the positions are multiplied.
    pub(crate) form: Form,
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
        let form = source.form;
        self.lay_out(kernel, source, scratch);
        for first in (0..rows).step_by(STEP) {
            let steps = STEP.min(rows - first);
            let seen = self.aligned_first(stored + first)..stored + first + steps;
            self.score(kernel, form, head, first..first + steps, seen.clone(), scratch);
            let columns = panels_of(seen.len()) * PANEL;
            let results = &mut out[first * group * self.dim..][..steps * group * self.dim];
            let Scratch { scores, values, rows: sums, operand, .. } = &mut *scratch;
            let (sums, scores) = (sums.take(steps * group), scores.take(steps * group * columns));
            let own = Seen { first: stored + first - seen.start, group, window: self.window() };
            if let Some(cap) = self.cap {
                let rows = scores.chunks_exact_mut(columns).enumerate();
                rows.for_each(|(i, row)| kernel.soft_cap(&mut row[own.span(i)], cap));
            }
            // What is masked has weight 0, which leaves every sum as it is.
            kernel.softmax(scores, columns, own, sums);
            operand.start(kernel, form, steps * group, seen.len());
            for (i, row) in scores.chunks_exact(columns).enumerate() {
                operand.set(i, 0, &row[..seen.len()]);
            }
            let steps = &values[step_of(form, seen.start)..];
            let panels = Panels { form, depth: depth(form, stored + rows), steps };
            panels.product(kernel, operand, depth(form, seen.len()), results, self.dim);
            for (result, sum) in results.chunks_exact_mut(self.dim).zip(sums) {
                let scale = 1.0 / *sum;
                result.iter_mut().for_each(|value| *value *= scale);
            }
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

    /// Scores of the query rows `step` against the positions `seen`.
    fn score(
        &self,
        kernel: Kernel,
        form: Form,
        head: usize,
        step: Range<usize>,
        seen: Range<usize>,
        scratch: &mut Scratch,
    ) {
        let group = self.heads / self.kv_heads;
        let rows = step.len() * group;
        let Scratch { keys, queries, scores, operand, .. } = scratch;
        let query = queries.take(group * self.dim);
        operand.start(kernel, form, rows, self.dim);
        for (i, row) in step.enumerate() {
            for (out, value) in query.iter_mut().zip(self.row(row, head * group, group)) {
                *out = value * self.scale;
            }
            for (head, query) in query.chunks_exact(self.dim).enumerate() {
                operand.set(i * group + head, 0, query);
            }
        }
        let columns = panels_of(seen.len()) * PANEL;
        let scores = scores.take(rows * columns);
        let depth = depth(form, self.dim);
        let panels = Panels { form, depth, steps: &keys[seen.start / PANEL * depth..] };
        panels.product(kernel, operand, depth, scores, columns);
    }

    /// Lays K and V of all positions that are seen out as the right sides of the two products.
    fn lay_out(&self, kernel: Kernel, source: Source<'_>, scratch: &mut Scratch) {
        let Source { codec, form, past, layer, head, mut kept } = source;
        let stored = past.map_or(0, |past| past.tokens);
        let positions = stored + self.rows();
        let Scratch { keys, values, queries, pair_row, bytes, .. } = scratch;
        let mut layout = Layout::start(kernel, form, positions, self.dim, keys, values, pair_row);
        let (row, unseen) = (queries.take(self.dim), self.aligned_first(stored));
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

/// Steps of a panel for a sum over `inputs` values.
fn depth(form: Form, inputs: usize) -> usize {
    match form {
        Form::Pairs => depth_of(inputs),
        _ => inputs,
    }
}

/// The step of a panel with the value of a position, the first of its step.
fn step_of(form: Form, position: usize) -> usize {
    match form {
        Form::Pairs => position / 2,
        _ => position,
    }
}

/// The right side of a product: panels of 16 columns, each of `depth` steps.
struct Panels<'a> {
    form: Form,
    depth: usize,
    steps: &'a [Lanes],
}

impl Panels<'_> {
    /// `x` times the first `steps` steps of all panels.
    fn product(
        &self,
        kernel: Kernel,
        x: &Operand,
        steps: usize,
        values: &mut [f32],
        columns: usize,
    ) {
        let (out, panels) = (
            Rows { kernel, values, stride: columns, columns, then: Then::Put },
            panels_of(columns),
        );
        match self.form {
            Form::Pairs => {
                let pairs: &[Pairs] = bytemuck::cast_slice(self.steps);
                let panel = |p| &pairs[p * self.depth..][..steps];
                kernel.product_of_pairs(x.pairs(), x.rows(), panels, panel, out);
            }
            _ => {
                let panel = |p| &self.steps[p * self.depth..][..steps];
                kernel.product(x.floats(), steps, x.rows(), panels, panel, out);
            }
        }
    }
}

/// K and V as they are laid out: K as panels `[16 positions][dim]`, V as panels
/// `[16 dims][position]`.
enum Layout<'a> {
    F32 {
        keys: &'a mut [Lanes],
        values: &'a mut [Lanes],
        positions: usize,
        dim: usize,
    },
    /// The same with two dims of K, or two positions of V, in a step.
    Pairs {
        kernel: Kernel,
        keys: &'a mut [Pairs],
        values: &'a mut [Pairs],
        /// Steps of a panel of K, and of one of V.
        depths: [usize; 2],
        row: &'a mut [u32],
    },
}

impl<'a> Layout<'a> {
    fn start(
        kernel: Kernel,
        form: Form,
        positions: usize,
        dim: usize,
        keys: &'a mut Vec<Lanes>,
        values: &'a mut Vec<Lanes>,
        row: &'a mut Vec<u32>,
    ) -> Self {
        let depths = [depth(form, dim), depth(form, positions)];
        let keys = take(keys, panels_of(positions) * depths[0]);
        let values = take(values, panels_of(dim) * depths[1]);
        if form != Form::Pairs {
            return Self::F32 { keys, values, positions, dim };
        }
        let (keys, values) = (bytemuck::cast_slice_mut(keys), bytemuck::cast_slice_mut(values));
        // What stands beyond the last value is multiplied by zero, so it must be a number.
        for (panels, [depth, filled]) in
            [(&mut *keys, [depths[0], dim / 2]), (&mut *values, [depths[1], positions / 2])]
        {
            panels.chunks_exact_mut(depth).for_each(|panel| panel[filled..].fill(Pairs::ZERO));
        }
        Self::Pairs { kernel, keys, values, depths, row: take(row, dim.div_ceil(2)) }
    }

    /// Takes the rows of `place`'s position and those after it, as a block has them; `row` is a buffer.
    fn put_stored(
        &mut self,
        codec: &Codec,
        part: Part,
        mut place: Place,
        bytes: &[u8],
        row: &mut [f32],
    ) {
        let row_bytes = codec.element.row_bytes(row.len());
        let as_multiplied = matches!(self, Self::Pairs { .. })
            && codec.element == Element::Bf16
            && row.len().is_multiple_of(2);
        let mut rest = bytes;
        while !rest.is_empty() {
            let laid =
                if as_multiplied { self.lay(part, place.position, rest, row_bytes) } else { 0 };
            if laid > 0 {
                place.position += laid;
                rest = &rest[laid * row_bytes..];
                continue;
            }
            let (bytes, later) = rest.split_at(row_bytes);
            if as_multiplied {
                self.put_as_multiplied(part, place.position, bytes, row.len());
            } else {
                codec.decode(part, place, bytes, row);
                self.put(part, place.position, row);
            }
            place.position += 1;
            rest = later;
        }
    }

    /// Takes as many rows of bf16, from a position on, as fill panels of K or steps of V, and says how
    /// many.
    fn lay(&mut self, part: Part, position: usize, rows: &[u8], row_bytes: usize) -> usize {
        let Self::Pairs { kernel, keys, values, depths, .. } = self else { return 0 };
        let count = rows.len() / row_bytes;
        match part {
            Part::Key if position.is_multiple_of(PANEL) => {
                let panels = keys[position / PANEL * depths[0]..].chunks_exact_mut(depths[0]);
                let rows = rows.chunks_exact(PANEL * row_bytes);
                rows.zip(panels).for_each(|(rows, panel)| kernel.lay_columns(rows, panel));
                count / PANEL * PANEL
            }
            Part::Value if position.is_multiple_of(2) => {
                kernel.lay_steps(rows, row_bytes, &mut values[position / 2..], depths[1]);
                count / 2 * 2
            }
            _ => 0,
        }
    }

    /// Takes a row of bf16.
    fn put_as_multiplied(&mut self, part: Part, position: usize, bytes: &[u8], dim: usize) {
        if let Self::Pairs { row, .. } = self {
            for (pair, bytes) in row.iter_mut().zip(bytes.as_chunks().0) {
                *pair = u32::from_le_bytes(*bytes);
            }
        }
        self.put_pairs(part, position, dim);
    }

    /// Takes the row of a position, in order of positions.
    fn put(&mut self, part: Part, position: usize, row: &[f32]) {
        match (&mut *self, part) {
            (Self::F32 { keys, dim, .. }, Part::Key) => {
                let panel = &mut keys[position / PANEL * *dim..];
                for (lanes, k) in panel.iter_mut().zip(row) {
                    lanes.0[position % PANEL] = *k;
                }
            }
            (Self::F32 { values, positions, .. }, Part::Value) => {
                for (panel, part) in row.chunks(PANEL).enumerate() {
                    values[panel * *positions + position].0[..part.len()].copy_from_slice(part);
                }
            }
            (Self::Pairs { kernel, row: pairs, .. }, _) => {
                kernel.round_to_pairs(row, pairs);
                self.put_pairs(part, position, row.len());
            }
        }
    }

    /// Takes the row that is in the buffer of pairs.
    fn put_pairs(&mut self, part: Part, position: usize, dim: usize) {
        let Self::Pairs { keys, values, depths, row, .. } = self else { return };
        match part {
            Part::Key => {
                let panel = &mut keys[position / PANEL * depths[0]..];
                for (lanes, pair) in panel.iter_mut().zip(&**row) {
                    lanes.0[position % PANEL] = *pair;
                }
            }
            Part::Value => {
                let halves: &[u16] = bytemuck::cast_slice(row);
                for (panel, halves) in halves[..dim].chunks(PANEL).enumerate() {
                    let step = &mut values[panel * depths[1] + position / 2].0;
                    // The second of a pair comes after the first.
                    if position.is_multiple_of(2) {
                        step.iter_mut()
                            .zip(halves)
                            .for_each(|(pair, half)| *pair = u32::from(*half));
                    } else {
                        let pairs = step.iter_mut().zip(halves);
                        pairs.for_each(|(pair, half)| *pair |= u32::from(*half) << 16);
                    }
                }
            }
        }
    }
}
