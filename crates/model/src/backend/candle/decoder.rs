//! The decoder's layers on candle's tensors, from embeddings to the last residual rows.
//!
//! In: token ids, and blocks in the device's memory. Out: residual rows, and K and V. It does not know
//! scores or the host's memory.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::{rms_norm, softmax_last_dim, swiglu};
use candle_nn::rotary_emb::rope_i;
use hyperrag_core::KvShape;
use hyperrag_kernels::activation::Activation;
use hyperrag_kernels::dtype::ComputeDtype;

use crate::arch::config::{Config, QkNorm};
use crate::arch::weights::{LayerWeights, Weights};
use crate::backend::candle::batch::Batching;
use crate::backend::candle::transfer::Transfer;

/// A decoder on a candle device.
///
/// Weights and products are of the type `dtype`; the residual stream, norms, rotary positions,
/// attention and the LM head are in f32. K and V are rounded to the element type before any attention
/// reads them.
pub struct DeviceModel {
    pub(super) config: Config,
    pub(super) kv_shape: KvShape,
    pub(super) device: Device,
    /// Type of weights and products.
    pub(super) dtype: ComputeDtype,
    /// Type of K and V.
    pub(super) kv_dtype: DType,
    /// Number of positions to which every block is padded.
    pub(super) block_positions: usize,
    pub(super) weights: Weights<Tensor, Tensor>,
    /// Angles of layers that see everything, then of local layers if there are any.
    pub(super) angles: Vec<Angles>,
    pub(super) batching: Batching,
    pub(super) transfer: Transfer,
}

/// Cosine and sine of rotary angles, `[position][head_dim / 2]`.
#[derive(Clone)]
pub(super) struct Angles {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
    /// Factors of the dimensions of Q after the rotation, `[head_dim]`, if there are any.
    pub(super) query_factors: Option<Tensor>,
}

/// Positions and mask of a pass's rows, in layers that are local or not.
struct View {
    /// Angles of the rows' positions.
    angles: Angles,
    /// 0 where a row may look and minus infinity elsewhere, `[sequence or 1][1][position][key]`.
    mask: Tensor,
}

/// A block in the device's memory.
pub struct DeviceBlock {
    /// K and V, `[layer and K or V][1][KV head, padded position, dim]`.
    pub(super) kv: Tensor,
    /// The final hidden state of the last position, `[1][hidden]`.
    pub(super) hidden: Tensor,
    /// Number of positions without padding.
    pub(super) tokens: usize,
}

/// Blocks to which the rows of a pass attend, before themselves.
pub(super) struct DevicePastKv {
    /// K and V of all blocks, `[layer and K or V][block][KV head, padded position, dim]`.
    pub(super) kv: Tensor,
    /// Number of positions of each block, without padding.
    pub(super) tokens: Vec<usize>,
}

/// K and V that a pass returns, `[layer and K or V][sequence, KV head, position, dim]`.
pub(super) struct DeviceKvOut(pub(super) Tensor);

impl DeviceModel {
    /// Returns the type of weights and products.
    #[must_use]
    pub fn dtype(&self) -> ComputeDtype {
        self.dtype
    }

