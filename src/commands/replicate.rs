//! `replicate`: a store in, its copy out.

use anyhow::Result;
use hyperrag_core::counted;
use hyperrag_engine::ByteProgress;
use hyperrag_engine::maintain::replicate::Replication;
use hyperrag_store::forget_replica;

use crate::cli::keep::ReplicateArgs;
use crate::error::Usage;
use crate::exit::Status;
use crate::report;

/// Copies a store to another folder, or forgets a copy.
pub(crate) fn replicate(args: &ReplicateArgs, json: bool) -> Result<Status> {
    let store = args.store.display();
    if let Some(replica) = &args.forget {
        forget_replica(&args.store, replica)?;
        report::note(&format!("{store}: the replica {} is forgotten", replica.display()));
        return Ok(Status::Done);
    }
    let to = args.to.as_deref();
    let to = to.ok_or_else(|| Usage("no copy: give its folder as --to DIR".to_owned()))?;
    let progress = ByteProgress::default();
    let done = report::watch_bytes(&progress, || {
        hyperrag_engine::maintain::replicate::replicate(&args.store, to, args.checksum, &progress)
    })?;
    if !done.remembered {
        report::warn(&format!(
            "{store}: it cannot be written, so that it does not remember the replica and no query \
             reads from it"
        ));
    }
    match json {
        true => report::print_data(&serde_json::to_string(&done)?)?,
        false => report::note(&describe(&done)),
    }
    Ok(Status::Done)
}

fn describe(done: &Replication) -> String {
    let Replication { shards, shards_copied, bytes_copied, seconds, .. } = done;
    if *bytes_copied == 0 {
        return format!("the replica is up to date: {}", counted(*shards, "shard"));
    }
    format!(
        "copied {} of {} in {}; the replica has {shards}",
        report::bytes(*bytes_copied),
        counted(*shards_copied, "shard"),
        report::duration(*seconds)
    )
}
