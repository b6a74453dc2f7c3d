//! `query`: queries in, ranked hits out.

use std::collections::VecDeque;
use std::mem;

use anyhow::{Context, Result};
use hyperrag_core::counted;
use hyperrag_engine::open::OpenSession;
use hyperrag_engine::search::request::RerankRequest;
use hyperrag_engine::search::session::{BlockPolicy, RankedHit};
use hyperrag_engine::{EngineError, Query, SearchResult};
use hyperrag_eval::Run;
use hyperrag_eval::metric::run::{RunHit, run_id, run_line};

use crate::cli::query::{Format, QueryArgs};
use crate::exit::Status;
use crate::input::judged::read_run;
use crate::input::model::open_to_rank;
use crate::input::queries::QueryBatch;
use crate::input::ranking::{policy, session};
use crate::output::batch::{batch_bar, for_each_result};
use crate::output::store::status_with;
use crate::output::table::{Fit, Table, is_tab_separated};
use crate::report;

/// Searches for one query, or for a batch of them as they come.
pub(crate) fn query(args: &QueryArgs, json: bool) -> Result<Status> {
    let format = if json { Format::Jsonl } else { args.format };
    let batch = QueryBatch::new(args.text.as_deref(), args.search.queries.as_deref())?;
    // A run that the settings name is for the queries of a file.
    let candidates = args.candidates.as_deref().filter(|_| args.text.is_none());
    let candidates = candidates.map(read_run).transpose()?;
    let engine = open_to_rank(&args.search.store, &args.search.model)?;
    let session = session(&engine, &args.ranking)?.with_hits_max(args.top);
    // A run has ids alone.
    let session = session.with_texts(format != Format::Trec);
    let device = engine.loaded.model.device().device;
    let bar = batch_bar(&batch);
    let (single, known) = (batch.single, batch.count.is_some());
    let requests = batch.map(|query| request(&session, args, candidates.as_ref(), &query?));
    // Who types them waits for each; those of a file are computed together.
    let rows = if known { session.rows_together() } else { 0 };
    let policy = policy(&args.ranking);
    let results = VecDeque::new();
    let results = BatchedSearch { session: &session, requests, rows, policy, results };
    let start = status_with(&engine.store, &session);
    let mut first = true;
    for_each_result(start, results, single, &bar, |result, warned| {
        let status = warned.warn(&result.damages, &result.failovers);
        let text = render(&result, &device, format, mem::take(&mut first))?;
        if format == Format::Trec && has_blanks(&result) {
            warned.once(BLANKS);
        }
        // A run has no line for a query that found nothing.
        if !text.is_empty() {
            bar.suspend(|| match format {
                Format::Text => report::print(&text),
                Format::Jsonl | Format::Trec => report::print_data(&text),
            })?;
        }
        Ok(status)
    })
}

/// The query with its candidates: the best by BM25, or those that the run lists.
fn request(
    session: &OpenSession<'_>,
    args: &QueryArgs,
    run: Option<&Run>,
    query: &Query,
) -> Result<(String, RerankRequest)> {
    let depth = args.search.depth;
    let request = match run {
        None => session.request(query, depth),
        Some(run) => {
            let listed = run.hits(&query.id).unwrap_or_else(|| {
                report::warn(&format!(
                    "query {}: the run of candidates does not name it",
                    query.id
                ));
                &[]
            });
            let listed = &listed[..depth.min(listed.len())];
            let named = listed.iter().map(|hit| (hit.document.as_str(), hit.score));
            let hits = session.candidates(query, named);
            session.request_for(query, hits.map_err(|error| at_line(error, args, listed))?)
        }
    };
    Ok((query.id.clone(), request.with_context(|| format!("query {}", query.id))?))
}

/// Reranks requests together, as soon as they have so many rows.
struct BatchedSearch<'a, I> {
    session: &'a OpenSession<'a>,
    requests: I,
    rows: usize,
    policy: BlockPolicy,
    results: VecDeque<Result<SearchResult>>,
}

impl<I: Iterator<Item = Result<(String, RerankRequest)>>> Iterator for BatchedSearch<'_, I> {
    type Item = Result<SearchResult>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.results.is_empty() {
            self.search_next();
        }
        self.results.pop_front()
    }
}