    /// Returns the sizes of the model.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Runs one pass over `tokens`, `[sequence][position]`, each sequence after its block of `past`.
    /// Returns the residual rows after the last layer, `[sequence * position][hidden]`.
    pub(super) fn forward(
        &self,
        tokens: &Tensor,
        past: Option<&DevicePastKv>,
        kept: Option<&DeviceKvOut>,
    ) -> Result<Tensor> {
        let (sequences, positions) = tokens.dims2()?;
        let view = |local: usize| self.view(local == 1, positions, past);
        let views = (0..self.angles.len()).map(view).collect::<Result<Vec<_>>>()?;
        let rows = tokens.flatten_all()?;
        let mut x = self.weights.embedding.index_select(&rows, 0)?.to_dtype(DType::F32)?;
        if self.config.embedding_scale != 1.0 {
            x = (x * f64::from(self.config.embedding_scale))?;
        }
        for (l, layer) in self.weights.layers.iter().enumerate() {
            let view = &views[usize::from(self.config.window_of(l).is_some())];
            let normed = self.normed(&x, layer.attention_norm.as_ref())?;
            let shape = (sequences, positions);
            let angles = Some(&view.angles).filter(|_| self.config.rotates(l));
            let (query, key, value) = self.heads(layer, &normed, shape, angles)?;
            if let Some(DeviceKvOut(kept)) = kept {
                kept.slice_set(&key.reshape((1, key.elem_count()))?, 0, 2 * l)?;
                kept.slice_set(&value.reshape((1, value.elem_count()))?, 0, 2 * l + 1)?;
            }
            let attended = self.attend(l, &query, &key, &value, past, &view.mask)?;
            let attended = self.linear(&attended, &layer.output)?.to_dtype(DType::F32)?;
            x = self.add(x, &attended, layer.post_attention_norm.as_ref())?;
            let normed = self.normed(&x, layer.feed_forward_norm.as_ref())?;
            let activated = self.activated(&self.linear(&normed, &layer.gate_up)?)?;
            let sum = self.linear(&activated, &layer.down)?.to_dtype(DType::F32)?;
            x = self.add(x, &sum, layer.post_feed_forward_norm.as_ref())?;
        }
        Ok(x)
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        rms_norm(x, weight, self.config.norm_eps)
    }

    /// Applies a norm, if there is one.
    fn normed(&self, x: &Tensor, weight: Option<&Tensor>) -> Result<Tensor> {
        match weight {
            Some(weight) => self.norm(x, weight),
            None => Ok(x.clone()),
        }
    }

    /// Adds what a sublayer gives to the residual, first normed if there is a norm, and multiplied by
    /// the model's factor.
    fn add(&self, x: Tensor, sum: &Tensor, norm: Option<&Tensor>) -> Result<Tensor> {
        let sum = self.normed(sum, norm)?;
        match self.config.residual_scale {
            1.0 => x + sum,
            factor => x + (sum * f64::from(factor))?,
        }
    }

    /// Multiplies the activated gates by the ups.
    fn activated(&self, gate_up: &Tensor) -> Result<Tensor> {
        let wide = self.config.feed_forward;
        match self.config.activation {
            Activation::Silu => swiglu(gate_up),
            Activation::GeluTanh => {
                let gate = gate_up.narrow(D::Minus1, 0, wide)?.gelu()?;
                gate * gate_up.narrow(D::Minus1, wide, wide)?
            }
        }
    }

    /// Multiplies `x` by the transposed `weights`.
    fn linear(&self, x: &Tensor, weights: &Tensor) -> Result<Tensor> {
        x.to_dtype(weights.dtype())?.matmul(&weights.t()?)
    }

    /// Returns Q in f32, and K and V rounded to the element type, each
    /// `[sequence][head][position][dim]`. A layer without rotary positions has no angles.
    fn heads(
        &self,
        layer: &LayerWeights<Tensor, Tensor>,
        normed: &Tensor,
        (sequences, positions): (usize, usize),
        angles: Option<&Angles>,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let Config { heads, kv_heads, head_dim, .. } = self.config;
        let mut qkv = self.linear(normed, &layer.qkv)?.to_dtype(DType::F32)?;
        if let Some(bias) = &layer.qkv_bias {
            qkv = qkv.broadcast_add(bias)?;
        }
        let part = |first, count, row_norm: Option<&Tensor>| {
            let rows = qkv.narrow(1, first * head_dim, count * head_dim)?.contiguous()?;
            let rows = self.normed(&rows, row_norm)?;
            rows.reshape((sequences, positions, count, head_dim))?.transpose(1, 2)?.contiguous()
        };
        let [query_norm, key_norm] = [&layer.query_norm, &layer.key_norm].map(Option::as_ref);
        let of = |kind, norm| Option::filter(norm, |_: &&Tensor| self.config.qk_norm == kind);
        let mut query = part(0, heads, of(QkNorm::Rows, query_norm))?;
        let mut key = part(heads, kv_heads, of(QkNorm::Rows, key_norm))?;
        query = self.normed(&query, of(QkNorm::Heads, query_norm))?;
        key = self.normed(&key, of(QkNorm::Heads, key_norm))?;
        if let Some(Angles { cos, sin, query_factors }) = angles {
            (query, key) = (rope_i(&query, cos, sin)?, rope_i(&key, cos, sin)?);
            if let Some(factors) = query_factors {
                query = query.broadcast_mul(factors)?;
            }
        }
        let value = part(heads + kv_heads, kv_heads, None)?;
        Ok((query, key.to_dtype(self.kv_dtype)?, value.to_dtype(self.kv_dtype)?))
    }

