//! `compact`: frees what deleted and replaced documents take.

use anyhow::Result;
use hyperrag_core::counted;
use hyperrag_engine::ByteProgress;
use hyperrag_engine::maintain::compact::Compaction;

use crate::cli::keep::CompactArgs;
use crate::exit::Status;
use crate::output::store::note_replicas_behind;
use crate::{hint, report, signals};

/// Frees what deleted and replaced documents take.
pub(crate) fn compact(args: &CompactArgs, json: bool) -> Result<Status> {
    let progress = ByteProgress::default();
    let stop = signals::stop()?;
    let done = report::watch_bytes(&progress, || {
        hyperrag_engine::maintain::compact::compact(&args.store, stop, &progress, hint::warn)
    })?;
    match json {
        true => report::print_data(&serde_json::to_string(&done)?)?,
        false => report::note(&describe(&done)),
    }
    note_replicas_behind(&args.store);
    Ok(Status::Done)
}

fn describe(done: &Compaction) -> String {
    let Compaction { documents_dropped, shards_before, shards, .. } = done;
    if *documents_dropped == 0 {
        return format!("nothing to do: {} without deleted documents", counted(*shards, "shard"));
    }
    let smaller = done.bytes_before.saturating_sub(done.bytes);
    let held = match done.bytes_freed < smaller {
        true => {
            "; readers still use the former shards, a later compact, append or delete frees them"
        }
        false => "",
    };
    format!(
        "dropped {}, {} became {shards}, {} smaller, {} freed{held}",
        counted(*documents_dropped, "document"),
        counted(*shards_before, "shard"),
        report::bytes(smaller),
        report::bytes(done.bytes_freed)
    )
}
