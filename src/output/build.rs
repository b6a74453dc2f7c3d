//! Sentences and JSON of `build`: columns, plans, summaries and faults come in, text goes out.

use std::path::Path;

use anyhow::Result;
use hyperrag_core::{agreeing, counted};
use hyperrag_corpus::ColumnsTaken;
use hyperrag_engine::build::dry_run::DryRun;
use hyperrag_engine::build::worker::WorkerReport;
use hyperrag_engine::{BuildInput, BuildSummary};
use hyperrag_model::Model;
use hyperrag_store::Manifest;
use serde::Serialize;

use crate::cli::build::BuildArgs;
use crate::output::table::fields;
use crate::report;

/// Says which columns the documents are read from, and warns where the named title is not there.
pub(crate) fn tell_columns(taken: Option<&ColumnsTaken>, title_column: Option<&str>, json: bool) {
    let Some(taken) = taken else { return };
    if !json {
        report::note(&format!("columns: {taken}"));
    }
    if let (Some(named), None) = (title_column, &taken.columns.title) {
        report::warn(&format!(
            "no title {named:?} in the first rows: documents without it have an empty title"
        ));
    }
    if let Some(difference) = taken.difference() {
        report::warn(&difference);
    }
}

/// Contents of the store before a build.
pub(crate) struct Sealed {
    complete: bool,
    shards: usize,
    documents: u64,
}

impl Sealed {
    /// Counts what a manifest has.
    pub(crate) fn of(manifest: &Manifest) -> Self {
        let documents = manifest.documents() - manifest.deleted_documents();
        Self { complete: manifest.complete, shards: manifest.shards.len(), documents }
    }
}

/// Says that a plan counts all of the input, though some or all of it may be in the store.
pub(crate) fn say_what_is_there(store: &Path, sealed: &Sealed) {
    let Sealed { complete, shards, documents } = sealed;
    let store = store.display();
    report::note(&match complete {
        true => format!(
            "{store}: the store is complete, with {}: this counts all of the input, and the same input \
             would add nothing; --append adds what is new",
            counted(*documents, "document")
        ),
        false => format!(
            "{store}: {} {} sealed already: this counts all of the input",
            counted(*shards, "shard"),
            agreeing(*shards, "is", "are")
        ),
    });
}

/// Speaks of rows that were left out, and of documents that were `named` and not found.
pub(crate) fn warn_of_rows(args: &BuildArgs, named: Option<usize>, summary: &BuildSummary) {
    warn_of_empty_rows(summary.empty_rows);
    warn_of_faults(summary.bad_rows, summary.lossy_rows);
    // Of what was there before, or lies beyond a limit, nothing can be said.
    if let (Some(named), None, false, 0) = (named, args.limit, args.append, summary.bad_rows) {
        let missing = (named as u64).saturating_sub(summary.documents + summary.empty_rows);
        if missing > 0 {
            report::warn(&format!(
                "{} of the run {} not in the input",
                counted(missing, "document"),
                agreeing(missing, "is", "are")
            ));
        }
    }
}

/// Speaks of rows without any text.
pub(crate) fn warn_of_empty_rows(empty_rows: u64) {
    if empty_rows > 0 {
        report::warn(&format!(
            "{} {} no text and {} left out",
            counted(empty_rows, "row"),
            agreeing(empty_rows, "has", "have"),
            agreeing(empty_rows, "was", "were")
        ));
    }
}

/// Speaks of rows that cannot be read, and of those that were not read as they are.
pub(crate) fn warn_of_faults(bad_rows: u64, lossy_rows: u64) {
    if bad_rows > 0 {
        report::warn(&format!(
            "{} cannot be read and {} left out",
            counted(bad_rows, "row"),
            agreeing(bad_rows, "was", "were")
        ));
    }
    if lossy_rows > 0 {
        report::warn(&format!(
            "{} {} half a surrogate pair in title or text, read as U+FFFD",
            counted(lossy_rows, "row"),
            agreeing(lossy_rows, "has", "have")
        ));
    }
}

