//! The attention step of a layer: one task for each sequence, or for each of its KV heads, on all
//! threads.

use std::sync::OnceLock;

use hyperrag_core::{BlockError, LayerSource};
use rayon::prelude::*;

use crate::arch::mixed::HeadSizes;
use crate::backend::cpu::attention::{KvHead, QkvHeads};
use crate::backend::cpu::forward::Sequence;
use crate::backend::cpu::kv_cache::PastKv;
use crate::backend::cpu::model::CpuModel;
use crate::backend::cpu::scratch::{Scratch, split};

/// Number of layers by which reads run ahead of attention.
const LAYERS_AHEAD: usize = 2;

/// Attention of a sequence's KV heads from `first_head` on, as many as fit into `out`.
struct AttentionTask<'a> {
    sequence: &'a Sequence<'a>,
    /// Rows of the sequence, `[row][Q heads, K heads, V heads][dim]`, without K and V if these are shared.
    qkv: &'a [f32],
    /// K and V of another layer for these rows.
    shared: Option<&'a [f32]>,
    first_head: usize,
    /// `[KV head][row][group * head_dim]`.
    out: &'a mut [f32],
    /// Places for K and V in the block that is made, if the task has one head.
    kv_out: Option<(&'a mut [u8], &'a mut [u8])>,
    /// Reason why the sequence's block could not be read.
    failed: &'a OnceLock<BlockError>,
}

impl CpuModel {
    /// Computes attention for every sequence and KV head, and writes K and V into the blocks in `kv_out`. A
    /// layer without K and V takes those of `shared`, `[row][K heads, V heads][dim]`, and writes none.
    /// If a sequence's block cannot be read, the reason is put into `failed`, and the sequence's
    /// further results have no meaning.
    pub(crate) fn attend(
        &self,
        layer: usize,
        sequences: &[Sequence<'_>],
        (qkv, shared): (&[f32], Option<&[f32]>),
        attended: &mut [f32],
        kv_out: Option<&mut [Vec<u8>]>,
        failed: &[OnceLock<BlockError>],
    ) {
        let HeadSizes { kv_heads, head_dim } = self.config.heads_of(layer);
        let group = self.config.heads / kv_heads * head_dim;
        let lengths = sequences.iter().flat_map(|sequence| {
            let heads = heads_of_a_task(sequence, kv_heads);
            std::iter::repeat_n(sequence.tokens.len() * group * heads, kv_heads / heads)
        });
        let mut outs = split(attended, lengths).into_iter();
        let kv_out = kv_out.filter(|_| shared.is_none());
        let mut places = kv_out.map(|blocks| self.places(layer, sequences, blocks).into_iter());
        let mut tasks = Vec::with_capacity(outs.len());
        let mut first = 0;
        for (sequence, failed) in sequences.iter().zip(failed) {
            let rows = first..first + sequence.tokens.len();
            let of = |width: usize| rows.start * width..rows.end * width;
            first = rows.end;
            let qkv = &qkv[of(self.qkv_width(layer))];
            let shared = shared.map(|kv| &kv[of(2 * kv_heads * head_dim)]);
            for first_head in (0..kv_heads).step_by(heads_of_a_task(sequence, kv_heads)) {
                let out = outs.next().unwrap_or_default();
                let kv_out = places.as_mut().and_then(Iterator::next);
                tasks.push(AttentionTask {
                    sequence,
                    qkv,
                    shared,
                    first_head,
                    out,
                    kv_out,
                    failed,
                });
            }
        }
        tasks
            .into_par_iter()
            .with_max_len(1)
            .for_each(|task| self.attend_heads(layer, task, &mut self.scratch.get()));
    }

    /// Places for K and V of each sequence and KV head.
    fn places<'b>(
        &self,
        layer: usize,
        sequences: &[Sequence<'_>],
        blocks: &'b mut [Vec<u8>],
    ) -> Vec<(&'b mut [u8], &'b mut [u8])> {
        let parts = blocks.iter_mut().zip(sequences).flat_map(|(block, sequence)| {
            let bytes = self.kv_shape.layer_bytes(sequence.tokens.len());
            let slots = self.config.slots(layer);
            let part = &mut block[slots.start * bytes..slots.end * bytes];
            let head = part.len() / 2 / self.config.heads_of(layer).kv_heads;
            let (keys, values) = part.split_at_mut(part.len() / 2);
            keys.chunks_exact_mut(head).zip(values.chunks_exact_mut(head))
        });
        parts.collect()
    }

    fn attend_heads(&self, layer: usize, task: AttentionTask<'_>, scratch: &mut Scratch) {
        let AttentionTask { sequence, qkv, shared, first_head, out, mut kv_out, failed } = task;
        if failed.get().is_some() {
            return out.fill(0.0);
        }
        let config = &self.config;
        let HeadSizes { kv_heads, head_dim } = config.heads_of(layer);
        let heads = QkvHeads {
            qkv,
            shared,
            heads: config.heads,
            kv_heads,
            dim: head_dim,
            cap: config.attention_cap,
            window: config.window_of(layer),
        };
        let format = self.kernel.attention_lhs_format(self.dtype);
        let mut buffer = std::mem::take(&mut scratch.layer);
        match sequence.past.map(|past| past.layer(config, layer, &mut buffer)).transpose() {
            Ok(past) => {
                let head_out = sequence.tokens.len() * config.heads / kv_heads * head_dim;
                for (head, out) in (first_head..).zip(out.chunks_exact_mut(head_out)) {
                    let (past, kv_out) = (past.map(|past| past.head(head)), kv_out.take());
                    let kv = KvHead { codec: &self.codec, format, past, layer, head, kv_out };
                    heads.attend(self.kernel, kv, scratch, out);
                }
            }
            Err(error) => {
                out.fill(0.0);
                // This is the sequence's only task in the layer, and no earlier one failed.
                let _ = failed.set(error);
            }
        }
        scratch.layer = buffer;
        if let Some(PastKv::Block(block)) = sequence.past {
            self.prefetch(block, layer + LAYERS_AHEAD);
        }
    }

    /// Announces that K and V of a layer, if it has some, are read soon.
    fn prefetch(&self, block: &dyn LayerSource, layer: usize) {
        if layer < self.config.own_layers() {
            self.config.slots(layer).for_each(|slot| block.prefetch(slot));
        }
    }

    /// Starts to read the first layers of the blocks that attention needs soon.
    pub(crate) fn prefetch_first_layers(&self, sequences: &[Sequence<'_>]) {
        for layer in 0..LAYERS_AHEAD {
            for sequence in sequences {
                if let Some(PastKv::Block(block)) = sequence.past {
                    self.prefetch(block, layer);
                }
            }
        }
    }
}

/// Number of KV heads in a task: all if there is a block, so that its layer is read once.
fn heads_of_a_task(sequence: &Sequence<'_>, kv_heads: usize) -> usize {
    match sequence.past {
        Some(PastKv::Block(_)) => kv_heads,
        _ => 1,
    }
}
