//! The weights of a decoder and their layout, for any device.
//!
//! In: a configuration and a source of tensors by their names in GGUF. Out: matrices and vectors of the
//! source's own types. It does not know files or devices.

use rayon::prelude::*;

use crate::arch::config::{Config, QkNorm};
use crate::error::LoadError;

/// The weights of a decoder, with the device's own types of matrices `M` and vectors `V`.
pub(crate) struct Weights<M, V> {
    pub(crate) embedding: M,
    /// LM head; `None` if the embedding serves as head.
    pub(crate) head: Option<M>,
    pub(crate) final_norm: V,
    pub(crate) layers: Vec<LayerWeights<M, V>>,
}

pub(crate) struct LayerWeights<M, V> {
    /// Norm of the input of attention.
    pub(crate) attention_norm: Option<V>,
    /// Q, K and V, one below the other.
    pub(crate) qkv: M,
    pub(crate) qkv_bias: Option<V>,
    /// Norms of Q and of K, of each head or of whole rows.
    pub(crate) qk_norms: Option<[V; 2]>,
    pub(crate) output: M,
    /// Norm of the output of attention, before it is added.
    pub(crate) post_attention_norm: Option<V>,
    /// Norm of the input of the feed-forward part.
    pub(crate) feed_forward_norm: Option<V>,
    /// Gates and ups of the feed-forward part.
    pub(crate) gate_up: M,
    pub(crate) down: M,
    /// Norm of the output of the feed-forward part, before it is added.
    pub(crate) post_feed_forward_norm: Option<V>,
}

/// Order in which the rows of a tensor are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RowOrder {
    AsStored,
    /// Rows of the two halves of a head's rotated part alternate, so that rows that rotate together are
    /// neighbours.
    Interleaved {
        /// Number of rows of a head.
        dim: usize,
        /// Number of rows of its first part, which rotates.
        rotary: usize,
    },
}

impl RowOrder {
    /// Returns the new index of a row.
    pub(crate) fn place(self, row: usize) -> usize {
        match self {
            Self::AsStored => row,
            Self::Interleaved { dim, rotary } => {
                let (half, within) = (rotary / 2, row % dim);
                match within < rotary {
                    true => row - within + within % half * 2 + within / half,
                    false => row,
                }
            }
        }
    }
}

/// Rows of a tensor that become rows of a matrix, or values that become values of a vector.
pub(crate) struct TensorRows {
    pub(crate) name: String,
    /// Number of rows of the whole tensor.
    pub(crate) of: usize,
    /// Index of the first row that is taken.
    pub(crate) first: usize,
    pub(crate) rows: usize,
    pub(crate) order: RowOrder,
}

/// Source of weights, which also decides their layout.
pub(crate) trait WeightSource {
    type Matrix;
    type Vector;

    /// Whether the source has a tensor of this name.
    fn has(&self, name: &str) -> bool;

    /// Whether the rotary positions pair the two halves of each head of Q and K.
    fn pairs_halves(&self) -> bool;

    /// Returns a matrix of `inputs` columns with the rows of all parts, one part below the other.
    fn matrix(&mut self, parts: Vec<TensorRows>, inputs: usize) -> Result<Self::Matrix, LoadError>;

    /// Returns the gates and the ups of a feed-forward part in the layout that is fastest to compute
    /// with.
    fn gates_and_ups(
        &mut self,
        parts: Vec<TensorRows>,
        inputs: usize,
    ) -> Result<Self::Matrix, LoadError> {
        self.matrix(parts, inputs)
    }

    /// Returns a vector with the values of all parts in order, multiplied by `times`.
    fn vector_times(
        &mut self,
        parts: Vec<TensorRows>,
        times: f32,
    ) -> Result<Self::Vector, LoadError>;

    /// Returns a vector with the values of all parts in order.
    fn vector(&mut self, parts: Vec<TensorRows>) -> Result<Self::Vector, LoadError> {
        self.vector_times(parts, 1.0)
    }
}

