use rayon::prelude::*;

use crate::{Config, LoadError};

/// The weights of a decoder, its matrices `M` and vectors `V` as the place that computes wants them.
pub(crate) struct Weights<M, V> {
    pub(crate) embedding: M,
    /// `None` where the embedding serves as head.
    pub(crate) head: Option<M>,
    pub(crate) final_norm: V,
    pub(crate) layers: Vec<Layer<M, V>>,
}

pub(crate) struct Layer<M, V> {
    pub(crate) attention_norm: V,
    /// Q, K and V.
    pub(crate) qkv: M,
    pub(crate) output: M,
    pub(crate) feed_forward_norm: V,
    /// Gate and up.
    pub(crate) gate_up: M,
    pub(crate) down: M,
}

/// Where weights come from, and how they are laid out.
pub(crate) trait WeightSource {
    type Matrix;
    type Vector;

    /// Whether there is such a tensor.
    fn has(&self, name: &str) -> bool;

    /// One matrix of `inputs` columns from several tensors of the given numbers of rows.
    fn matrix(&mut self, parts: &[(&str, usize)], inputs: usize)
    -> Result<Self::Matrix, LoadError>;

    fn vector(&mut self, name: &str, length: usize) -> Result<Self::Vector, LoadError>;
}

impl<M, V> Weights<M, V> {
    /// Reads all weights of a decoder of these sizes.
    pub(crate) fn read<S>(config: &Config, source: &mut S) -> Result<Self, LoadError>
    where
        S: WeightSource<Matrix = M, Vector = V>,
    {
        refuse_unsupported(source)?;
        let (hidden, wide) = (config.hidden, config.feed_forward);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let mut layers = Vec::with_capacity(config.layers);
        for i in 0..config.layers {
            let name = |name: &str| format!("blk.{i}.{name}.weight");
            let (query, key, value) = (name("attn_q"), name("attn_k"), name("attn_v"));
            let (gate, up) = (name("ffn_gate"), name("ffn_up"));
            layers.push(Layer {
                attention_norm: source.vector(&name("attn_norm"), hidden)?,
                qkv: source.matrix(&[(&query, q), (&key, kv), (&value, kv)], hidden)?,
                output: source.matrix(&[(&name("attn_output"), hidden)], q)?,
                feed_forward_norm: source.vector(&name("ffn_norm"), hidden)?,
                gate_up: source.matrix(&[(&gate, wide), (&up, wide)], hidden)?,
                down: source.matrix(&[(&name("ffn_down"), hidden)], wide)?,
            });
        }
        let vocabulary = config.vocabulary;
        Ok(Self {
            embedding: source.matrix(&[("token_embd.weight", vocabulary)], hidden)?,
            head: match source.has("output.weight") {
                true => Some(source.matrix(&[("output.weight", vocabulary)], hidden)?),
                false => None,
            },
            final_norm: source.vector("output_norm.weight", hidden)?,
            layers,
        })
    }
}

impl<M: Send, V: Send> Weights<M, V> {
    /// The same with embedding and head as `make_head` makes them, and every other matrix as `make`,
    /// several at once.
    pub(crate) fn try_map<N: Send, E: Send>(
        self,
        make_head: impl Fn(M) -> Result<N, E> + Sync,
        make: impl Fn(M) -> Result<N, E> + Sync,
    ) -> Result<Weights<N, V>, E> {
        let Self { embedding, head, final_norm, layers } = self;
        let layer = |layer: Layer<M, V>| -> Result<Layer<N, V>, E> {
            Ok(Layer {
                attention_norm: layer.attention_norm,
                qkv: make(layer.qkv)?,
                output: make(layer.output)?,
                feed_forward_norm: layer.feed_forward_norm,
                gate_up: make(layer.gate_up)?,
                down: make(layer.down)?,
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

/// Refuses tensors that the decoder would ignore: biases, and Llama 3's scaled rotary frequencies.
fn refuse_unsupported(source: &impl WeightSource) -> Result<(), LoadError> {
    let ignored =
        ["blk.0.attn_q.bias", "blk.0.attn_output.bias", "blk.0.ffn_gate.bias", "rope_freqs.weight"];
    match ignored.iter().find(|name| source.has(name)) {
        Some(name) => Err(LoadError::Unsupported { feature: format!("the tensor {name}") }),
        None => Ok(()),
    }
}
