//! The weights of a decoder and their layout, for any device.
//!
//! In: a configuration and a source of tensors by their names in GGUF. Out: matrices and vectors of the
//! source's own types. It does not know files or devices.

use rayon::prelude::*;

use crate::arch::config::{Config, QkNorm};
use crate::arch::mixed::{HeadSizes, MixedLayers};
use crate::error::LoadError;

/// The weights of a decoder, with the device's own types of matrices `M` and vectors `V`.
pub(crate) struct Weights<M, V> {
    pub(crate) embedding: M,
    /// LM head; `None` if the embedding serves as head.
    pub(crate) head: Option<M>,
    pub(crate) final_norm: V,
    pub(crate) layers: Vec<LayerWeights<M, V>>,
    /// Weights of the inputs that tokens give to each layer, if there are any.
    pub(crate) token_inputs: Option<TokenInputWeights<M, V>>,
}

/// Weights that make the inputs of all layers, `[layer][dim]`, from a token.
pub(crate) struct TokenInputWeights<M, V> {
    /// A row for each token.
    pub(crate) embedding: M,
    /// Projection of the token's embedding.
    pub(crate) projection: M,
    /// Norm of the projection for each layer.
    pub(crate) norm: V,
}

/// Weights by which a layer takes the input that a token gives it.
pub(crate) struct LayerInputWeights<M, V> {
    pub(crate) gate: M,
    pub(crate) projection: M,
    /// Norm of the projection, before it is added.
    pub(crate) norm: V,
}

pub(crate) struct LayerWeights<M, V> {
    /// Norm of the input of attention.
    pub(crate) attention_norm: Option<V>,
    /// Q, K and V, one below the other; Q alone where a layer reads K and V of another.
    pub(crate) qkv: M,
    pub(crate) qkv_bias: Option<V>,
    /// Norm of Q, of each head or of whole rows.
    pub(crate) query_norm: Option<V>,
    /// Norm of K, likewise.
    pub(crate) key_norm: Option<V>,
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
    pub(crate) input: Option<LayerInputWeights<M, V>>,
    /// Factor of the layer's output, a vector of one value.
    pub(crate) output_scale: Option<V>,
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
            token_inputs: TokenInputWeights::read(config, source)?,
        })
    }
}

impl<M, V> TokenInputWeights<M, V> {
    fn read<S>(config: &Config, source: &mut S) -> Result<Option<Self>, LoadError>
    where
        S: WeightSource<Matrix = M, Vector = V>,
    {
        let dim = match config.mixed {
            Some(MixedLayers { token_input, .. }) if token_input > 0 => token_input,
            _ => return Ok(None),
        };
        let part = |name: &str, rows| vec![TensorRows::new(&format!("{name}.weight"), rows)];
        let all = config.layers * dim;
        Ok(Some(Self {
            embedding: source.matrix(part("per_layer_token_embd", config.vocabulary), all)?,
            projection: source.matrix(part("per_layer_model_proj", all), config.hidden)?,
            norm: source.vector(part("per_layer_proj_norm", dim))?,
        }))
    }
}

impl<M, V> LayerInputWeights<M, V> {
    fn read<S>(config: &Config, layer: usize, source: &mut S) -> Result<Option<Self>, LoadError>
    where
        S: WeightSource<Matrix = M, Vector = V>,
    {
        let dim = match config.mixed {
            Some(MixedLayers { token_input, .. }) if token_input > 0 => token_input,
            _ => return Ok(None),
        };
        let part =
            |name: &str, rows| vec![TensorRows::new(&format!("blk.{layer}.{name}.weight"), rows)];
        let hidden = config.hidden;
        Ok(Some(Self {
            gate: source.matrix(part("inp_gate", dim), hidden)?,
            projection: source.matrix(part("proj", hidden), dim)?,
            norm: source.vector(part("post_norm", hidden))?,
        }))
    }
}