impl<M, V> Weights<M, V> {
    /// Reads all weights of a decoder.
    pub(crate) fn read<S>(config: &Config, source: &mut S) -> Result<Self, LoadError>
    where
        S: WeightSource<Matrix = M, Vector = V>,
    {
        refuse_unsupported(config, source)?;
        let layers = (0..config.layers).map(|i| LayerWeights::read(config, i, source));
        let layers = layers.collect::<Result<_, _>>()?;
        let part = |name: &str, rows| vec![TensorRows::new(name, rows)];
        let (hidden, vocabulary) = (config.hidden, config.vocabulary);
        Ok(Self {
            embedding: source.matrix(part("token_embd.weight", vocabulary), hidden)?,
            head: match source.has("output.weight") {
                true => Some(source.matrix(part("output.weight", vocabulary), hidden)?),
                false => None,
            },
            // A factor of the final states is one of all logits.
            final_norm: source
                .vector_times(part("output_norm.weight", hidden), config.logit_scale)?,
            layers,
        })
    }
}

impl<M, V> LayerWeights<M, V> {
    fn read<S>(config: &Config, layer: usize, source: &mut S) -> Result<Self, LoadError>
    where
        S: WeightSource<Matrix = M, Vector = V>,
    {
        let (hidden, wide, dim) = (config.hidden, config.feed_forward, config.head_dim);
        let (q, kv) = (config.heads * dim, config.kv_heads * dim);
        let name = |name: &str| format!("blk.{layer}.{name}");
        let part = |what: &str, rows| TensorRows::new(&name(&format!("{what}.weight")), rows);
        let order = match source.pairs_halves() {
            true => RowOrder::Interleaved { dim, rotary: config.rotary_dim },
            false => RowOrder::AsStored,
        };
        let rotated = |what: &str, rows| TensorRows { order, ..TensorRows::new(&name(what), rows) };
        let qkv = |kind: &str| {
            let [query, key] = ["attn_q", "attn_k"].map(|part| format!("{part}.{kind}"));
            let value = TensorRows::new(&name(&format!("attn_v.{kind}")), kv);
            vec![rotated(&query, q), rotated(&key, kv), value]
        };
        let weights = match source.has(&name("attn_qkv.weight")) {
            true => {
                let [query, key, value] = fused(&name("attn_qkv.weight"), [q, kv, kv]);
                vec![TensorRows { order, ..query }, TensorRows { order, ..key }, value]
            }
            false => qkv("weight"),
        };
        let gates_and_ups = match source.has(&name("ffn_gate_up.weight")) {
            true => fused(&name("ffn_gate_up.weight"), [wide, wide]).into(),
            false => vec![part("ffn_gate", wide), part("ffn_up", wide)],
        };
        let mut norm = |what: &str, has: bool| {
            has.then(|| source.vector(vec![part(what, hidden)])).transpose()
        };
        let post_attention_norm = norm("post_attention_norm", config.post_norms)?;
        let post_feed_forward_norm = norm("post_ffw_norm", config.post_norms)?;
        let attention_norm = norm("attn_norm", config.pre_norms)?;
        let feed_forward_norm = norm("ffn_norm", config.pre_norms)?;
        let mut qk_norms = |[q, k]: [usize; 2]| -> Result<_, LoadError> {
            let query = source.vector(vec![rotated("attn_q_norm.weight", q)])?;
            Ok(Some([query, source.vector(vec![rotated("attn_k_norm.weight", k)])?]))
        };
        let qk_norms = match config.qk_norm {
            QkNorm::None => None,
            QkNorm::Heads => qk_norms([dim, dim])?,
            QkNorm::Rows => qk_norms([q, kv])?,
        };
        Ok(Self {
            attention_norm,
            qkv: source.matrix(weights, hidden)?,
            qkv_bias: config.qkv_bias.then(|| source.vector(qkv("bias"))).transpose()?,
            qk_norms,
            output: source.matrix(vec![part("attn_output", hidden)], q)?,
            post_attention_norm,
            feed_forward_norm,
            gate_up: source.gates_and_ups(gates_and_ups, hidden)?,
            down: source.matrix(vec![part("ffn_down", hidden)], wide)?,
            post_feed_forward_norm,
        })
    }
}

