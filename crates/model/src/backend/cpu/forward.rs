//! The forward pass on the CPU, from embeddings to the last residual rows.
//!
//! In: token ids, each sequence after the K and V of a block or of its own. Out: residual rows, and K
//! and V in a block's layout. It does not know scores.

use std::ops::Range;
use std::sync::{OnceLock, PoisonError};

use hyperrag_core::BlockError;
use hyperrag_kernels::cpu::gemm::epilogue::{OutputRows, StoreOp, Tile};
use hyperrag_kernels::cpu::gemm::pack_lhs::LhsFormat;
use hyperrag_kernels::cpu::gemm::pack_rhs::PackedWeights;
use hyperrag_kernels::lanes::{PANEL, panels_of};
use hyperrag_kernels::memory::aligned::Floats;
use rayon::prelude::*;

use crate::arch::mixed::HeadSizes;
use crate::arch::weights::LayerWeights;
use crate::backend::cpu::kv_cache::PastKv;
use crate::backend::cpu::micro_batches::MicroBatches;
use crate::backend::cpu::model::CpuModel;
use crate::backend::cpu::scratch::{Scratch, Workspace, split};

/// Largest number of rows that one task takes through a layer. Their activations stay in the core's
/// cache, and the weights are read once for all of them.
const TASK_ROWS: usize = 256;

type PackedLayer = LayerWeights<PackedWeights, Vec<f32>>;

/// A run of tokens after earlier positions, if there are any.
#[derive(Clone, Copy)]
pub(crate) struct Sequence<'a> {
    pub(crate) past: Option<PastKv<'a>>,
    pub(crate) tokens: &'a [u32],
}

/// Selects the rows that the last layer returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResidualRows {
    All,
    /// Last row of each sequence; the others are needed for K and V only.
    LastOfEach,
}

/// Selects the packed operand that is the left side of a product.
#[derive(Clone, Copy)]
pub(super) enum Left {
    /// Normed rows, or the output of attention.
    Normed,
    Activated,
}

/// Place of a token's row in its sequence and in the micro-batch.
#[derive(Clone, Copy)]
pub(super) struct TokenRow {
    pub(super) token: u32,
    position: usize,
    /// Index of the row in the micro-batch.
    pub(super) index: usize,
    /// Index of the first row of its sequence.
    first: usize,
    /// Number of rows of its sequence.
    count: usize,
}

