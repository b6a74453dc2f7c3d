//! `bench`: a store and queries in, times of reuse and of recompute out.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use hyperrag_core::Document;
use hyperrag_engine::open::OpenSession;
use hyperrag_engine::search::session::BlockPolicy;
use hyperrag_engine::{Engine, Query};
use hyperrag_eval::experiment::machine::{cpu_name, cpu_times};
use hyperrag_eval::experiment::speed::{self, BenchReport, BenchSettings, Mode, Sample};
use hyperrag_eval::metric::agreement::{Agreement, agreement};
use hyperrag_eval::metric::stats::Summary;
use hyperrag_model::{DeviceChoice, DeviceInfo};
use serde::Serialize;

use crate::cli::{BenchArgs, ModelArgs};
use crate::exit::Status;
use crate::input::model::open;
use crate::input::queries;
use crate::output::store::status_with;
use crate::report;

const NOTHING_FOUND: &str = "no query found any document: name others with --queries";

/// Words of a query that is taken from a document.
const QUERY_WORDS: usize = 14;

/// Conditions under which the figures were taken.
#[derive(Debug, Serialize)]
struct Conditions {
    version: &'static str,
    cpu: String,
    device: DeviceInfo,
    machinery: String,
    kernel: &'static str,
    #[serde(rename = "element")]
    kv_dtype: String,
    io: &'static str,
    steal_percent: Option<f64>,
    depth: usize,
    queries: usize,
    documents: u64,
}

#[derive(Serialize)]
struct Output<'a> {
    conditions: &'a Conditions,
    #[serde(flatten)]
    report: &'a BenchReport,
    against: Option<&'a Against>,
}

impl Conditions {
    /// Takes what the store and its model say; nothing is counted yet.
    fn of(engine: &Engine) -> Self {
        let model = &engine.loaded.model;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            cpu: cpu_name(),
            device: model.device(),
            machinery: model.machinery(),
            kernel: model.kernel_id(),
            kv_dtype: engine.store.kv_shape().kv_dtype.to_string(),
            io: "page cache",
            steal_percent: None,
            depth: 0,
            queries: 0,
            documents: 0,
        }
    }
}

/// Agreement of the scores with another device's, query by query.
#[derive(Serialize)]
struct Against {
    device: DeviceInfo,
    agreements: Vec<Agreement>,
}

impl Against {
    fn difference_max(&self) -> f64 {
        self.agreements.iter().map(|a| a.score_difference_max).fold(0.0, f64::max)
    }
}

