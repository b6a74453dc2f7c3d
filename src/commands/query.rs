use std::collections::HashSet;

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use hyperrag_eval::{Run, run_line};
use hyperrag_pipeline::{Answer, PipelineError, Query, Session};
use hyperrag_rerank::{Aggregate, Fusion, OnDamage, Ranking, RerankError};

use super::eval::read_run;
use super::{LoadedModel, OpenSession, open, warn_of_damages, warn_of_failovers};
use crate::cli::{self, Format, QueryArgs};
use crate::exit::Status;
use crate::{queries, report};

/// Answers one query, or a batch of them as they come.
pub(crate) fn query(args: &QueryArgs, json: bool) -> Result<Status> {
    let format = if json { Format::Jsonl } else { args.format };
    let (batch, from_stdin) = match (&args.search.queries, args.text.as_deref()) {
        (Some(path), _) => (queries::read(path)?, false),
        (None, Some("-")) => (Vec::new(), true),
        (None, text) => {
            (vec![Query { id: "1".to_owned(), text: text.unwrap_or_default().to_owned() }], false)
        }
    };
    let candidates = args.candidates.as_deref().map(read_run).transpose()?;
    let (store, loaded) = open(&args.search.store, &args.search.model)?;
    let LoadedModel { tokenizer, profile, model, .. } = &loaded;
    let session = Session::open(&store, model, tokenizer, profile)?
        .with_on_damage(on_damage(args))
        .with_ranking(ranking(args));
    let device = model.device().device;
    let single = batch.len() == 1 && args.search.queries.is_none();
    let bar = report::bar(
        (!single && !from_stdin).then_some(batch.len() as u64),
        "{elapsed_precise} {bar:24} {pos}/{len} queries, ETA {eta_precise}",
    );
    let (mut status, mut said) = (Status::Done, HashSet::new());
    let all: Box<dyn Iterator<Item = Result<Query>>> = match from_stdin {
        true => Box::new(queries::from_stdin()),
        false => Box::new(batch.into_iter().map(Ok)),
    };
    for query in all {
        let answered = query.and_then(|query| answer(&session, args, candidates.as_ref(), &query));
        match answered {
            Ok(answer) => {
                warn_of_damages(&answer.damages);
                warn_of_failovers(&answer.failovers, &mut said);
                if !answer.damages.is_empty() {
                    status = Status::Degraded;
                }
                let text = render(&answer, &device, format, args.top)?;
                // A run has no line for a query that found nothing.
                if !text.is_empty() {
                    bar.suspend(|| report::print(&text))?;
                }
            }
            // One query that fails does not end a batch.
            Err(error) if !single && !is_fatal(&error) => {
                report::warn(&format!("{error:#}"));
                status = Status::Degraded;
            }
            Err(error) => return Err(error),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(status)
}

fn on_damage(args: &QueryArgs) -> OnDamage {
    match args.on_damage {
        cli::OnDamage::Recompute => OnDamage::Recompute,
        cli::OnDamage::Fail => OnDamage::Fail,
        cli::OnDamage::Skip => OnDamage::Skip,
    }
}

fn ranking(args: &QueryArgs) -> Ranking {
    let fusion = match args.fuse {
        cli::Fuse::None => Fusion::None,
        cli::Fuse::Zscore => Fusion::ZScore { weight: args.fuse_weight },
        cli::Fuse::Rrf => Fusion::ReciprocalRank,
    };
    Ranking { aggregate: aggregate(args.aggregate), fusion }
}

pub(super) fn aggregate(named: cli::Aggregate) -> Aggregate {
    match named {
        cli::Aggregate::Max => Aggregate::Max,
        cli::Aggregate::Mean => Aggregate::Mean,
        cli::Aggregate::First => Aggregate::First,
    }
}

/// Whether an error is the store's or the program's rather than the query's.
fn is_fatal(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<PipelineError>() {
        Some(
            PipelineError::Model(_)
            | PipelineError::EmptyQuery
            | PipelineError::UnknownDocument { .. },
        ) => false,
        Some(PipelineError::Rerank(error)) => {
            matches!(error, RerankError::Absent(_) | RerankError::Damaged { .. })
        }
        Some(_) => true,
        None => false,
    }
}

fn answer(
    session: &OpenSession<'_>,
    args: &QueryArgs,
    run: Option<&Run>,
    query: &Query,
) -> Result<Answer> {
    let answered = match run {
        None => session.answer(query, args.search.depth, args.recompute),
        Some(run) => {
            let listed = run.hits(&query.id).unwrap_or_default().iter().take(args.search.depth);
            let hits =
                session.candidates(query, listed.map(|hit| (hit.document.as_str(), hit.score)))?;
            session.rerank(query, hits, args.recompute)
        }
    };
    answered.with_context(|| format!("query {}", query.id))
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
