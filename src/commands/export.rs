//! `export`: a store in, its copy in a place that several machines share out.

use anyhow::{Result, anyhow};
use hyperrag_core::counted;
use hyperrag_engine::maintain::export::{ExportReport, ExportSettings};
use hyperrag_engine::{ByteProgress, EngineError, ShareError};

use crate::cli::keep::ExportArgs;
use crate::exit::Status;
use crate::input::store::open_place;
use crate::{report, signals};

/// Sends a finished store to a place.
pub(crate) fn export(args: &ExportArgs, json: bool) -> Result<Status> {
    let place = open_place(&args.to)?;
    let settings = ExportSettings {
        verify: args.verify,
        replace: args.replace,
        dry_run: args.dry_run,
        jobs: args.jobs,
    };
    let (progress, stop) = (ByteProgress::default(), signals::stop()?);
    let waits = || {
        let now = place.blocks.write_waits().now;
        now.map_or_else(String::new, |copy| format!(" (waits: {copy})"))
    };
    let done = report::watch_bytes_and(&progress, waits, || {
        hyperrag_engine::maintain::export::export(&args.store, &place, settings, &progress, stop)
    });
    let done = done.map_err(|error| match error {
        EngineError::Share(ShareError::Newer { .. }) => {
            anyhow!("{error}; replace it with `hyperrag export --replace`")
        }
        error => error.into(),
    })?;
    match json {
        true => report::print_data(&serde_json::to_string(&done)?)?,
        false => report::note(&describe(&done)),
    }
    Ok(Status::Done)
}

fn describe(done: &ExportReport) -> String {
    let ExportReport { to, shards, shards_sent, blocks_sent, block_bytes_sent, .. } = done;
    let shards = counted(*shards, "shard");
    let blocks = counted(*blocks_sent, "block");
    let bytes = report::bytes(*block_bytes_sent);
    if done.dry_run {
        return format!("{to} lacks {shards_sent} of {shards}: {blocks}, {bytes}");
    }
    let files = counted(done.files_sent, "file");
    let waited = match done.waited_seconds {
        waited if waited < 0.1 => String::new(),
        waited => format!(", {} of it waiting for replicas", report::duration(waited)),
    };
    format!(
        "sent {shards_sent} of {shards} to {to}: {blocks}, {bytes}; {files}, {}; {} read back; in {}{waited}",
        report::bytes(done.file_bytes_sent),
        counted(done.blocks_read_back, "block"),
        report::duration(done.seconds)
    )
}
