//! Sizes of a model without its weights: a name, a path or sizes come in; bytes and operations go out.

use std::path::Path;

use anyhow::{Context, Result};
use hyperrag_core::KvShape;
use hyperrag_model::{Config, ModelCache, NamedModel};
use hyperrag_rerank::cost::DecoderWork;

use crate::cli::plan::{PlanModelArgs, ScorerCost};
use crate::error::Usage;

/// A model as far as its costs go.
pub(crate) struct ModelSizes {
    pub(crate) name: String,
    pub(crate) kv_shape: KvShape,
    pub(crate) work: DecoderWork,
}

/// Returns the sizes that the flags name.
pub(crate) fn sizes(args: &PlanModelArgs) -> Result<ModelSizes> {
    if let Some(name) = &args.model {
        return Ok(of_config(name, &config(name)?, args));
    }
    let given = args.layers.zip(args.kv_heads).zip(args.head_dim.zip(args.hidden));
    let Some((((layers, kv_heads), (head_dim, hidden)), weights)) = given.zip(args.weights) else {
        let needed = "name a model with --model, or its sizes with --layers, --kv-heads, \
                      --head-dim, --hidden and --weights";
        return Err(Usage(needed.to_owned()).into());
    };
    let heads = f64::from(args.heads.unwrap_or(hidden.div_ceil(head_dim)));
    let head = 2.0 * f64::from(hidden) * f64::from(args.vocabulary.unwrap_or(0));
    Ok(ModelSizes {
        name: "sizes".to_owned(),
        kv_shape: KvShape { layers, kv_heads, head_dim, hidden, kv_dtype: args.kv_dtype },
        work: DecoderWork {
            flops_per_token: 2.0 * weights,
            flops_per_pair: 4.0 * f64::from(layers) * heads * f64::from(head_dim),
            flops_per_scored_token: scored(args.scorer, head),
        },
    })
}

/// Finds a configuration: of a model that is known by name, of a file, or of a model on this machine. Nothing is
/// fetched.
fn config(name: &str) -> Result<Config> {
    if let Some(config) = Config::shape(name) {
        return Ok(config);
    }
    let path = match Path::new(name) {
        path if path.exists() && NamedModel::find(name).is_none() => path.to_owned(),
        _ => ModelCache::from_environment().resolve_here(name).with_context(|| {
            format!("{name}: no sizes are known; there are {}", Config::SHAPES.join(", "))
        })?,
    };
    Ok(Config::read(&path)?)
}

fn of_config(name: &str, config: &Config, args: &PlanModelArgs) -> ModelSizes {
    let head = 2.0 * config.hidden as f64 * config.vocabulary as f64;
    ModelSizes {
        name: name.to_owned(),
        kv_shape: config.kv_shape(args.kv_dtype),
        work: DecoderWork {
            flops_per_token: config.flops_a_position(),
            flops_per_pair: config.flops_of_attention(1),
            flops_per_scored_token: scored(args.scorer, head),
        },
    }
}

/// Returns the operations of the head for a token of the query.
fn scored(scorer: ScorerCost, head: f64) -> f64 {
    match scorer {
        ScorerCost::Likelihood => head,
        ScorerCost::Label => 0.0,
    }
}