impl<M, V> LayerWeights<M, V> {
    fn read<S>(config: &Config, layer: usize, source: &mut S) -> Result<Self, LoadError>
    where
        S: WeightSource<Matrix = M, Vector = V>,
    {
        let (hidden, wide) = (config.hidden, config.feed_forward_of(layer));
        let HeadSizes { kv_heads, head_dim: dim } = config.heads_of(layer);
        let (q, kv) = (config.heads * dim, kv_heads * dim);
        let name = |name: &str| format!("blk.{layer}.{name}");
        let part = |what: &str, rows| TensorRows::new(&name(&format!("{what}.weight")), rows);
        let order = match source.pairs_halves() {
            true => {
                let rotary = config.rotary_dim_of_kind(config.is_local(layer));
                RowOrder::Interleaved { dim, rotary }
            }
            false => RowOrder::AsStored,
        };
        let rotated = |what: &str, rows| TensorRows { order, ..TensorRows::new(&name(what), rows) };
        let has_kv = config.kv_source(layer) == layer;
        let keys_as_values = config.mixed.is_some_and(|mixed| mixed.keys_as_values);
        let value = if keys_as_values && !config.is_local(layer) { "attn_k" } else { "attn_v" };
        let qkv = |kind: &str| {
            let [query, key] = ["attn_q", "attn_k"].map(|part| format!("{part}.{kind}"));
            let value = TensorRows::new(&name(&format!("{value}.{kind}")), kv);
            match has_kv {
                true => vec![rotated(&query, q), rotated(&key, kv), value],
                false => vec![rotated(&query, q)],
            }
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
        let mut qk_norm = |what: &str, all, has: bool| {
            let rows = if config.qk_norm == QkNorm::Rows { all } else { dim };
            let has = has && config.qk_norm != QkNorm::None;
            has.then(|| source.vector(vec![rotated(what, rows)])).transpose()
        };
        let query_norm = qk_norm("attn_q_norm.weight", q, true)?;
        let key_norm = qk_norm("attn_k_norm.weight", kv, has_kv)?;
        let scale = config.mixed.map(|_| source.vector(vec![part("layer_output_scale", 1)]));
        Ok(Self {
            attention_norm,
            qkv: source.matrix(weights, hidden)?,
            qkv_bias: config.qkv_bias.then(|| source.vector(qkv("bias"))).transpose()?,
            query_norm,
            key_norm,
            output: source.matrix(vec![part("attn_output", hidden)], q)?,
            post_attention_norm,
            feed_forward_norm,
            gate_up: source.gates_and_ups(gates_and_ups, hidden)?,
            down: source.matrix(vec![part("ffn_down", hidden)], wide)?,
            post_feed_forward_norm,
            input: LayerInputWeights::read(config, layer, source)?,
            output_scale: scale.transpose()?,
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
        let Self { embedding, head, final_norm, layers, token_inputs } = self;
        let layer = |layer: LayerWeights<M, V>| -> Result<LayerWeights<N, V>, E> {
            Ok(LayerWeights {
                attention_norm: layer.attention_norm,
                qkv: make(layer.qkv)?,
                qkv_bias: layer.qkv_bias,
                query_norm: layer.query_norm,
                key_norm: layer.key_norm,
                output: make(layer.output)?,
                post_attention_norm: layer.post_attention_norm,
                feed_forward_norm: layer.feed_forward_norm,
                gate_up: make(layer.gate_up)?,
                down: make(layer.down)?,
                post_feed_forward_norm: layer.post_feed_forward_norm,
                input: layer.input.map(|input| input.try_map(&make)).transpose()?,
                output_scale: layer.output_scale,
            })
        };
        let inputs = |inputs: TokenInputWeights<M, V>| -> Result<TokenInputWeights<N, V>, E> {
            Ok(TokenInputWeights {
                embedding: make_head(inputs.embedding)?,
                projection: make(inputs.projection)?,
                norm: inputs.norm,
            })
        };
        let (embedding, rest) = rayon::join(
            || make_head(embedding),
            || {
                let layers = layers.into_par_iter().map(layer).collect::<Result<Vec<_>, E>>()?;
                let inputs = token_inputs.map(inputs).transpose()?;
                Ok((head.map(&make_head).transpose()?, layers, inputs))
            },
        );
        let (embedding, (head, layers, token_inputs)) = (embedding?, rest?);
        Ok(Weights { embedding, head, final_norm, layers, token_inputs })
    }
}

impl<M, V> LayerInputWeights<M, V> {
    fn try_map<N, E>(self, make: impl Fn(M) -> Result<N, E>) -> Result<LayerInputWeights<N, V>, E> {
        let (gate, projection) = (make(self.gate)?, make(self.projection)?);
        Ok(LayerInputWeights { gate, projection, norm: self.norm })
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
        ("inp_gate.weight", config.mixed.is_some_and(|mixed| mixed.token_input > 0)),
        ("layer_output_scale.weight", config.mixed.is_some()),
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