impl CpuModel {
    /// Runs one of the `batches`, made of these sequences, through all layers. Writes K and V of each to
    /// `kv_out`, in a block's layout, and gives `finish` the residual rows `returned` after the last
    /// layer. Returns a read error for each failed sequence. The rows of that sequence have no meaning.
    pub(crate) fn forward(
        &self,
        sequences: &[Sequence<'_>],
        mut kv_out: Option<&mut [Vec<u8>]>,
        returned: ResidualRows,
        batches: &MicroBatches,
        finish: impl FnOnce(&[f32]),
    ) -> Vec<Option<BlockError>> {
        let mut rows = rows_of(sequences);
        let failed: Vec<_> = sequences.iter().map(|_| OnceLock::new()).collect();
        let (count, hidden) = (rows.len(), self.config.hidden);
        let mut workspace = {
            let mut idle = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
            idle.pop().unwrap_or_default()
        };
        let Workspace { x, qkv, attended, shared, inputs, scratch } = &mut workspace;
        let layers = 0..self.weights.layers.len();
        let widest = |width: &dyn Fn(usize) -> usize| layers.clone().map(width).max().unwrap_or(0);
        let x = x.take(count * hidden);
        let qkv = qkv.take(count * widest(&|l| self.qkv_width(l)));
        let attended = attended.take(count * widest(&|l| self.query_width(l)));
        let width = self.token_inputs_width();
        let inputs = inputs.take(count * width);
        let embedded = width > 0;
        if embedded {
            self.by_rows(
                &rows,
                batches,
                x,
                (inputs, width),
                scratch,
                |rows, x, inputs, scratch| {
                    self.embed(rows, x);
                    self.token_inputs(rows, x, inputs, scratch);
                },
            );
        }
        // Step `l` ends layer `l - 1` and begins layer `l`: both work row by row.
        for l in layers {
            let width = self.qkv_width(l);
            let qkv = &mut qkv[..count * width];
            self.by_rows(&rows, batches, x, (qkv, width), scratch, |rows, x, qkv, scratch| {
                match l.checked_sub(1) {
                    Some(layer) => self.output_and_mlp(layer, rows, attended, inputs, x, scratch),
                    None if embedded => {}
                    None => self.embed(rows, x),
                }
                self.qkv(l, rows, x, qkv, scratch);
            });
            let kv = self.shared_kv(l, qkv, &mut shared[usize::from(self.config.is_local(l))]);
            let attended = &mut attended[..count * self.query_width(l)];
            self.attend(l, sequences, (qkv, kv), attended, kv_out.as_deref_mut(), &failed);
        }
        if returned == ResidualRows::LastOfEach {
            rows.retain(|row| row.index + 1 == row.first + row.count);
            for (i, row) in rows.iter().enumerate() {
                x.copy_within(row.index * hidden..(row.index + 1) * hidden, i * hidden);
            }
        }
        let x = &mut x[..rows.len() * hidden];
        self.by_rows(&rows, batches, x, (&mut [], 0), scratch, |rows, x, _, scratch| {
            self.output_and_mlp(self.weights.layers.len() - 1, rows, attended, inputs, x, scratch);
        });
        finish(x);
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        failed.into_iter().map(OnceLock::into_inner).collect()
    }

    /// Keeps K and V of a layer that later ones read, or returns those that this layer reads of an earlier
    /// one, `[row][K heads, V heads][dim]`.
    fn shared_kv<'k>(&self, l: usize, qkv: &[f32], kept: &'k mut Floats) -> Option<&'k [f32]> {
        let HeadSizes { kv_heads, head_dim } = self.config.heads_of(l);
        let (width, kv) = (self.qkv_width(l), 2 * kv_heads * head_dim);
        let rows = qkv.len() / width;
        if self.config.kv_source(l) != l {
            return Some(kept.get(rows * kv));
        }
        if self.config.is_shared(l) {
            let kept = kept.take(rows * kv).chunks_exact_mut(kv);
            for (kept, row) in kept.zip(qkv.chunks_exact(width)) {
                kept.copy_from_slice(&row[width - kv..]);
            }
        }
        None
    }

    /// Runs `step` for all rows on all threads, each task with its part of `x` and of other values, which
    /// come with their number in a row. For a single row, the threads share each product, and `scratch` serves everything else.
    fn by_rows(
        &self,
        rows: &[TokenRow],
        batches: &MicroBatches,
        x: &mut [f32],
        (values, width): (&mut [f32], usize),
        scratch: &mut Scratch,
        step: impl Fn(&[TokenRow], &mut [f32], &mut [f32], &mut Scratch) + Sync,
    ) {
        if rows.len() == 1 {
            scratch.split_gemv = true;
            return step(rows, x, values, scratch);
        }
        let tasks = self.tasks(rows.len(), batches);
        let x = split(x, tasks.iter().map(|task| task.len() * self.config.hidden));
        let values = split(values, tasks.iter().map(|task| task.len() * width));
        let places = tasks.into_par_iter().zip(x).zip(values).with_max_len(1);
        places
            .for_each(|((task, x), values)| step(&rows[task], x, values, &mut self.scratch.get()));
    }

    /// Splits rows into tasks of whole tiles and of about the same size, the same number for each of
    /// the micro-batch's threads.
    pub(crate) fn tasks(&self, rows: usize, batches: &MicroBatches) -> Vec<Range<usize>> {
        let tile = self.kernel.tile_rows();
        let tiles = rows.div_ceil(tile);
        let count = rows.div_ceil(TASK_ROWS).next_multiple_of(batches.threads()).min(tiles);
        let start = |task: usize| (task * tiles / count * tile).min(rows);
        (0..count).map(|task| start(task)..start(task + 1)).collect()
    }

    /// Number of values of Q, K and V of a row, or of Q where a layer has no K and V.
    pub(crate) fn qkv_width(&self, l: usize) -> usize {
        let HeadSizes { kv_heads, head_dim } = self.config.heads_of(l);
        let kv_heads = if self.config.kv_source(l) == l { kv_heads } else { 0 };
        (self.config.heads + 2 * kv_heads) * head_dim
    }

    /// Number of values of Q of a row.
    fn query_width(&self, l: usize) -> usize {
        self.config.heads * self.config.heads_of(l).head_dim
    }

    fn embed(&self, rows: &[TokenRow], x: &mut [f32]) {
        for (row, x) in rows.iter().zip(x.chunks_exact_mut(self.config.hidden)) {
            self.weights.embedding.copy_row(row.token as usize, x);
            if self.config.embedding_scale != 1.0 {
                x.iter_mut().for_each(|value| *value *= self.config.embedding_scale);
            }
        }
    }

    /// Computes norm, Q, K and V, and rotates and scales Q. Attention rotates K, because it may store K
    /// and V.
    fn qkv(&self, l: usize, rows: &[TokenRow], x: &[f32], qkv: &mut [f32], scratch: &mut Scratch) {
        let (config, layer) = (&self.config, &self.weights.layers[l]);
        self.norm(x, layer.attention_norm.as_deref(), scratch);
        self.linear(&layer.qkv, Left::Normed, scratch, qkv, StoreOp::Put);
        let factor = config.query_factor(l);
        let HeadSizes { kv_heads, head_dim } = config.heads_of(l);
        let (queries, keys) = (config.heads * head_dim, kv_heads * head_dim);
        for (row, qkv) in rows.iter().zip(qkv.chunks_exact_mut(self.qkv_width(l))) {
            if let Some(bias) = &layer.qkv_bias {
                self.kernel.add(qkv, bias);
            }
            let (queries, rest) = qkv.split_at_mut(queries);
            if let Some(norm) = &layer.query_norm {
                self.norm_in_place(queries, norm, &mut scratch.narrow);
            }
            if let Some(norm) = &layer.key_norm {
                self.norm_in_place(&mut rest[..keys], norm, &mut scratch.narrow);
            }
            if config.mixed.is_some() && !rest.is_empty() {
                let ones = scratch.wide.take(head_dim);
                ones.fill(1.0);
                self.norm_in_place(&mut rest[keys..], ones, &mut scratch.narrow);
            }
            self.codec.rotate_times(l, row.position, queries, config.attention_scale);
            if factor != 1.0 {
                for head in queries.chunks_exact_mut(head_dim) {
                    head[..config.rotary_dim].iter_mut().for_each(|value| *value *= factor);
                }
            }
        }
    }

    /// Norms each run of values, as many as there are weights.
    pub(super) fn norm_in_place(&self, x: &mut [f32], weight: &[f32], buffer: &mut Floats) {
        let buffer = buffer.take(weight.len());
        for x in x.chunks_exact_mut(weight.len()) {
            buffer.copy_from_slice(x);
            self.kernel.rms_norm(buffer, weight, self.config.norm_eps, x);
        }
    }

    /// Adds attention's output projection to the residual, then the output of the feed-forward part, then
    /// what the token gives to the layer.
    fn output_and_mlp(
        &self,
        l: usize,
        rows: &[TokenRow],
        attended: &[f32],
        inputs: &[f32],
        x: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let layer = &self.weights.layers[l];
        let (q, kv_heads) = (self.query_width(l), self.config.heads_of(l).kv_heads);
        let group = q / kv_heads;
        scratch.lhs.start(self.kernel, self.lhs_format(), rows.len(), q);
        for (i, row) in rows.iter().enumerate() {
            for head in 0..kv_heads {
                let start = row.first * q + (head * row.count + row.index - row.first) * group;
                scratch.lhs.set(i, head * group, &attended[start..start + group]);
            }
        }
        self.add_linear(
            &layer.output,
            Left::Normed,
            layer.post_attention_norm.as_deref(),
            x,
            scratch,
        );
        self.norm(x, layer.feed_forward_norm.as_deref(), scratch);
        self.feed_forward(layer, self.config.feed_forward_of(l), scratch);
        let norm = layer.post_feed_forward_norm.as_deref();
        self.add_linear(&layer.down, Left::Activated, norm, x, scratch);
        self.add_token_input(l, rows, inputs, x, scratch);
    }

    /// Adds a product to `x`, first normed if there is a norm, and multiplied by the model's factor.
    pub(super) fn add_linear(
        &self,
        weights: &PackedWeights,
        left: Left,
        norm: Option<&[f32]>,
        x: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let factor = self.config.residual_scale;
        if norm.is_none() && factor == 1.0 {
            return self.linear(weights, left, scratch, x, StoreOp::Add);
        }
        let mut sum = std::mem::take(&mut scratch.narrow);
        let values = sum.take(x.len());
        self.linear(weights, left, scratch, values, StoreOp::Put);
        if let Some(norm) = norm {
            self.norm_in_place(values, norm, &mut scratch.wide);
        }
        if factor != 1.0 {
            values.iter_mut().for_each(|value| *value *= factor);
        }
        self.kernel.add(x, values);
        scratch.narrow = sum;
    }

    /// Multiplies the activated gates of the normed rows by the ups, while a tile is in the cache.
    fn feed_forward(&self, layer: &PackedLayer, wide: usize, scratch: &mut Scratch) {
        let kernel = self.kernel;
        let Scratch { lhs, activated, narrow, upcast, split_gemv, .. } = scratch;
        activated.start(kernel, self.lhs_format(), lhs.rows(), wide);
        let activation = self.config.activation;
        if !*split_gemv {
            return layer.gate_up.activate(kernel, activation, lhs, upcast, activated);
        }
        let values = narrow.take(wide);
        self.by_parts(values, |first, values| {
            let panels = first / PANEL * 2..panels_of(first + values.len()) * 2;
            let upcast = &mut self.scratch.get().upcast;
            layer.gate_up.product(kernel, lhs, panels, upcast, |tile: Tile<'_>| {
                let out = values.chunks_mut(PANEL).nth(tile.panel / 2).unwrap_or_default();
                let [row, ..] = kernel.activated(activation, tile) else { return };
                out.copy_from_slice(&row.0[..out.len()]);
            });
        });
        activated.set(0, 0, values);
    }

    /// Splits one row's values between the threads, at panels. `part` gets the index of its first
    /// value.
    fn by_parts(&self, values: &mut [f32], part: impl Fn(usize, &mut [f32]) + Sync) {
        let columns = values.len().div_ceil(self.threads()).next_multiple_of(PANEL);
        let parts = values.par_chunks_mut(columns).enumerate();
        parts.for_each(|(i, values)| part(i * columns, values));
    }

    /// Norms rows, if there is a norm, and packs them as the left side of products.
    pub(super) fn norm(&self, x: &[f32], weight: Option<&[f32]>, scratch: &mut Scratch) {
        let (hidden, eps) = (self.config.hidden, self.config.norm_eps);
        let out = scratch.narrow.take(hidden);
        let lhs = scratch.lhs.start(self.kernel, self.lhs_format(), x.len() / hidden, hidden);
        match weight {
            Some(weight) => lhs.set_normed(x, weight, eps, out),
            None => lhs.set_all(x),
        }
    }

    pub(crate) fn norm_rows(&self, x: &[f32], weight: &[f32], out: &mut [f32]) {
        let hidden = self.config.hidden;
        for (x, out) in x.chunks_exact(hidden).zip(out.chunks_exact_mut(hidden)) {
            self.kernel.rms_norm(x, weight, self.config.norm_eps, out);
        }
    }

    /// Returns the format of the left sides of the layers' products.
    pub(super) fn lhs_format(&self) -> LhsFormat {
        self.kernel.lhs_format(self.dtype)
    }

    /// Returns the format of the left side of the head's product.
    pub(crate) fn head_lhs_format(&self) -> LhsFormat {
        self.kernel.lhs_format(self.dtype.head_dtype())
    }

    /// Multiplies the scratch's rows by `weights` into `out`. Threads share the product of a single
    /// row, because reading the weights takes the time.
    pub(super) fn linear(
        &self,
        weights: &PackedWeights,
        left: Left,
        scratch: &mut Scratch,
        out: &mut [f32],
        op: StoreOp,
    ) {
        let Scratch { lhs, activated, upcast, split_gemv, .. } = scratch;
        let x = match left {
            Left::Normed => lhs,
            Left::Activated => activated,
        };
        let (kernel, columns) = (self.kernel, weights.outputs());
        if !*split_gemv {
            let rows = OutputRows { kernel, values: out, stride: columns, columns, op };
            weights.product(kernel, x, weights.panels(), upcast, rows);
            return;
        }
        self.by_parts(out, |first, values| {
            let columns = values.len();
            let panels = first / PANEL..panels_of(first + columns);
            let rows = OutputRows { kernel, values, stride: columns, columns, op };
            weights.product(kernel, x, panels, &mut self.scratch.get().upcast, rows);
        });
    }
}

fn rows_of(sequences: &[Sequence<'_>]) -> Vec<TokenRow> {
    let mut rows: Vec<TokenRow> = Vec::new();
    for sequence in sequences {
        let (first, count) = (rows.len(), sequence.tokens.len());
        let past = sequence.past.map_or(0, PastKv::tokens);
        rows.extend(sequence.tokens.iter().enumerate().map(|(i, &token)| TokenRow {
            token,
            position: past + i,
            index: first + i,
            first,
            count,
        }));
    }
    rows
}
