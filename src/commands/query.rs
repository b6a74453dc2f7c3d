//! `query`: queries in, ranked hits out.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::mem;

use anyhow::{Context, Result};
use hyperrag_core::{agreeing, counted};
use hyperrag_engine::SearchResult;
use hyperrag_engine::open::OpenSession;
use hyperrag_engine::search::request::RerankRequest;
use hyperrag_engine::search::session::BlockPolicy;

use crate::cli::query::{Format, QueryArgs};
use crate::exit::Status;
use crate::input::candidates::CandidateSource;
use crate::input::model::open_to_rank;
use crate::input::queries::QueryBatch;
use crate::input::ranking::{policy, session};
use crate::output::batch::{BatchOutput, Shown, WarnedOnce, batch_bar, for_each_result};
use crate::output::ranked::{BLANKS, Made, has_blanks, render};
use crate::output::store::status_with;
use crate::output::tiers::{explain, plan_json, warn_of_silence};
use crate::report;

/// Missing candidates that are named one by one.
const NAMED: usize = 5;

/// Searches for one query, or for a batch of them as they come.
pub(crate) fn query(args: &QueryArgs, json: bool) -> Result<Status> {
    let format = if json { Format::Jsonl } else { args.format };
    let batch = QueryBatch::new(args.text.as_deref(), args.search.queries.as_deref())?;
    let source = CandidateSource::new(args)?;
    let engine = open_to_rank(&args.search)?;
    let session = session(&engine, &args.ranking)?.with_hits_max(args.top);
    // A run has ids alone.
    let session = session.with_texts(format != Format::Trec);
    let device = engine.loaded.model.device().device;
    let bar = batch_bar(&batch);
    let (single, known) = (batch.single, batch.count.is_some());
    let requests =
        batch.map(|(id, query)| (id, query.and_then(|query| source.request(&session, &query))));
    // Who types them waits for each; those of a file are computed together.
    let rows = if known { session.rows_together() } else { 0 };
    let policy = policy(&args.ranking, &engine);
    let results = VecDeque::new();
    let results = BatchedSearch { session: &session, requests, rows, policy, results };
    let start = status_with(&engine.store, &session);
    let output = BatchOutput { single, json: format == Format::Jsonl, bar: &bar };
    let mut first = true;
    let reasons = RefCell::new(BTreeSet::new());
    let show = |result: SearchResult, warned: &mut WarnedOnce| {
        let mut status = warned.warn(&result.damages, &result.failovers);
        if !result.missing.is_empty() {
            warned.few("have candidates that are not in the store", || missing(&result));
            status = Status::Degraded;
        }
        warned.near_words(&result.query_id, &result.near_words);
        let none = source.no_candidate(&result);
        if let Some(why) = none {
            warned
                .few(why.of_queries(), || format!("query {}: {}", result.query_id, why.of_query()));
        }
        reasons.borrow_mut().extend(none);
        if format == Format::Trec && has_blanks(&result) {
            warned.once(BLANKS);
        }
        let plan = plan_json(&engine.store, &session.plan_work());
        let made = Made { device: &device, tiers: engine.store.tier_work(), plan };
        let text = render(&result, &made, format, &args.tag, mem::take(&mut first))?;
        // A run has no line for a query that found nothing.
        if !text.is_empty() {
            bar.suspend(|| match format {
                Format::Text => report::print(&text),
                Format::Jsonl | Format::Trec => report::print_data(&text),
            })?;
        }
        Ok(Shown { status, found: none.is_none() })
    };
    let status = for_each_result(start, results, &output, show, |queries| {
        source.nothing(queries, &reasons.borrow())
    });
    warn_of_silence(&engine.store, &session.plan_work());
    if args.search.tiers.explain {
        explain(&engine.store, &session.plan_work());
    }
    status
}

/// Names candidates that the store does not have.
fn missing(result: &SearchResult) -> String {
    let SearchResult { query_id, missing, .. } = result;
    let named = missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if missing.len() > NAMED { ", ..." } else { "" };
    format!(
        "query {query_id}: {} {} not in the store and {} left out: {named}{more}",
        counted(missing.len(), "candidate"),
        agreeing(missing.len(), "is", "are"),
        agreeing(missing.len(), "was", "were")
    )
}

/// Id of a query, with what there is of it or why there is nothing.
type Named<T> = (String, Result<T>);

/// Reranks requests together, as soon as they have so many rows.
struct BatchedSearch<'a, I> {
    session: &'a OpenSession<'a>,
    requests: I,
    rows: usize,
    policy: BlockPolicy,
    results: VecDeque<Named<SearchResult>>,
}

impl<I: Iterator<Item = Named<RerankRequest>>> Iterator for BatchedSearch<'_, I> {
    type Item = Named<SearchResult>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.results.is_empty() {
            self.search_next();
        }
        self.results.pop_front()
    }
}

impl<I: Iterator<Item = Named<RerankRequest>>> BatchedSearch<'_, I> {
    fn search_next(&mut self) {
        let (mut rows, mut last, mut ids, mut together) = (0, 0, Vec::new(), Vec::new());
        let mut failed = None;
        for (id, request) in self.requests.by_ref() {
            match request {
                Ok(request) => {
                    // One without candidates counts too: a group has an end.
                    last = request.rows().max(1);
                    rows += last;
                    ids.push(id);
                    together.push(request);
                }
                Err(error) => failed = Some((id, Err(error))),
            }
            if failed.is_some() || rows + last > self.rows {
                break;
            }
        }
        let results = self.session.rerank_together(together, self.policy);
        let named = ids.into_iter().zip(results).map(|(id, result)| {
            let result = result.with_context(|| format!("query {id}"));
            (id, result)
        });
        self.results.extend(named.chain(failed));
    }
}
