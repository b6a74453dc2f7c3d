use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::{rms_norm, softmax_last_dim, swiglu};
use candle_nn::rotary_emb::rope_i;
use hyperrag_kv::Geometry;

use super::batch::Batching;
use super::transfer::Transfer;
use crate::Compute;
use crate::Config;
use crate::weights::{Layer, Weights};

/// A llama decoder on a candle device.
///
/// Weights and products are of the type `compute`; the residual stream, norms, rotary positions, attention
/// and the LM head are f32. K and V are rounded to the element type before any attention reads
/// them.
pub struct DeviceModel {
    pub(super) config: Config,
    pub(super) geometry: Geometry,
    pub(super) device: Device,
    /// Type of weights and products.
    pub(super) compute: Compute,
    /// Type of K and V.
    pub(super) element: DType,
    /// Positions to which every block is padded.
    pub(super) block_positions: usize,
    pub(super) weights: Weights<Tensor, Tensor>,
    /// `[position][head_dim / 2]`.
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
    pub(super) batching: Batching,
    pub(super) transfer: Transfer,
}

/// A block in the device's memory.
pub struct DeviceBlock {
    /// K and V, `[layer and K or V][1][KV head, padded position, dim]`.
    pub(super) kv: Tensor,
    /// The final hidden state of the last position, `[1][hidden]`.
    pub(super) hidden: Tensor,
    /// True positions.
    pub(super) tokens: usize,
}

/// What the rows of a pass attend to besides themselves.
pub(super) struct Past {
    /// K and V of all blocks, `[layer and K or V][block][KV head, padded position, dim]`.
    pub(super) kv: Tensor,
    /// True positions of each block.
    pub(super) tokens: Vec<usize>,
}

/// K and V that a pass hands out, `[layer and K or V][sequence, KV head, position, dim]`.
pub(super) struct Kept(pub(super) Tensor);

impl DeviceModel {
    /// Type of weights and products.
    #[must_use]
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// Sizes of the model.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// One pass over `tokens`, `[sequence][position]`, each sequence after its block of `past`.
    /// Gives the residual rows after the last layer, `[sequence * position][hidden]`.
    pub(super) fn forward(
        &self,
        tokens: &Tensor,
        past: Option<&Past>,
        kept: Option<&Kept>,
    ) -> Result<Tensor> {
        let (sequences, positions) = tokens.dims2()?;
        let (cos, sin) = self.rotations(positions, past)?;
        let mask = self.mask(positions, past)?;
        let rows = tokens.flatten_all()?;
        let mut x = self.weights.embedding.index_select(&rows, 0)?.to_dtype(DType::F32)?;
        for (l, layer) in self.weights.layers.iter().enumerate() {
            let normed = rms_norm(&x, &layer.attention_norm, self.config.norm_eps)?;
            let (query, key, value) =
                self.heads(layer, &normed, (sequences, positions), &cos, &sin)?;
            if let Some(Kept(kept)) = kept {
                kept.slice_set(&key.reshape((1, key.elem_count()))?, 0, 2 * l)?;
                kept.slice_set(&value.reshape((1, value.elem_count()))?, 0, 2 * l + 1)?;
            }
            let attended = self.attend(l, &query, &key, &value, past, &mask)?;
            x = (x + self.linear(&attended, &layer.output)?.to_dtype(DType::F32)?)?;
            let normed = rms_norm(&x, &layer.feed_forward_norm, self.config.norm_eps)?;
            let activated = swiglu(&self.linear(&normed, &layer.gate_up)?)?;
            x = (x + self.linear(&activated, &layer.down)?.to_dtype(DType::F32)?)?;
        }
        Ok(x)
    }

    /// `x` times the transposed `weights`.
    fn linear(&self, x: &Tensor, weights: &Tensor) -> Result<Tensor> {
        x.to_dtype(weights.dtype())?.matmul(&weights.t()?)
    }

