//! `info`: a store in, its description out. No weights are loaded.

use std::path::Path;

use anyhow::Result;
use hyperrag_core::{agreeing, counted};
use hyperrag_engine::maintain::tiers::{TierReport, tier_reports};
use hyperrag_engine::open::tiers::TierLogins;
use hyperrag_model::{DeviceChoice, DeviceInfo, ModelCache};
use hyperrag_store::{Store, notes, replica_states};

use crate::cli::keep::InfoArgs;
use crate::exit::Status;
use crate::input::store::named;
use crate::input::tiers::specs;
use crate::output::info::{BlockSizes, description, exactness};
use crate::output::tiers::tier_table;
use crate::{hint, report};

/// Describes a store without loading its model.
pub(crate) fn info(args: &InfoArgs, json: bool) -> Result<Status> {
    let root = named(&args.store)?.root;
    let store = Store::open(&root)?;
    let manifest = store.manifest();
    let heads = args.model.as_deref().map(|model| query_heads(&store, model)).transpose()?;
    let sizes = BlockSizes::of(manifest, heads);
    let replicas = replica_states(&root, manifest).unwrap_or_else(|error| {
        report::warn(&hint::sentence(&error.into()));
        Vec::new()
    });
    let notes = notes(&root).unwrap_or_else(|error| {
        report::warn(&hint::sentence(&error.into()));
        None
    });
    let notes = notes.unwrap_or_default();
    let device = DeviceInfo::of(DeviceChoice::Auto)?;
    let appended = unfinished_append(&store, &root);
    let tiers = tier_reports(&root, &specs(&args.tiers)?, &TierLogins::from_environment())?;
    let status = match tiers.iter().all(TierReport::is_whole) {
        true => Status::Done,
        false => Status::Degraded,
    };
    if json {
        let mut value = serde_json::to_value(manifest)?;
        value["replicas"] = serde_json::to_value(&replicas)?;
        value["notes"] = serde_json::to_value(&notes)?;
        value["sizes"] = serde_json::to_value(&sizes)?;
        value["exactness"] = exactness(&manifest.fingerprint.kernel).into();
        value["auto_device"] = serde_json::to_value(&device)?;
        value["unfinished_append_shards"] = appended.into();
        if !tiers.is_empty() {
            value["tiers"] = serde_json::to_value(&tiers)?;
        }
        report::print_data(&value.to_string())?;
        return Ok(status);
    }
    report::print(&description(manifest, &notes, &sizes, &replicas, &device))?;
    if !tiers.is_empty() {
        report::print(&tier_table(&tiers))?;
    }
    if appended > 0 {
        report::note(&format!(
            "an append is not finished: {} {} sealed and not yet searched; go on with the same \
             `hyperrag build --append`, or begin it anew with --restart",
            counted(appended, "shard"),
            agreeing(appended, "is", "are")
        ));
    }
    Ok(status)
}

/// Counts the shards that an interrupted append has sealed.
fn unfinished_append(store: &Store, root: &Path) -> usize {
    // Another program may change the store meanwhile: then there is nothing to be said.
    let sealed = Store::open_sealed(root).map(|sealed| sealed.manifest().shards.len());
    match store.manifest().complete {
        true => sealed.unwrap_or(0).saturating_sub(store.manifest().shards.len()),
        false => 0,
    }
}

/// Query heads of the model that must be the store's.
fn query_heads(store: &Store, model: &str) -> Result<usize> {
    let file = ModelCache::from_environment().open(model)?;
    let stored = &store.manifest().fingerprint;
    if file.digest(stored.coverage())? != stored.weights {
        anyhow::bail!("{model} is not the model of this store: leave --model out, or name it");
    }
    Ok(file.config().heads)
}
