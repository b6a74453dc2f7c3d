use std::sync::{Arc, Mutex, PoisonError};

use hyperrag_kv::{Element, Geometry};
use rayon::prelude::*;

use super::attention::{Heads, Source};
use super::codec::Codec;
use super::kernel::{Bf16Scratch, Kernel, PackedMatrix, TILE_ROWS};
use super::past::Past;
use super::workspace::{Scratch, ScratchPool, Workspace, split, take};
use crate::gguf::StoredTensor;
use crate::weights::{WeightSource, Weights};
use crate::{Compute, Config, LoadError, ModelFile};

/// Rows that one task takes through a layer: their activations stay in its core's cache.
const TASK_ROWS: usize = 96;

type Layer = crate::weights::Layer<PackedMatrix, Vec<f32>>;

/// Reads the weights of a file as they are there.
struct Stored<'a>(&'a mut ModelFile);

/// The parts of a matrix, one below the other.
struct StoredMatrix {
    parts: Vec<StoredTensor>,
    inputs: usize,
}

impl StoredMatrix {
    fn pack(self, compute: Compute) -> Result<PackedMatrix, LoadError> {
        let outputs = self.parts.iter().map(StoredTensor::rows).sum();
        let mut matrix = PackedMatrix::zeroed(outputs, self.inputs, compute)?;
        let mut first = 0;
        for part in self.parts {
            part.each_rows(|values| {
                matrix.fill(first, values);
                first += values.len() / self.inputs;
            })?;
        }
        Ok(matrix)
    }
}

impl WeightSource for Stored<'_> {
    type Matrix = StoredMatrix;
    type Vector = Vec<f32>;

    fn has(&self, name: &str) -> bool {
        self.0.has(name)
    }

    fn matrix(
        &mut self,
        parts: &[(&str, usize)],
        inputs: usize,
    ) -> Result<StoredMatrix, LoadError> {
        let parts = parts.iter().map(|(name, outputs)| self.0.stored(name, &[*outputs, inputs]));
        Ok(StoredMatrix { parts: parts.collect::<Result<_, _>>()?, inputs })
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        self.0.tensor(name, &[length])
    }
}

/// A llama decoder on the CPU. Products of weights are of f32 or of values rounded to bf16; all
/// sums, and all else, are f32.
///
/// A layer is two parallel steps: attention by sequence and KV head, and everything else by rows.
/// K and V are rounded to the element type before any attention reads them, so that fresh ones and
/// stored ones are the same numbers.
pub struct CpuModel {
    pub(crate) config: Config,
    pub(crate) kernel: Kernel,
    compute: Compute,
    pub(crate) pool: Arc<rayon::ThreadPool>,
    pub(crate) scratch: Arc<ScratchPool>,
    pub(crate) weights: Arc<Weights<PackedMatrix, Vec<f32>>>,
    pub(crate) geometry: Geometry,
    pub(crate) codec: Codec,
    workspaces: Mutex<Vec<Workspace>>,
}

/// A run of tokens after what is there, if anything is.
#[derive(Clone, Copy)]
pub(crate) struct Sequence<'a> {
    pub(crate) past: Option<Past<'a>>,
    pub(crate) tokens: &'a [u32],
}

/// Where a row belongs.
#[derive(Clone, Copy)]
struct Row {
    token: u32,
    position: usize,
    /// First row of its sequence.
    first: usize,
    /// Rows of its sequence.
    count: usize,
}

/// Rows of a task, such that all threads have equally many tasks and tiles are full.
pub(crate) fn rows_of_a_task(rows: usize, threads: usize) -> usize {
    let tasks = rows.div_ceil(TASK_ROWS).next_multiple_of(threads);
    rows.div_ceil(tasks).next_multiple_of(TILE_ROWS)
}