    /// Q in f32, K and V rounded to the element type, each `[sequence][head][position][dim]`.
    fn heads(
        &self,
        layer: &Layer<Tensor, Tensor>,
        normed: &Tensor,
        (sequences, positions): (usize, usize),
        cos: &Tensor,
        sin: &Tensor,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let Config { heads, kv_heads, head_dim, .. } = self.config;
        let qkv = self.linear(normed, &layer.qkv)?.to_dtype(DType::F32)?;
        let qkv = qkv.reshape((sequences, positions, heads + 2 * kv_heads, head_dim))?;
        let qkv = qkv.transpose(1, 2)?;
        let part = |first, count| qkv.narrow(1, first, count)?.contiguous();
        let query = rope_i(&part(0, heads)?, cos, sin)?;
        let key = rope_i(&part(heads, kv_heads)?, cos, sin)?;
        let value = part(heads + kv_heads, kv_heads)?;
        Ok((query, key.to_dtype(self.element)?, value.to_dtype(self.element)?))
    }

    /// Attention over the past and the rows' own K and V, `[sequence * position][heads * dim]`.
    /// The query heads of a KV head are further rows of its product: K and V are never repeated.
    fn attend(
        &self,
        layer: usize,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        past: Option<&Past>,
        mask: &Tensor,
    ) -> Result<Tensor> {
        let (sequences, heads, positions, dim) = query.dims4()?;
        let kv_heads = self.config.kv_heads;
        let run = |own: &Tensor, index: usize| -> Result<Tensor> {
            let all = match past {
                None => own.clone(),
                Some(past) => {
                    let shape = (sequences, kv_heads, self.block_positions, dim);
                    Tensor::cat(&[&past.kv.narrow(0, index, 1)?.reshape(shape)?, own], 2)?
                }
            };
            let count = all.dim(2)?;
            all.reshape((sequences * kv_heads, count, dim))?.to_dtype(DType::F32)
        };
        let (keys, values) = (run(key, 2 * layer)?, run(value, 2 * layer + 1)?);
        let group_rows = heads / kv_heads * positions;
        let query = (query * (1.0 / (dim as f64).sqrt()))?;
        let query = query.reshape((sequences * kv_heads, group_rows, dim))?;
        let scores = query.matmul(&keys.transpose(1, 2)?)?;
        let count = keys.dim(1)?;
        let scores = scores.reshape((sequences, heads, positions, count))?.broadcast_add(mask)?;
        let weights = softmax_last_dim(&scores)?;
        let weights = weights.reshape((sequences * kv_heads, group_rows, count))?;
        let attended = weights.matmul(&values)?.reshape((sequences, heads, positions, dim))?;
        attended.transpose(1, 2)?.reshape((sequences * positions, heads * dim))
    }

    /// Rotary angles of the rows: counted on from each block's true length.
    fn rotations(&self, positions: usize, past: Option<&Past>) -> Result<(Tensor, Tensor)> {
        let Some(past) = past else {
            return Ok((self.cos.narrow(0, 0, positions)?, self.sin.narrow(0, 0, positions)?));
        };
        let all = past.tokens.iter().flat_map(|first| *first..first + positions);
        let all: Vec<u32> = all.map(|position| position as u32).collect();
        let all = Tensor::new(all, &self.device)?;
        let shape = (past.tokens.len(), positions, self.config.head_dim / 2);
        let pick = |table: &Tensor| table.index_select(&all, 0)?.reshape(shape);
        Ok((pick(&self.cos)?, pick(&self.sin)?))
    }

    /// 0 where a row may look and minus infinity elsewhere, `[sequence or 1][1][position][key]`:
    /// at the true positions of its block, at the rows before it and at itself.
    fn mask(&self, positions: usize, past: Option<&Past>) -> Result<Tensor> {
        let none = [0];
        let (lengths, padded) = match past {
            Some(past) => (past.tokens.as_slice(), self.block_positions),
            None => (&none[..], 0),
        };
        let mut mask = Vec::with_capacity(lengths.len() * positions * (padded + positions));
        for length in lengths {
            for row in 0..positions {
                let stored = (0..padded).map(|key| key < *length);
                let allowed = stored.chain((0..positions).map(|key| key <= row));
                mask.extend(allowed.map(|allowed| if allowed { 0.0 } else { f32::NEG_INFINITY }));
            }
        }
        Tensor::from_vec(mask, (lengths.len(), 1, positions, padded + positions), &self.device)
    }

    /// The final norm of residual rows.
    pub(super) fn final_norm(&self, rows: &Tensor) -> Result<Tensor> {
        debug_assert_eq!(rows.dim(D::Minus1)?, self.config.hidden);
        rms_norm(&rows.contiguous()?, &self.weights.final_norm, self.config.norm_eps)
    }
}
