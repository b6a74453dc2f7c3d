//! `query` of a list of stores: queries in, ranked hits of all of them out.

use std::mem;
use std::path::Path;

use anyhow::{Context, Result};
use hyperrag_engine::SearchResult;
use hyperrag_engine::open::collection::OpenCollection;
use serde_json::Value;

use crate::cli::query::{Format, QueryArgs};
use crate::error::Usage;
use crate::exit::Status;
use crate::input::model::request;
use crate::input::queries::QueryBatch;
use crate::input::ranking::{policy, ranked};
use crate::output::batch::{BatchOutput, Shown, WarnedOnce, batch_bar, for_each_result};
use crate::output::ranked::{BLANKS, Made, has_blanks, render};
use crate::output::store::status_with;
use crate::report;

/// Searches the stores of the list at `path` for one query, or for a batch of them as they come.
pub(crate) fn query_collection(args: &QueryArgs, path: &Path, json: bool) -> Result<Status> {
    check(args, path)?;
    let format = if json { Format::Jsonl } else { args.format };
    let batch = QueryBatch::new(args.text.as_deref(), args.search.queries.as_deref())?;
    let collection = OpenCollection::open(path, &request(&args.search.model))?;
    if let Some(other) = &collection.first.other_kernel {
        report::note(&other.to_string());
    }
    let with_texts = format != Format::Trec;
    let session = collection.session(|session| {
        ranked(session, &args.ranking).with_hits_max(args.top).with_texts(with_texts)
    })?;
    let mut start = Status::Done;
    for (store, member) in collection.stores().zip(session.members()) {
        if status_with(store, member) == Status::Degraded {
            start = Status::Degraded;
        }
    }
    let device = collection.first.loaded.model.device().device;
    let bar = batch_bar(&batch);
    let single = batch.single;
    let (depth, policy) = (args.search.depth, policy(&args.ranking, &collection.first));
    let results = batch.map(|(id, query)| {
        let result = query.and_then(|query| Ok(session.search(&query, depth, policy)?));
        let result = result.with_context(|| format!("query {id}"));
        (id, result)
    });
    let output = BatchOutput { single, json: format == Format::Jsonl, bar: &bar };
    let mut first = true;
    let show = |result: SearchResult, warned: &mut WarnedOnce| {
        let status = warned.warn(&result.damages, &result.failovers);
        let found = result.stats.candidates > 0;
        if !found {
            warned.few("have no word that a document has", || {
                format!("query {}: no document has any of its words", result.query_id)
            });
        }
        if format == Format::Trec && has_blanks(&result) {
            warned.once(BLANKS);
        }
        let made = Made { device: &device, tiers: Vec::new(), plan: Value::Null };
        let text = render(&result, &made, format, &args.tag, mem::take(&mut first))?;
        if !text.is_empty() {
            bar.suspend(|| match format {
                Format::Text => report::print(&text),
                Format::Jsonl | Format::Trec => report::print_data(&text),
            })?;
        }
        Ok(Shown { status, found })
    };
    for_each_result(start, results, &output, show, |_| None)
}

/// Refuses what only a query of a single store takes.
fn check(args: &QueryArgs, path: &Path) -> Result<(), Usage> {
    let refused = [
        ("--candidates", args.candidates.is_some() && args.text.is_none()),
        ("--exclude-self", args.exclude_self),
        ("--tiers", !args.search.tiers.tiers.is_empty()),
        ("--explain", args.search.tiers.explain),
    ];
    match refused.into_iter().find(|(_, given)| *given) {
        Some((flag, _)) => {
            Err(Usage(format!("{}: a list of stores takes no {flag}", path.display())))
        }
        None => Ok(()),
    }
}
