//! Output of `bench`: figures and the conditions of a run in, JSON or a table out.

use hyperrag_core::counted;
use hyperrag_engine::Engine;
use hyperrag_eval::experiment::machine::cpu_name;
use hyperrag_eval::experiment::speed::{BenchReport, Mode, Sample};
use hyperrag_eval::metric::agreement::Agreement;
use hyperrag_eval::metric::stats::Summary;
use hyperrag_model::DeviceInfo;
use hyperrag_store::TierWork;
use serde::Serialize;

use crate::output::table::{Fit, Table, with_sentences};
use crate::output::tiers::described;
use crate::report;

/// Conditions under which the figures were taken.
#[derive(Debug, Serialize)]
pub(crate) struct Conditions {
    version: &'static str,
    cpu: String,
    pub(crate) device: DeviceInfo,
    #[serde(rename = "machinery")]
    backend_description: String,
    kernel: &'static str,
    #[serde(rename = "element")]
    kv_dtype: String,
    pub(crate) io: &'static str,
    pub(crate) steal_percent: Option<f64>,
    pub(crate) depth: usize,
    pub(crate) queries: usize,
    pub(crate) documents: u64,
}

#[derive(Serialize)]
pub(crate) struct Output<'a> {
    pub(crate) conditions: &'a Conditions,
    #[serde(flatten)]
    pub(crate) report: &'a BenchReport,
    pub(crate) against: Option<&'a Against>,
    /// Work of each tier, if blocks come from tiers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tiers: Vec<TierWork>,
}

impl Conditions {
    /// Takes what the store and its model say; nothing is counted yet.
    pub(crate) fn of(engine: &Engine) -> Self {
        let model = &engine.loaded.model;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            cpu: cpu_name(),
            device: model.device(),
            backend_description: model.backend_description(),
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
pub(crate) struct Against {
    pub(crate) device: DeviceInfo,
    pub(crate) agreements: Vec<Agreement>,
}

impl Against {
    pub(crate) fn difference_max(&self) -> f64 {
        self.agreements.iter().map(|a| a.score_difference_max).fold(0.0, f64::max)
    }
}

/// Picks a figure of a summary.
type Percentile = fn(&Summary) -> f64;

/// The modes in the order of the table's columns.
const MODES: [Mode; 2] = [Mode::Reuse, Mode::Recompute];

impl Output<'_> {
    /// The figures as a table, with sentences on how scores agree and on the conditions.
    pub(crate) fn table(&self) -> String {
        let Self { conditions, report, against, tiers } = self;
        let Conditions { documents, depth, .. } = conditions;
        let head = format!("{}, depth {depth}", counted(*documents, "document"));
        let modes = [("reuse", Fit::Number), ("recompute", Fit::Number)];
        let mut table = Table::new([(head.as_str(), Fit::Name)].into_iter().chain(modes));
        for row in time_rows(report).into_iter().chain(work_rows(report)) {
            table.add(row);
        }
        let mut sentences = vec![agreement_sentence(report), describe(conditions)];
        sentences.extend(against.map(describe_against));
        sentences.extend(tiers.iter().map(described));
        with_sentences(&table, &sentences)
    }
}

/// A row of the table: a name, and a cell for each mode.
fn row(name: &str, cell: impl Fn(Mode) -> String) -> [String; 3] {
    let [reuse, recompute] = MODES.map(cell);
    [name.to_owned(), reuse, recompute]
}

fn time_rows(figures: &BenchReport) -> Vec<[String; 3]> {
    let percentile = |mode, pick: Percentile| {
        let summary = figures.seconds(mode);
        summary.map_or_else(String::new, |summary| format!("{:.2} s", pick(&summary)))
    };
    let rows: [(&str, Percentile); 3] =
        [("latency p50", |s| s.p50), ("latency p90", |s| s.p90), ("latency p99", |s| s.p99)];
    let speed = row("blocks/s", |mode| format!("{:.1}", figures.blocks_per_second(mode)));
    let latencies = rows.map(|(name, pick)| row(name, |mode| percentile(mode, pick)));
    [speed].into_iter().chain(latencies).collect()
}

fn work_rows(figures: &BenchReport) -> [[String; 3]; 3] {
    let a_query = |mode, of: fn(&Sample) -> u64| {
        figures.of(mode).map(of).sum::<u64>() as f64 / figures.of(mode).count() as f64
    };
    let peak = |mode| {
        let peak = figures.of(mode).filter_map(|sample| sample.peak_memory_bytes).max();
        peak.map_or_else(|| "unknown".to_owned(), report::bytes)
    };
    [
        row("tokens computed a query", |mode| {
            format!("{:.0}", a_query(mode, |sample| sample.tokens_computed))
        }),
        row("KV read a query", |mode| report::bytes(a_query(mode, |s| s.bytes_read) as u64)),
        row("peak memory, weights included", peak),
    ]
}

/// Says how much faster reuse is, and how its scores agree with those recomputed.
fn agreement_sentence(figures: &BenchReport) -> String {
    let compared = &figures.comparisons;
    let mean = |of: fn(&Agreement) -> f64| {
        compared.iter().map(|c| of(&c.agreement)).sum::<f64>() / compared.len() as f64
    };
    let largest = compared.iter().map(|c| c.agreement.score_difference_max).fold(0.0, f64::max);
    let equal = compared.iter().filter(|c| c.bit_equal).count();
    let [reuse, recompute] = MODES.map(|mode| figures.blocks_per_second(mode));
    format!(
        "reuse is {:.1} times as fast. Scores: {equal} of {} equal to the bit, largest difference {largest:e}, \
         top-10 overlap {:.3}, Kendall's tau {:.3}.",
        reuse / recompute,
        counted(compared.len(), "run"),
        mean(|a| a.top10_overlap),
        mean(|a| a.kendall_tau),
    )
}

fn describe(conditions: &Conditions) -> String {
    let Conditions {
        version,
        cpu,
        backend_description,
        kernel,
        kv_dtype,
        io,
        steal_percent,
        queries,
        ..
    } = conditions;
    let steal = steal_percent.map_or_else(|| "unknown".to_owned(), |steal| format!("{steal:.1} %"));
    format!(
        "hyperrag {version}, {cpu}, {backend_description}, kernel {kernel}, {kv_dtype} KV from {io}, \
         steal {steal}, {}.",
        counted(*queries, "query")
    )
}

fn describe_against(against: &Against) -> String {
    let Against { device, agreements } = against;
    let largest = against.difference_max();
    let lowest = agreements.iter().map(|a| a.top10_overlap).fold(1.0, f64::min);
    let tau = agreements.iter().map(|a| a.kendall_tau).sum::<f64>() / agreements.len() as f64;
    format!(
        "Against {device}, from the same blocks: largest difference {largest:.1e}, top-10 overlap at least {lowest:.2}, \
         Kendall's tau {tau:.3} on average of {}.",
        counted(agreements.len(), "query")
    )
}