    /// Computes attention over the past and the rows' own K and V, `[sequence * position][heads *
    /// dim]`. The query heads of a KV head are further rows of its product, so K and V are never
    /// repeated.
    fn attend(
        &self,
        layer: usize,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        past: Option<&DevicePastKv>,
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
        let query = (query * f64::from(self.config.attention_scale))?;
        let query = query.reshape((sequences * kv_heads, group_rows, dim))?;
        let mut scores = query.matmul(&keys.transpose(1, 2)?)?;
        if let Some(cap) = self.config.attention_cap {
            scores = soft_capped(&scores, cap)?;
        }
        let count = keys.dim(1)?;
        let scores = scores.reshape((sequences, heads, positions, count))?.broadcast_add(mask)?;
        let weights = softmax_last_dim(&scores)?;
        let weights = weights.reshape((sequences * kv_heads, group_rows, count))?;
        let attended = weights.matmul(&values)?.reshape((sequences, heads, positions, dim))?;
        attended.transpose(1, 2)?.reshape((sequences * positions, heads * dim))
    }

    /// Returns angles and mask of the rows in a layer that is `local` or not. Row positions continue
    /// from each block's length without padding.
    fn view(&self, local: bool, positions: usize, past: Option<&DevicePastKv>) -> Result<View> {
        let Angles { cos, sin, query_factors } = &self.angles[usize::from(local)];
        let query_factors = query_factors.clone();
        let mask = self.mask(local, positions, past)?;
        let Some(past) = past else {
            let first = |table: &Tensor| table.narrow(0, 0, positions);
            let (cos, sin) = (first(cos)?, first(sin)?);
            return Ok(View { angles: Angles { cos, sin, query_factors }, mask });
        };
        let all = past.tokens.iter().flat_map(|first| *first..first + positions);
        let all: Vec<u32> = all.map(|position| position as u32).collect();
        let all = Tensor::new(all, &self.device)?;
        let shape = (past.tokens.len(), positions, self.config.head_dim / 2);
        let pick = |table: &Tensor| table.index_select(&all, 0)?.reshape(shape);
        let (cos, sin) = (pick(cos)?, pick(sin)?);
        Ok(View { angles: Angles { cos, sin, query_factors }, mask })
    }

    /// Builds a mask by which a row sees the positions of its block, the rows before it and itself; in
    /// a local layer, only the latest of these.
    fn mask(&self, local: bool, positions: usize, past: Option<&DevicePastKv>) -> Result<Tensor> {
        let none = [0];
        let (lengths, padded) = match past {
            Some(past) => (past.tokens.as_slice(), self.block_positions),
            None => (&none[..], 0),
        };
        let window = self.config.window.as_ref().filter(|_| local);
        let window = window.map_or(usize::MAX, |window| window.positions);
        let mut mask = Vec::with_capacity(lengths.len() * positions * (padded + positions));
        for length in lengths {
            for row in 0..positions {
                let stored = (0..padded).map(|key| key < *length && length + row - key < window);
                let own = (0..positions).map(|key| key <= row && row - key < window);
                let allowed = stored.chain(own);
                mask.extend(allowed.map(|allowed| if allowed { 0.0 } else { f32::NEG_INFINITY }));
            }
        }
        Tensor::from_vec(mask, (lengths.len(), 1, positions, padded + positions), &self.device)
    }

    /// Applies the final norm to residual rows.
    pub(super) fn final_norm(&self, rows: &Tensor) -> Result<Tensor> {
        debug_assert_eq!(rows.dim(D::Minus1)?, self.config.hidden);
        self.norm(&rows.contiguous()?, &self.weights.final_norm)
    }
}

/// Computes `cap * tanh(x / cap)`.
pub(super) fn soft_capped(x: &Tensor, cap: f32) -> Result<Tensor> {
    let cap = f64::from(cap);
    (x / cap)?.tanh()? * cap
}