impl<I: Iterator<Item = Result<(String, RerankRequest)>>> BatchedSearch<'_, I> {
    fn search_next(&mut self) {
        let (mut rows, mut last, mut ids, mut together) = (0, 0, Vec::new(), Vec::new());
        let mut failed = None;
        for request in self.requests.by_ref() {
            match request {
                Ok((id, request)) => {
                    // One without candidates counts too: a group has an end.
                    last = request.rows().max(1);
                    rows += last;
                    ids.push(id);
                    together.push(request);
                }
                Err(error) => failed = Some(error),
            }
            if failed.is_some() || rows + last > self.rows {
                break;
            }
        }
        let results = self.session.rerank_together(together, self.policy);
        let named = ids.into_iter().zip(results);
        self.results
            .extend(named.map(|(id, result)| result.with_context(|| format!("query {id}"))));
        self.results.extend(failed.map(Err));
    }
}

/// Says which line of the run names a candidate that the store does not have, or whose score is too
/// large.
fn at_line(error: EngineError, args: &QueryArgs, listed: &[RunHit]) -> anyhow::Error {
    let line = match (&error, &args.candidates) {
        (
            EngineError::UnknownDocument { document, .. }
            | EngineError::ScoreRange { document, .. },
            Some(run),
        ) => {
            let named = listed.iter().find(|hit| hit.document == *document);
            named.map(|hit| format!("{}:{}", run.display(), hit.line))
        }
        _ => None,
    };
    match line {
        Some(line) => anyhow::Error::from(error).context(line),
        None => error.into(),
    }
}

const BLANKS: &str = "blanks in ids are written as %20 and the like, for they part the fields of a \
                      run; --json has the ids as they are";

/// Whether an id is not written as it is in a run.
fn has_blanks(result: &SearchResult) -> bool {
    let changes = |id: &str| run_id(id) != id;
    result.hits.iter().any(|hit| changes(&hit.id) || changes(&result.query_id))
}

fn render(result: &SearchResult, device: &str, format: Format, first: bool) -> Result<String> {
    Ok(match format {
        Format::Jsonl => {
            let mut value = serde_json::to_value(result)?;
            value["stats"]["device"] = device.into();
            value.to_string()
        }
        Format::Trec => {
            let line = |hit: &RankedHit| {
                let (query, document) = (run_id(&result.query_id), run_id(&hit.id));
                run_line(&query, &document, hit.rank, hit.score, "hyperrag")
            };
            result.hits.iter().map(line).collect::<Result<Vec<_>, _>>()?.join("\n")
        }
        Format::Text => text(result, first),
    })
}

/// Columns that a snippet may have at most.
const SNIPPET_COLUMNS: usize = 160;

/// Returns the hits as a table. In a pipe they are tab-separated, and each names its query.
fn text(result: &SearchResult, first: bool) -> String {
    let tab_separated = is_tab_separated();
    let names = [
        ("query", Fit::Name),
        ("score", Fit::Number),
        ("rank", Fit::Number),
        ("id", Fit::Name),
        ("title", Fit::Text),
        ("snippet", Fit::Text),
    ];
    let skipped = usize::from(!tab_separated);
    let mut table = Table::new(names.into_iter().skip(skipped));
    for hit in &result.hits {
        let cells = [
            result.query_id.clone(),
            format!("{:.4}", hit.score),
            hit.rank.to_string(),
            hit.id.clone(),
            report::on_one_line(&hit.title, usize::MAX),
            report::snippet(&hit.text, &result.query, SNIPPET_COLUMNS),
        ];
        table.add(cells.into_iter().skip(skipped));
    }
    match (tab_separated, first) {
        (true, true) => return table.text(),
        (true, false) => return table.rows(),
        (false, _) => {}
    }
    let stats = &result.stats;
    format!(
        "{}\n{}\n{} in {:.2} s: {} computed, {} of KV read",
        result.query,
        table.text(),
        counted(stats.candidates, "candidate"),
        stats.retrieve_seconds + stats.rerank_seconds,
        counted(stats.tokens_computed, "token"),
        report::bytes(stats.bytes_read),
    )
}