/// Returns the summary or plan of a build as JSON, with its language, where and how it computes, and the
/// columns that it reads.
pub(crate) fn with_context(
    summary: &impl Serialize,
    input: &BuildInput<'_, Model>,
    taken: Option<&ColumnsTaken>,
) -> Result<String> {
    let (mut value, model) = (serde_json::to_value(summary)?, input.model);
    value["language"] = input.fingerprint.language.as_str().into();
    value["device"] = serde_json::to_value(model.device())?;
    value["compute"] = model.dtype().into();
    value["kernel"] = model.kernel_id().into();
    value["columns"] = serde_json::to_value(taken)?;
    Ok(value.to_string())
}

/// Describes a build that is done.
pub(crate) fn describe(summary: &BuildSummary) -> String {
    let BuildSummary {
        documents,
        chunks,
        tokens,
        bytes,
        shards,
        shards_before,
        tokens_computed,
        seconds,
        unchanged,
        emptied,
        dead,
        ..
    } = summary;
    let dead = match dead {
        0 => String::new(),
        dead => format!(
            ", {} among the chunks until `hyperrag compact`",
            counted(*dead, "deleted or replaced document")
        ),
    };
    let dead = match unchanged {
        0 => dead,
        unchanged => format!(
            "; {} {} there unchanged{dead}",
            counted(*unchanged, "document"),
            agreeing(*unchanged, "was", "were")
        ),
    };
    let dead = match emptied {
        0 => dead,
        emptied => format!(
            "; {} no text any more and no longer {}{dead}",
            counted(*emptied, "document") + agreeing(*emptied, " has", " have"),
            agreeing(*emptied, "counts", "count")
        ),
    };
    let contents = format!("{}, {}", counted(*documents, "document"), counted(*chunks, "chunk"));
    if shards == shards_before {
        return format!("the store is up to date: {contents}, {}{dead}", report::bytes(*bytes));
    }
    let rate = *tokens_computed as f64 / seconds;
    format!(
        "stored {contents}, {}, {} in {} ({} of them now, {rate:.0} tokens/s, {}){dead}",
        counted(*tokens, "token"),
        report::bytes(*bytes),
        counted(*shards, "shard"),
        shards - shards_before,
        report::duration(*seconds)
    )
}

/// Describes the work of one of several processes that build one store.
pub(crate) fn describe_work(done: &WorkerReport, store: &Path) -> String {
    let WorkerReport { spans, spans_built, shards_built, tokens_computed, seconds, .. } = done;
    let rate = *tokens_computed as f64 / seconds;
    let built = format!(
        "built {} of {} here ({}, {}, {rate:.0} tokens/s, {})",
        spans_built,
        counted(*spans, "span"),
        counted(*shards_built, "shard"),
        counted(*tokens_computed, "token"),
        report::duration(*seconds)
    );
    match done.finished {
        true => format!(
            "{built}; every span is done, make the store of them with `hyperrag merge --store {}`",
            store.display()
        ),
        false => format!("{built}; other workers build the rest"),
    }
}

/// Describes what a build would take.
pub(crate) fn describe_plan(plan: &DryRun) -> String {
    let DryRun { documents, empty_rows, unchanged, chunks, tokens, bytes, .. } = plan;
    let DryRun { tokens_per_second, seconds, emptied, .. } = plan;
    let unchanged = match unchanged {
        0 => String::new(),
        unchanged => {
            format!(", {} that the store has unchanged", counted(*unchanged, "document"))
        }
    };
    let unchanged = match emptied {
        0 => unchanged,
        emptied => {
            format!("{unchanged}; {} would have no text any more", counted(*emptied, "document"))
        }
    };
    let left_out = format!("{} without text{unchanged}", counted(*empty_rows, "row"));
    let time = report::duration(*seconds);
    let lines = [
        ("documents", documents.to_string()),
        ("left out", left_out),
        ("chunks", chunks.to_string()),
        ("tokens", tokens.to_string()),
        ("bytes", format!("{} ({bytes})", report::bytes(*bytes))),
        ("time", format!("{time} at {tokens_per_second:.0} tokens/s, measured here")),
    ];
    fields(&lines.map(|(name, value)| (name.to_owned(), value)))
}
