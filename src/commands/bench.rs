//! `bench`: a store and queries in, times of reuse and of recompute out.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use hyperrag_core::{Document, agreeing, counted};
use hyperrag_engine::open::OpenSession;
use hyperrag_engine::search::session::BlockPolicy;
use hyperrag_engine::{Engine, Query};
use hyperrag_eval::experiment::machine::cpu_times;
use hyperrag_eval::experiment::speed::{self, BenchReport, BenchSettings};
use hyperrag_eval::metric::agreement::agreement;
use hyperrag_model::DeviceChoice;

use crate::cli::bench::BenchArgs;
use crate::cli::model::ModelArgs;
use crate::exit::Status;
use crate::input::model::open_to_compare;
use crate::input::queries;
use crate::output::bench::{Against, Conditions, Output};
use crate::output::store::status_with;
use crate::report;

const NOTHING_FOUND: &str = "no query found any document: name others with --queries";

/// Words of a query that is taken from a document.
const QUERY_WORDS: usize = 14;

/// Times reuse against recompute.
pub(crate) fn bench(args: &BenchArgs, json: bool) -> Result<Status> {
    let engine = open_to_compare(&args.search, &args.search.model)?;
    let session = engine.session()?;
    let mut queries = match &args.search.queries {
        Some(path) => queries::read(path)?,
        None => session.sample(args.query_count)?.iter().map(query_from).collect(),
    };
    if let Some(path) = &args.workload {
        return write_workload(path, &session, queries.first(), args.search.depth);
    }
    queries.truncate(args.query_count);
    let before = cpu_times();
    let figures = timed(args, &session, &queries)?;
    let mut conditions = Conditions::of(&engine);
    conditions.steal_percent =
        before.zip(cpu_times()).map(|(a, b)| 100.0 * (b.0 - a.0) / (b.1 - a.1).max(1.0));
    conditions.depth = args.search.depth;
    conditions.queries = queries.len();
    conditions.documents = session.indexed_documents();
    let against = match args.against {
        Some(device) => Some(compare(args, device, &session, &queries)?),
        None => None,
    };
    let tiers = engine.store.tier_work();
    if !tiers.is_empty() {
        conditions.io = "tiers";
    }
    let output =
        Output { conditions: &conditions, report: &figures, against: against.as_ref(), tiers };
    report::figures(&output, json, args.out.as_deref(), || output.table())?;
    Ok(verdict(&engine, &session, &output))
}

/// Times all queries while a bar shows how far it is.
fn timed(args: &BenchArgs, session: &OpenSession<'_>, queries: &[Query]) -> Result<BenchReport> {
    let runs = args.runs.max(1);
    let settings = BenchSettings { depth: args.search.depth, runs, warm_up: !args.no_warmup };
    let bar = report::bar(
        Some(2 * (queries.len() * runs) as u64),
        "{elapsed_precise} {bar:24} {pos}/{len} runs, ETA {eta_precise}",
    );
    let figures = speed::bench(session, queries, settings, &mut || bar.inc(1))?;
    bar.finish_and_clear();
    ensure!(!figures.samples.is_empty(), "{NOTHING_FOUND}");
    Ok(figures)
}

/// Says what is not as it should be, and how the command ends.
fn verdict(engine: &Engine, session: &OpenSession<'_>, output: &Output<'_>) -> Status {
    let figures = output.report;
    if figures.failovers > 0 {
        report::warn(&format!(
            "{} went to a replica, the figures include that; `hyperrag verify` says why",
            counted(figures.failovers, "read")
        ));
    }
    if let (Some(against), Some(tolerance)) = (output.against, engine.tolerance()) {
        let difference = against.difference_max();
        if difference > tolerance.into() {
            report::warn(&format!(
                "scores differ from those of {} by {difference:.3}, more than the {tolerance} that is promised",
                against.device
            ));
            return Status::Failed;
        }
    }
    if figures.damaged_blocks > 0 {
        report::warn(&format!(
            "{} {} computed again, the figures include that",
            counted(figures.damaged_blocks, "damaged block"),
            agreeing(figures.damaged_blocks, "was", "were")
        ));
        return Status::Degraded;
    }
    status_with(&engine.store, session)
}

fn write_workload(
    path: &Path,
    session: &OpenSession<'_>,
    query: Option<&Query>,
    depth: usize,
) -> Result<Status> {
    let query = query.context(NOTHING_FOUND)?;
    let workload = speed::workload(session, query, depth)?;
    ensure!(!workload.documents.is_empty(), "{NOTHING_FOUND}");
    let text = serde_json::to_string(&workload)?;
    fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
    Ok(Status::Done)
}

/// Scores the candidates of all queries here and on `device`.
fn compare(
    args: &BenchArgs,
    device: DeviceChoice,
    session: &OpenSession<'_>,
    queries: &[Query],
) -> Result<Against> {
    let settings = ModelArgs { device, ..args.search.model.clone() };
    let other = open_to_compare(&args.search, &settings)?;
    let elsewhere = other.session()?;
    let mut agreements = Vec::new();
    for query in queries {
        let scores = |session: &OpenSession<'_>| -> Result<Vec<f32>> {
            let mut hits = session.search(query, args.search.depth, BlockPolicy::Load)?.hits;
            hits.sort_by(|a, b| a.id.cmp(&b.id));
            Ok(hits.iter().map(|hit| hit.score).collect())
        };
        agreements.push(agreement(&scores(session)?, &scores(&elsewhere)?));
    }
    Ok(Against { device: other.loaded.model.device(), agreements })
}

fn query_from(document: &Document) -> Query {
    let words = document.text.split_whitespace().take(QUERY_WORDS);
    Query { id: document.id.as_str().to_owned(), text: words.collect::<Vec<_>>().join(" ") }
}
