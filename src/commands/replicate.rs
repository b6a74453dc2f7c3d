use anyhow::Result;
use hyperrag_pipeline::{ByteProgress, Replication};

use crate::cli::ReplicateArgs;
use crate::exit::Status;
use crate::report;

/// Copies a store to another folder.
pub(crate) fn replicate(args: &ReplicateArgs, json: bool) -> Result<Status> {
    let progress = ByteProgress::default();
    let done = report::watch_bytes(&progress, || {
        hyperrag_pipeline::replicate(&args.store, &args.to, args.checksum, &progress)
    })?;
    match json {
        true => report::print_data(&serde_json::to_string(&done)?)?,
        false => report::note(&describe(&done)),
    }
    Ok(Status::Done)
}

pub(super) fn describe(done: &Replication) -> String {
    let Replication { shards, shards_copied, bytes_copied, seconds } = done;
    if *bytes_copied == 0 {
        return format!("the replica is up to date: {shards} shards");
    }
    format!(
        "copied {} of {shards_copied} shards in {}; the replica has {shards}",
        report::bytes(*bytes_copied),
        report::duration(*seconds)
    )
}