impl TensorRows {
    fn new(name: &str, rows: usize) -> Self {
        Self { name: name.to_owned(), of: rows, first: 0, rows, order: RowOrder::AsStored }
    }
}

/// Cuts the tensor `name` into parts of so many rows, which follow one another.
fn fused<const N: usize>(name: &str, rows: [usize; N]) -> [TensorRows; N] {
    let of = rows.iter().sum();
    let mut next = 0;
    rows.map(|rows| {
        let first = next;
        next += rows;
        TensorRows { of, first, ..TensorRows::new(name, rows) }
    })
}

impl<M: Send, V: Send> Weights<M, V> {
    /// Converts embedding and head by `make_head`, and every other matrix by `make`, several at once.
    pub(crate) fn try_map<N: Send, E: Send>(
        self,
        make_head: impl Fn(M) -> Result<N, E> + Sync,
        make: impl Fn(M) -> Result<N, E> + Sync,
    ) -> Result<Weights<N, V>, E> {
        let Self { embedding, head, final_norm, layers } = self;
        let layer = |layer: LayerWeights<M, V>| -> Result<LayerWeights<N, V>, E> {
            Ok(LayerWeights {
                attention_norm: layer.attention_norm,
                qkv: make(layer.qkv)?,
                qkv_bias: layer.qkv_bias,
                qk_norms: layer.qk_norms,
                output: make(layer.output)?,
                post_attention_norm: layer.post_attention_norm,
                feed_forward_norm: layer.feed_forward_norm,
                gate_up: make(layer.gate_up)?,
                down: make(layer.down)?,
                post_feed_forward_norm: layer.post_feed_forward_norm,
            })
        };
        let (embedding, rest) = rayon::join(
            || make_head(embedding),
            || {
                let layers = layers.into_par_iter().map(layer).collect::<Result<Vec<_>, E>>()?;
                Ok((head.map(&make_head).transpose()?, layers))
            },
        );
        let (embedding, (head, layers)) = (embedding?, rest?);
        Ok(Weights { embedding, head, final_norm, layers })
    }
}

/// Refuses tensors that the decoder would ignore.
fn refuse_unsupported(config: &Config, source: &impl WeightSource) -> Result<(), LoadError> {
    let known = [
        ("attn_q.bias", config.qkv_bias),
        ("attn_qkv.bias", false),
        ("attn_q_norm.weight", config.qk_norm != QkNorm::None),
        ("attn_norm.weight", config.pre_norms),
        ("ffn_norm.weight", config.pre_norms),
        ("post_attention_norm.weight", config.post_norms),
        ("attn_output.bias", false),
        ("ffn_gate.bias", false),
        ("ffn_down.bias", false),
    ];
    let mut ignored =
        known.iter().filter(|(_, used)| !used).map(|(name, _)| format!("blk.0.{name}"));
    match ignored.find(|name| source.has(name)) {
        Some(name) => Err(LoadError::Unsupported { feature: format!("the tensor {name}") }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_interleaved_head_by_head() {
        let places = |order: RowOrder| (0..8).map(|row| order.place(row)).collect::<Vec<_>>();
        assert_eq!(places(RowOrder::AsStored), [0, 1, 2, 3, 4, 5, 6, 7]);
        let halves = |dim, rotary| places(RowOrder::Interleaved { dim, rotary });
        assert_eq!(halves(4, 4), [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(halves(8, 8), [0, 2, 4, 6, 1, 3, 5, 7]);
        assert_eq!(halves(8, 4), [0, 2, 1, 3, 4, 5, 6, 7]);
    }
}
