use anyhow::{Context, Result};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use hyperrag_eval::{Run, RunHit, run_line};
use hyperrag_pipeline::{Answer, PipelineError, Query};

use super::batch::{batch_bar, each_query, session};
use super::eval::read_run;
use super::{OpenSession, open_to_rank};
use crate::cli::{Format, QueryArgs};
use crate::exit::Status;
use crate::queries::Batch;
use crate::report;

/// Answers one query, or a batch of them as they come.
pub(crate) fn query(args: &QueryArgs, json: bool) -> Result<Status> {
    let format = if json { Format::Jsonl } else { args.format };
    let batch = Batch::new(args.text.as_deref(), args.search.queries.as_deref())?;
    let candidates = args.candidates.as_deref().map(read_run).transpose()?;
    let (store, loaded) = open_to_rank(&args.search.store, &args.search.model)?;
    let session = session(&store, &loaded, &args.ranking)?;
    let device = loaded.model.device().device;
    let bar = batch_bar(&batch);
    let work = |query: &Query| answer(&session, args, candidates.as_ref(), query);
    each_query(batch, &bar, work, |answer, said| {
        let status = said.warn(&answer.damages, &answer.failovers);
        let text = render(&answer, &device, format, args.top)?;
        // A run has no line for a query that found nothing.
        if !text.is_empty() {
            bar.suspend(|| report::print(&text))?;
        }
        Ok(status)
    })
}

fn answer(
    session: &OpenSession<'_>,
    args: &QueryArgs,
    run: Option<&Run>,
    query: &Query,
) -> Result<Answer> {
    let answered = match run {
        None => session.answer(query, args.search.depth, args.ranking.recompute),
        Some(run) => {
            let listed = run.hits(&query.id).unwrap_or_default();
            let listed = &listed[..args.search.depth.min(listed.len())];
            let named = listed.iter().map(|hit| (hit.document.as_str(), hit.score));
            let hits =
                session.candidates(query, named).map_err(|error| at_line(error, args, listed))?;
            session.rerank(query, hits, args.ranking.recompute)
        }
    };
    answered.with_context(|| format!("query {}", query.id))
}

/// Says which line of the run names a document that the store does not have.
fn at_line(error: PipelineError, args: &QueryArgs, listed: &[RunHit]) -> anyhow::Error {
    let line = match (&error, &args.candidates) {
        (PipelineError::UnknownDocument { document, .. }, Some(run)) => {
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

fn render(answer: &Answer, device: &str, format: Format, top: usize) -> Result<String> {
    let hits = &answer.hits[..top.min(answer.hits.len())];
    Ok(match format {
        Format::Jsonl => {
            let mut value = serde_json::to_value(answer)?;
            value["hits"] = serde_json::to_value(hits)?;
            value["stats"]["device"] = device.into();
            value.to_string()
        }
        Format::Trec => {
            let line = |hit: &hyperrag_pipeline::AnsweredHit| {
                run_line(&answer.query_id, &hit.id, hit.rank, hit.score, "hyperrag")
            };
            hits.iter().map(line).collect::<Result<Vec<_>, _>>()?.join("\n")
        }
        Format::Text => text(answer, top),
    })
}

fn text(answer: &Answer, top: usize) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(["score", "rank", "id", "title", "snippet"]);
    for hit in answer.hits.iter().take(top) {
        table.add_row([
            format!("{:.4}", hit.score),
            hit.rank.to_string(),
            hit.id.clone(),
            report::shorten(&hit.title, 36),
            report::snippet(&hit.text, &answer.query, 64),
        ]);
    }
    for column in table.column_iter_mut().take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let stats = &answer.stats;
    format!(
        "{}\n{table}\n{} candidates in {:.2} s: {} tokens computed, {} of KV read",
        answer.query,
        stats.candidates,
        stats.retrieve_seconds + stats.rerank_seconds,
        stats.tokens_computed,
        report::bytes(stats.bytes_read),
    )
}
