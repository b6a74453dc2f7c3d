//! `answer`: questions in, answers in a generator's words out.

use std::ops::ControlFlow;

use anyhow::{Context, Result};
use hyperrag_core::{Sampling, agreeing, counted};
use hyperrag_engine::answer::GeneratedAnswer;
use hyperrag_engine::answer::settings::{AnswerSettings, PassageOrder};
use hyperrag_engine::{Engine, Query};
use indicatif::ProgressBar;

use crate::cli::answer::AnswerArgs;
use crate::exit::Status;
use crate::input::model::open_to_rank;
use crate::input::queries::QueryBatch;
use crate::input::ranking::{policy, session};
use crate::output::batch::{BatchOutput, Shown, WarnedOnce, batch_bar, for_each_result};
use crate::output::store::status_with;
use crate::output::tiers::{explain, warn_of_silence};
use crate::report;

/// Answers one question, or a batch of them as they come.
pub(crate) fn answer(args: &AnswerArgs, json: bool) -> Result<Status> {
    let batch = QueryBatch::new(args.text.as_deref(), args.search.queries.as_deref())?;
    let mut engine = open_to_rank(&args.search)?;
    let threads = args.search.model.threads;
    let generator = engine.loaded.generator(
        args.generator.as_deref(),
        args.chat_template.as_deref(),
        threads,
    )?;
    let session = session(&engine, &args.ranking)?.with_hits_max(args.passages);
    let device = engine.loaded.model.device().device;
    let settings = settings(args, &engine);
    let single = batch.single;
    // A text that is being written and a bar would be in each other's way.
    let bar = if json { batch_bar(&batch) } else { ProgressBar::hidden() };
    let work = |query: &Query| {
        let mut printed = match json || single {
            true => Ok(()),
            false => report::print(&query.text),
        };
        let mut print = |piece: &str| {
            if !json && printed.is_ok() {
                printed = report::print_piece(piece);
            }
            if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let answered = session.generate_answer(&generator, &settings, query, &mut print);
        let answered = answered.with_context(|| format!("query {}", query.id))?;
        Ok((answered, printed))
    };
    let answers = batch.map(|(id, query)| (id, query.and_then(|query| work(&query))));
    let show = |(answer, printed): (GeneratedAnswer, Result<()>), warned: &mut WarnedOnce| {
        printed?;
        if json {
            let mut value = serde_json::to_value(&answer)?;
            value["stats"]["device"] = device.as_str().into();
            bar.suspend(|| report::print_data(&value.to_string()))?;
        } else {
            report::print_piece(&sources(&answer, single))?;
            warn_of_cuts(&answer);
        }
        let found = args.passages == 0 || answer.passages.len() + answer.passages_left_out > 0;
        warned.near_words(&answer.query_id, &answer.near_words);
        if !found {
            let id = &answer.query_id;
            warned.few("were answered without a passage", || {
                format!("query {id}: no passage was found, so the answer is the model's alone")
            });
        }
        Ok(Shown { status: warned.warn(&answer.damages, &answer.failovers), found })
    };
    let start = status_with(&engine.store, &session);
    let output = BatchOutput { single, json, bar: &bar };
    let status = for_each_result(start, answers, &output, show, |_| None);
    warn_of_silence(&engine.store, &session.plan_work());
    if args.search.tiers.explain {
        explain(&engine.store, &session.plan_work());
    }
    status
}

fn settings<'a>(args: &'a AnswerArgs, engine: &Engine) -> AnswerSettings<'a> {
    AnswerSettings {
        instruction: args.instruction.as_deref(),
        passages: args.passages,
        order: match args.no_rerank {
            true => PassageOrder::Retrieved,
            false => PassageOrder::Reranked {
                depth: args.search.depth,
                policy: policy(&args.ranking, engine),
            },
        },
        sampling: Sampling {
            tokens_max: args.max_tokens as usize,
            temperature: args.temperature,
            top_p: args.top_p,
            seed: args.seed,
        },
    }
}

/// The end of the answer's line, and the passages by their numbers.
fn sources(answer: &GeneratedAnswer, single: bool) -> String {
    let line = |passage: &hyperrag_engine::answer::passages::Passage| {
        let (rank, id) = (passage.rank, &passage.id);
        match passage.title.trim() {
            "" => format!("\n[{rank}] {id}"),
            title => format!("\n[{rank}] {id}  {}", report::on_one_line(title, 64)),
        }
    };
    let passages: String = answer.passages.iter().map(line).collect();
    let after = if single { "" } else { "\n" };
    format!("\n{passages}\n{after}")
}

fn warn_of_cuts(answer: &GeneratedAnswer) {
    for passage in answer.passages.iter().filter(|passage| passage.cut_tokens > 0) {
        report::note(&format!(
            "passage [{}] was cut by {}: the generator has no room for more",
            passage.rank,
            counted(passage.cut_tokens, "token")
        ));
    }
    if answer.passages_left_out > 0 {
        report::note(&format!(
            "{} {} left out: the generator has no room for more",
            counted(answer.passages_left_out, "passage"),
            agreeing(answer.passages_left_out, "was", "were")
        ));
    }
}
