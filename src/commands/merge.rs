//! `merge`: what several processes have built in, one store out.

use anyhow::Result;
use hyperrag_core::counted;
use hyperrag_engine::ByteProgress;
use hyperrag_engine::build::merge::MergeReport;

use crate::cli::partition::MergeArgs;
use crate::exit::Status;
use crate::input::store::build_place;
use crate::{hint, report, signals};

/// Makes one store of what several processes have built.
pub(crate) fn merge(args: &MergeArgs, json: bool) -> Result<Status> {
    let (place, scratch) = build_place(&args.store, args.scratch.as_deref())?;
    let (progress, stop) = (ByteProgress::default(), signals::stop()?);
    let done = report::watch_bytes(&progress, || {
        hyperrag_engine::build::merge::merge(&place, &scratch, &progress, hint::warn, stop)
    })?;
    match json {
        true => report::print_data(&serde_json::to_string(&done)?)?,
        false => report::note(&describe(&done)),
    }
    Ok(Status::Done)
}

fn describe(done: &MergeReport) -> String {
    let MergeReport { place, documents, chunks, tokens, bytes, shards, spans, seconds, .. } = done;
    let contents = format!(
        "{}, {}, {}, {} in {}",
        counted(*documents, "document"),
        counted(*chunks, "chunk"),
        counted(*tokens, "token"),
        report::bytes(*bytes),
        counted(*shards, "shard")
    );
    match spans {
        0 => format!("{place}: the store is merged already: {contents}"),
        spans => format!(
            "merged {} into {place}: {contents}; in {}",
            counted(*spans, "span"),
            report::duration(*seconds)
        ),
    }
}