impl CpuModel {
    /// Reads and packs the weights. `element` is the type to which K and V are rounded, `compute` that
    /// of weights and products, `threads` the number of threads that compute.
    ///
    /// # Errors
    /// [`LoadError`] for missing tensors or others than the metadata promise, for f16, and for an
    /// element type that needs a calibration: load with f32, then [`CpuModel::calibrated`].
    pub fn load(
        file: &mut ModelFile,
        element: Element,
        compute: Compute,
        kernel: Kernel,
        threads: usize,
    ) -> Result<Self, LoadError> {
        if compute == Compute::F16 {
            let feature = "f16 on a CPU (use --compute f32 or bf16)".to_owned();
            return Err(LoadError::Unsupported { feature });
        }
        if !Kernel::available().contains(&kernel) {
            let feature = format!("{} instructions that this machine lacks", kernel.name());
            return Err(LoadError::Unsupported { feature });
        }
        if element.is_calibrated() {
            let feature = format!("{element} without a calibration");
            return Err(LoadError::Unsupported { feature });
        }
        let config = file.config().clone();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("model-{i}"))
            .build()
            .map_err(|error| LoadError::Unsupported {
                feature: format!("{threads} threads: {error}"),
            })?;
        let stored = Weights::read(&config, &mut Stored(file))?;
        let weights = pool.install(|| stored.try_map(|matrix| matrix.pack(compute)))?;
        Ok(Self {
            geometry: config.geometry(element),
            codec: Codec::new(element, config.head_dim, config.rotations()),
            scratch: Arc::new(ScratchPool::new(pool.current_num_threads())),
            workspaces: Mutex::default(),
            config,
            kernel,
            compute,
            pool: Arc::new(pool),
            weights: Arc::new(weights),
        })
    }

    /// The same weights with K and V in f32; threads and buffers are shared, too.
    pub(crate) fn in_f32(&self) -> Self {
        Self {
            config: self.config.clone(),
            kernel: self.kernel,
            compute: self.compute,
            pool: Arc::clone(&self.pool),
            scratch: Arc::clone(&self.scratch),
            weights: Arc::clone(&self.weights),
            geometry: self.config.geometry(Element::F32),
            codec: self.codec.uncalibrated(Element::F32),
            workspaces: Mutex::default(),
        }
    }

    /// Sizes of the model.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Type of weights and products.
    #[must_use]
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// The instruction set in use.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Threads that compute.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// One pass over all sequences. `kept` gets K and V of each, in a block's layout; `finish` sees
    /// the residual rows after the last layer.
    pub(crate) fn forward(
        &self,
        sequences: &[Sequence<'_>],
        mut kept: Option<&mut [Vec<u8>]>,
        finish: impl FnOnce(&[f32]),
    ) {
        let rows = rows_of(sequences);
        let config = &self.config;
        let (q, width) = (config.heads * config.head_dim, self.qkv_width());
        let mut workspace = {
            let mut idle = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
            idle.pop().unwrap_or_default()
        };
        let x = take(&mut workspace.x, rows.len() * config.hidden);
        let qkv = take(&mut workspace.qkv, rows.len() * width);
        let attended = take(&mut workspace.attended, rows.len() * q);
        let task = rows_of_a_task(rows.len(), self.pool.current_num_threads());
        // Step `l` closes layer `l - 1` and opens layer `l`: both work on rows by themselves.
        for l in 0..=self.weights.layers.len() {
            x.par_chunks_mut(task * config.hidden)
                .zip(qkv.par_chunks_mut(task * width))
                .zip(rows.par_chunks(task))
                .enumerate()
                .for_each(|(i, ((x, qkv), rows))| {
                    let scratch = &mut *self.scratch.get();
                    match l.checked_sub(1) {
                        None => self.embed(rows, x),
                        Some(layer) => self.close(
                            &self.weights.layers[layer],
                            rows,
                            i * task,
                            attended,
                            x,
                            scratch,
                        ),
                    }
                    if let Some(layer) = self.weights.layers.get(l) {
                        self.open(layer, rows, x, qkv, scratch);
                    }
                });
            if l < self.weights.layers.len() {
                self.attend(l, sequences, qkv, attended, kept.as_deref_mut());
            }
        }
        finish(x);
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
    }

    fn qkv_width(&self) -> usize {
        (self.config.heads + 2 * self.config.kv_heads) * self.config.head_dim
    }

    fn embed(&self, rows: &[Row], x: &mut [f32]) {
        for (row, x) in rows.iter().zip(x.chunks_exact_mut(self.config.hidden)) {
            self.weights.embedding.copy_row(row.token as usize, x);
        }
    }

    /// Norm, Q, K and V, Q's rotary positions. K and V are left to attention, which may store them.
    fn open(&self, layer: &Layer, rows: &[Row], x: &[f32], qkv: &mut [f32], scratch: &mut Scratch) {
        let config = &self.config;
        let normed = take(&mut scratch.narrow, x.len());
        self.norm(x, &layer.attention_norm, normed);
        self.linear(&layer.qkv, normed, qkv, &mut scratch.rounded);
        let queries = config.heads * config.head_dim;
        for (row, qkv) in rows.iter().zip(qkv.chunks_exact_mut(self.qkv_width())) {
            for head in qkv[..queries].chunks_exact_mut(config.head_dim) {
                self.codec.rotate(row.position, head);
            }
        }
    }

    /// Attention's output projection and the feed-forward part, each added to the residual.
    fn close(
        &self,
        layer: &Layer,
        rows: &[Row],
        first_row: usize,
        attended: &[f32],
        x: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (hidden, wide) = (self.config.hidden, self.config.feed_forward);
        let q = self.config.heads * self.config.head_dim;
        let group = self.config.group() * self.config.head_dim;
        let Scratch { rows: gathered, narrow, wide: gate_up, rounded, .. } = scratch;
        let gathered = take(gathered, rows.len() * q.max(wide));
        let narrow = take(narrow, rows.len() * hidden);
        for (i, (row, out)) in rows.iter().zip(gathered.chunks_exact_mut(q)).enumerate() {
            for (head, out) in out.chunks_exact_mut(group).enumerate() {
                let start = row.first * q + (head * row.count + first_row + i - row.first) * group;
                out.copy_from_slice(&attended[start..start + group]);
            }
        }
        self.linear(&layer.output, &gathered[..rows.len() * q], narrow, rounded);
        self.kernel.add(x, narrow);
        self.norm(x, &layer.feed_forward_norm, narrow);
        let gate_up = take(gate_up, rows.len() * 2 * wide);
        self.linear(&layer.gate_up, narrow, gate_up, rounded);
        let activated = &mut gathered[..rows.len() * wide];
        for (out, gate_up) in activated.chunks_exact_mut(wide).zip(gate_up.chunks_exact(2 * wide)) {
            self.kernel.silu_mul(gate_up, out);
        }
        self.linear(&layer.down, activated, narrow, rounded);
        self.kernel.add(x, narrow);
    }

    pub(crate) fn norm(&self, x: &[f32], weight: &[f32], out: &mut [f32]) {
        let hidden = self.config.hidden;
        for (x, out) in x.chunks_exact(hidden).zip(out.chunks_exact_mut(hidden)) {
            self.kernel.rms_norm(x, weight, self.config.norm_eps, out);
        }
    }

    fn linear(
        &self,
        weights: &PackedMatrix,
        x: &[f32],
        out: &mut [f32],
        rounded: &mut Bf16Scratch,
    ) {
        let outputs = weights.outputs();
        weights.product(self.kernel, x, 0..outputs, out, outputs, rounded);
    }

    /// Attention of every sequence and KV head, and K and V into the blocks that are kept.
    fn attend(
        &self,
        layer: usize,
        sequences: &[Sequence<'_>],
        qkv: &[f32],
        attended: &mut [f32],
        kept: Option<&mut [Vec<u8>]>,
    ) {
        let (config, geometry) = (&self.config, &self.geometry);
        let kv_heads = config.kv_heads;
        let group = config.group() * config.head_dim;
        let lengths =
            sequences.iter().flat_map(|s| std::iter::repeat_n(s.tokens.len() * group, kv_heads));
        let outs = split(attended, lengths);
        let mut blocks = kept.map(|blocks| {
            let parts = blocks.iter_mut().zip(sequences).flat_map(|(block, sequence)| {
                let bytes = geometry.layer_bytes(sequence.tokens.len());
                let part = &mut block[layer * bytes..(layer + 1) * bytes];
                let (keys, values) = part.split_at_mut(bytes / 2);
                let head = bytes / 2 / kv_heads;
                keys.chunks_exact_mut(head).zip(values.chunks_exact_mut(head))
            });
            parts.collect::<Vec<_>>().into_iter()
        });
        let mut first = 0;
        let mut tasks = Vec::with_capacity(outs.len());
        for (i, out) in outs.into_iter().enumerate() {
            let sequence = sequences[i / kv_heads];
            let rows = &qkv[first * self.qkv_width()..][..sequence.tokens.len() * self.qkv_width()];
            let heads = Heads { qkv: rows, heads: config.heads, kv_heads, dim: config.head_dim };
            tasks.push((
                heads,
                sequence.past,
                i % kv_heads,
                out,
                blocks.as_mut().and_then(Iterator::next),
            ));
            if i % kv_heads == kv_heads - 1 {
                first += sequence.tokens.len();
            }
        }
        tasks.into_par_iter().with_max_len(1).for_each(|(heads, past, head, out, kept)| {
            let source = Source { codec: &self.codec, past, layer, head, kept };
            heads.attend(self.kernel, source, &mut self.scratch.get(), out);
        });
    }
}

fn rows_of(sequences: &[Sequence<'_>]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for sequence in sequences {
        let (first, count) = (rows.len(), sequence.tokens.len());
        let past = sequence.past.map_or(0, Past::tokens);
        let tokens = sequence.tokens.iter().enumerate();
        rows.extend(tokens.map(|(i, &token)| Row { token, position: past + i, first, count }));
    }
    rows
}
