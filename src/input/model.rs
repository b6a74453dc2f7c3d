//! A model as the command line names it, and a store opened with it. A store of another kernel is
//! spoken of here.

use std::path::Path;

use anyhow::Result;
use hyperrag_engine::{Engine, ModelRequest};

use crate::cli::model::ModelArgs;
use crate::cli::query::SearchArgs;
use crate::input::store::named;
use crate::input::tiers::specs;
use crate::{hint, report};

/// Returns what `args` ask for; warnings of loading it go to the user.
pub(crate) fn request(args: &ModelArgs) -> ModelRequest<'_> {
    ModelRequest {
        model: args.model.as_deref(),
        tokenizer: args.tokenizer.as_deref(),
        profile: args.profile.as_deref(),
        notes: None,
        device: args.device,
        dtype: args.dtype,
        threads: args.threads,
        warn: hint::warn,
    }
}

/// Opens a store, loads the model for it, and checks that they belong together.
pub(crate) fn open(root: &Path, args: &ModelArgs) -> Result<Engine> {
    let store = named(root)?;
    let engine = told(Engine::open(&store.root, &request(args))?);
    Ok(store.with_place(engine))
}

/// Opens the store of a search to rank its documents, with the tiers that its blocks come from.
pub(crate) fn open_to_rank(args: &SearchArgs) -> Result<Engine> {
    let specs = specs(&args.tiers.tiers)?;
    let store = named(&args.store)?;
    let engine = told(Engine::open_to_rank(&store.root, &request(&args.model))?);
    store.with_tiers(engine, &specs)
}

/// Opens the store of a search like [`open`], with the tiers that its blocks come from.
pub(crate) fn open_to_compare(args: &SearchArgs, model: &ModelArgs) -> Result<Engine> {
    let specs = specs(&args.tiers.tiers)?;
    let store = named(&args.store)?;
    let engine = told(Engine::open(&store.root, &request(model))?);
    store.with_tiers(engine, &specs)
}

/// Tells the user where another kernel made the store.
fn told(engine: Engine) -> Engine {
    if let Some(other) = &engine.other_kernel {
        report::note(&other.to_string());
    }
    engine
}