/// Times reuse against recompute.
pub(crate) fn bench(args: &BenchArgs, json: bool) -> Result<Status> {
    let engine = open(&args.search.store, &args.search.model)?;
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
    let conditions = Conditions {
        steal_percent: before
            .zip(cpu_times())
            .map(|(a, b)| 100.0 * (b.0 - a.0) / (b.1 - a.1).max(1.0)),
        depth: args.search.depth,
        queries: queries.len(),
        documents: session.indexed_documents(),
        ..Conditions::of(&engine)
    };
    let against = match args.against {
        Some(device) => Some(compare(args, device, &session, &queries)?),
        None => None,
    };
    let output = Output { conditions: &conditions, report: &figures, against: against.as_ref() };
    report::figures(&output, json, args.out.as_deref(), || {
        let parts = [Some(table(&conditions, &figures)), output.against.map(describe_against)];
        parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
    })?;
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
            "{} reads went to a replica, the figures include that; `hyperrag verify` says why",
            figures.failovers
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
            "{} damaged blocks were computed again, the figures include that",
            figures.damaged_blocks
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
    let other = open(&args.search.store, &settings)?;
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

fn describe_against(against: &Against) -> String {
    let Against { device, agreements } = against;
    let largest = against.difference_max();
    let lowest = agreements.iter().map(|a| a.top10_overlap).fold(1.0, f64::min);
    let tau = agreements.iter().map(|a| a.kendall_tau).sum::<f64>() / agreements.len() as f64;
    format!(
        "Against {device}, from the same blocks: largest difference {largest:.1e}, top-10 overlap at least {lowest:.2}, \
         Kendall's tau {tau:.3} on average of {} queries.",
        agreements.len()
    )
}

fn query_from(document: &Document) -> Query {
    let words = document.text.split_whitespace().take(QUERY_WORDS);
    Query { id: document.id.as_str().to_owned(), text: words.collect::<Vec<_>>().join(" ") }
}

/// Picks a figure of a summary.
type Part = fn(&Summary) -> f64;

/// The figures as a Markdown table.
fn table(conditions: &Conditions, figures: &BenchReport) -> String {
    let seconds = |mode| figures.seconds(mode);
    let percentile = |mode, pick: Part| {
        seconds(mode).map_or_else(String::new, |summary| format!("{:.2} s", pick(&summary)))
    };
    let total = |mode, part: fn(&Sample) -> u64| figures.of(mode).map(part).sum::<u64>();
    let queries = |mode| figures.of(mode).count() as f64;
    let peak = |mode| {
        let peak = figures.of(mode).filter_map(|sample| sample.peak_memory_bytes).max();
        peak.map_or_else(|| "unknown".to_owned(), report::bytes)
    };
    let rows: [(&str, Part); 3] =
        [("latency p50", |s| s.p50), ("latency p90", |s| s.p90), ("latency p99", |s| s.p99)];
    let (reuse, recompute) = (Mode::Reuse, Mode::Recompute);
    let mut lines = vec![
        format!(
            "| {} documents, depth {} | reuse | recompute |",
            conditions.documents, conditions.depth
        ),
        "|---|---|---|".to_owned(),
        format!(
            "| blocks/s | {:.1} | {:.1} |",
            figures.blocks_per_second(reuse),
            figures.blocks_per_second(recompute)
        ),
    ];
    lines.extend(rows.map(|(name, pick)| {
        format!("| {name} | {} | {} |", percentile(reuse, pick), percentile(recompute, pick))
    }));
    let per_query = |mode, part| total(mode, part) as f64 / queries(mode);
    let tokens = |mode| per_query(mode, |sample| sample.tokens_computed);
    let read = |mode| report::bytes(per_query(mode, |sample| sample.bytes_read) as u64);
    lines.push(format!(
        "| tokens computed a query | {:.0} | {:.0} |",
        tokens(reuse),
        tokens(recompute)
    ));
    lines.push(format!("| KV read a query | {} | {} |", read(reuse), read(recompute)));
    lines.push(format!(
        "| peak memory, weights included | {} | {} |",
        peak(reuse),
        peak(recompute)
    ));
    let compared = &figures.comparisons;
    let count = compared.len() as f64;
    let mean = |part: fn(&Agreement) -> f64| {
        compared.iter().map(|c| part(&c.agreement)).sum::<f64>() / count
    };
    let largest = compared.iter().map(|c| c.agreement.score_difference_max).fold(0.0, f64::max);
    let equal = compared.iter().filter(|c| c.bit_equal).count();
    lines.push(String::new());
    lines.push(format!(
        "reuse is {:.1} times as fast. Scores: {equal} of {} runs equal to the bit, largest difference {largest:e}, \
         top-10 overlap {:.3}, Kendall's tau {:.3}.",
        figures.blocks_per_second(reuse) / figures.blocks_per_second(recompute),
        compared.len(),
        mean(|a| a.top10_overlap),
        mean(|a| a.kendall_tau),
    ));
    lines.push(describe(conditions));
    lines.join("\n")
}

fn describe(conditions: &Conditions) -> String {
    let Conditions {
        version, cpu, machinery, kernel, kv_dtype, io, steal_percent, queries, ..
    } = conditions;
    let steal = steal_percent.map_or_else(|| "unknown".to_owned(), |steal| format!("{steal:.1} %"));
    format!(
        "hyperrag {version}, {cpu}, {machinery}, kernel {kernel}, {kv_dtype} KV from {io}, \
         steal {steal}, {queries} queries."
    )
}
