//! `upgrade`: brings a store to the present version of the format.

use std::path::Path;

use anyhow::Result;
use hyperrag_core::counted;
use hyperrag_engine::maintain::upgrade::Upgrade;
use hyperrag_engine::open::upgraded_fingerprint;
use hyperrag_engine::{ByteProgress, ModelRequest};
use hyperrag_model::{DeviceChoice, DtypeChoice};

use crate::cli::keep::UpgradeArgs;
use crate::exit::Status;
use crate::{hint, report, signals};

/// Brings a store to the present version of the format.
pub(crate) fn upgrade(args: &UpgradeArgs, json: bool) -> Result<Status> {
    let plan = Upgrade::plan(&args.store)?;
    let done = if plan.from == plan.to {
        Upgrade { dry_run: args.dry_run, ..plan }
    } else {
        let (next, notes) = upgraded_fingerprint(&args.store, &request(args))?;
        let (progress, stop) = (ByteProgress::default(), signals::stop()?);
        match args.dry_run {
            true => plan,
            false => report::watch_bytes(&progress, || {
                let store = &args.store;
                hyperrag_engine::maintain::upgrade::upgrade(
                    store,
                    &next,
                    &notes,
                    stop,
                    &progress,
                    hint::warn,
                )
            })?,
        }
    };
    match json {
        true => report::print_data(&serde_json::to_string(&done)?)?,
        false => report::note(&describe(&done, &args.store)),
    }
    Ok(Status::Done)
}

/// Names the model, which is opened and not loaded.
fn request(args: &UpgradeArgs) -> ModelRequest<'_> {
    ModelRequest {
        model: args.model.as_deref(),
        tokenizer: args.tokenizer.as_deref(),
        profile: None,
        notes: None,
        device: DeviceChoice::Cpu,
        dtype: DtypeChoice::Auto,
        threads: 0,
        warn: hint::warn,
    }
}

fn describe(done: &Upgrade, store: &Path) -> String {
    let Upgrade { from, to, shards, blocks, bytes_needed, bytes_free, .. } = done;
    if from == to {
        return format!("nothing to do: the store is of format version {to}");
    }
    let (shards, blocks) = (counted(*shards, "shard"), counted(*blocks, "block"));
    let store = store.display();
    let replicas = done.replicas.iter().map(|replica| {
        let replica = replica.display();
        format!(
            "; then bring the replica up to it: `hyperrag replicate --store {store} --to {replica}`"
        )
    });
    let replicas: String = replicas.collect();
    let needed = report::bytes(*bytes_needed);
    if done.dry_run {
        let free = bytes_free
            .map_or_else(String::new, |free| format!(", {} are free", report::bytes(free)));
        return format!(
            "version {from} would become version {to}: {shards} with {blocks} are written \
             anew, which takes {needed} more until the end{free}{replicas}"
        );
    }
    format!(
        "version {from} became version {to}: {shards} with {blocks} were written anew, \
         {} freed{replicas}",
        report::bytes(done.bytes_freed)
    )
}
