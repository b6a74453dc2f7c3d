//! Output of `plan`: costs in, figures for JSON, a table and a verdict in words out.

use hyperrag_core::KvShape;
use hyperrag_rerank::cost::{BlockWork, ComputeCost, Costs, QueryLoad, StorageCost};
use serde::Serialize;

use crate::cli::plan::{PlanArgs, ScorerCost};
use crate::input::shape::ModelSizes;
use crate::output::money::{count, decimal_bytes, digits, dollars, time};
use crate::output::plan_simulation::Simulation;
use crate::output::plan_verdict::{choice, reasons};
use crate::output::table::{Fit, Table, fields};

/// Bytes of a block in its shard's table.
const TABLE_BYTES: f64 = 64.0;
/// Bytes of a token in the chunk files: its id and its text, about.
const CHUNK_FILE_BYTES_A_TOKEN: f64 = 4.3;
/// Bytes of a chunk in the manifest, about: 350 a shard.
const MANIFEST_BYTES_A_CHUNK: f64 = 0.72;

/// Rates and price of the hardware.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compute {
    pub(crate) name: String,
    pub(crate) devices: u32,
    pub(crate) dollars_per_hour: f64,
    /// Floating-point operations a second, unless the rates were given.
    pub(crate) flops: Option<f64>,
    pub(crate) efficiency: Option<f64>,
    pub(crate) prefill_tokens_per_second: f64,
    pub(crate) query_tokens_per_second: f64,
}

#[derive(Serialize)]
struct Model {
    name: String,
    #[serde(flatten)]
    kv_shape: KvShape,
    scorer: &'static str,
    flops_per_token: f64,
}

#[derive(Serialize)]
struct Load {
    chunks: u64,
    chunk_tokens: u32,
    query_tokens: u32,
    depth: u32,
    queries_per_second: f64,
    changed_a_month: f64,
    /// Reads of a chunk in a month, on average.
    reads_a_month: f64,
}

/// Bytes of a store.
#[derive(Serialize)]
struct Bytes {
    token: usize,
    block: u64,
    blocks: u128,
    /// Estimates of what a store holds beside its blocks.
    tables: f64,
    chunk_files: f64,
    manifest: f64,
}

#[derive(Serialize)]
struct Build {
    device_seconds: f64,
    seconds: f64,
    dollars: f64,
}

/// Way to answer queries.
#[derive(Serialize)]
struct Way {
    device_seconds_a_query: f64,
    dollars_a_query: f64,
    devices: f64,
    dollars_a_month: f64,
    queries_per_second_max: f64,
    /// Bytes a second that all devices read at the largest rate of queries.
    bytes_per_second_at_max: f64,
}

impl Way {
    fn new(cost: &ComputeCost, devices: u32, bytes_a_query: f64) -> Self {
        let queries_per_second_max = f64::from(devices) * cost.queries_per_second_a_device;
        Self {
            device_seconds_a_query: cost.device_seconds_a_query,
            dollars_a_query: cost.dollars_a_query,
            devices: cost.devices,
            dollars_a_month: cost.dollars_a_month,
            queries_per_second_max,
            bytes_per_second_at_max: queries_per_second_max * bytes_a_query,
        }
    }
}

/// A kind of storage that holds all blocks.
#[derive(Serialize)]
struct StorageRow {
    name: String,
    dollars_per_gb_month: f64,
    dollars_per_request: f64,
    bytes_per_second: f64,
    latency_seconds: f64,
    load_seconds_a_block: f64,
    bound_by: &'static str,
    seconds_a_query: f64,
    speedup: f64,
    devices: f64,
    device_dollars_a_month: f64,
    rent_dollars_a_month: f64,
    request_dollars_a_month: f64,
    change_dollars_a_month: f64,
    dollars_a_month: f64,
    dollars_a_query: f64,
    reads_a_month_break_even: Option<f64>,
    queries_per_second_break_even: Option<f64>,
    build_pays_after_months: Option<f64>,
    is_faster: bool,
    is_cheaper: bool,
}

impl StorageRow {
    fn new(cost: &StorageCost, costs: &Costs, work: &BlockWork, queries_a_month: f64) -> Self {
        let storage = &cost.storage;
        Self {
            name: storage.name.clone(),
            dollars_per_gb_month: storage.dollars_per_gb_month,
            dollars_per_request: storage.dollars_per_request,
            bytes_per_second: storage.bytes_per_second,
            latency_seconds: storage.latency_seconds,
            load_seconds_a_block: cost.load_seconds,
            bound_by: if cost.is_load_bound(work) { "loading" } else { "computing" },
            seconds_a_query: cost.seconds_a_query,
            speedup: cost.speedup,
            devices: cost.compute.devices,
            device_dollars_a_month: cost.compute.dollars_a_month,
            rent_dollars_a_month: cost.rent_dollars_a_month,
            request_dollars_a_month: cost.request_dollars_a_month,
            change_dollars_a_month: cost.change_dollars_a_month,
            dollars_a_month: cost.dollars_a_month,
            dollars_a_query: cost.dollars_a_month / queries_a_month,
            reads_a_month_break_even: cost.reads_a_month_break_even,
            queries_per_second_break_even: cost.queries_per_second_break_even,
            build_pays_after_months: cost.build_pays_after_months,
            is_faster: cost.is_faster(),
            is_cheaper: costs.is_cheaper(cost),
        }
    }
}

/// Figures of a plan.
#[derive(Serialize)]
pub(crate) struct PlanReport {
    version: &'static str,
    model: Model,
    load: Load,
    hardware: Compute,
    prices: String,
    bytes: Bytes,
    build: Build,
    recompute: Way,
    reuse: Way,
    break_even_bytes_per_second: f64,
    storages: Vec<StorageRow>,
    verdict: &'static str,
    /// Storage of the verdict.
    storage: Option<String>,
    reasons: Vec<String>,
    /// Trace over the kinds of storage, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) simulation: Option<Simulation>,
}

impl PlanReport {
    pub(crate) fn new(
        args: &PlanArgs,
        model: &ModelSizes,
        hardware: Compute,
        prices: &str,
        (work, load, costs): (&BlockWork, &QueryLoad, &Costs),
    ) -> Self {
        let corpus = &args.corpus;
        let (chunks, tokens) = (load.blocks as f64, f64::from(corpus.chunk_tokens));
        let bytes_a_query = load.depth * work.bytes as f64;
        let way = |cost, bytes| Way::new(cost, hardware.devices, bytes);
        let row = |cost| StorageRow::new(cost, costs, work, load.queries_a_month());
        Self {
            version: env!("CARGO_PKG_VERSION"),
            model: Model {
                name: model.name.clone(),
                kv_shape: model.kv_shape,
                scorer: match args.model.scorer {
                    ScorerCost::Likelihood => "likelihood",
                    ScorerCost::Label => "label",
                },
                flops_per_token: model.work.flops_per_token,
            },
            load: Load {
                chunks: load.blocks,
                chunk_tokens: corpus.tokens_a_chunk().ceil() as u32,
                query_tokens: corpus.query_tokens,
                depth: load.depth as u32,
                queries_per_second: load.queries_per_second,
                changed_a_month: load.changed_a_month,
                reads_a_month: load.reads_a_month(),
            },
            prices: prices.to_owned(),
            bytes: Bytes {
                token: model.kv_shape.token_bytes(),
                block: work.bytes,
                blocks: costs.bytes,
                tables: TABLE_BYTES * chunks,
                chunk_files: CHUNK_FILE_BYTES_A_TOKEN * tokens * chunks,
                manifest: MANIFEST_BYTES_A_CHUNK * chunks,
            },
            build: Build {
                device_seconds: costs.build_device_seconds,
                seconds: costs.build_device_seconds / f64::from(hardware.devices),
                dollars: costs.build_dollars,
            },
            recompute: way(&costs.recompute, 0.0),
            reuse: way(&costs.reuse, bytes_a_query),
            break_even_bytes_per_second: work.break_even_bytes_per_second(),
            storages: costs.storages.iter().map(row).collect(),
            verdict: choice(costs),
            storage: costs.best().map(|best| best.storage.name.clone()),
            reasons: reasons(work, load, costs),
            hardware,
            simulation: None,
        }
    }

    /// Returns the figures for people: what was planned, a row for each kind of storage, the verdict.
    pub(crate) fn text(&self) -> String {
        let lines = [self.inputs(), self.outputs()].concat();
        let mut verdict = vec![("verdict".to_owned(), self.verdict_words())];
        verdict.extend(self.reasons.iter().map(|reason| ("why".to_owned(), reason.clone())));
        let simulated = self.simulation.as_ref().map(Simulation::text);
        let parts =
            [Some(fields(&lines)), Some(self.table().text()), simulated, Some(fields(&verdict))];
        parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }

    fn verdict_words(&self) -> String {
        match &self.storage {
            Some(name) => format!("{}: store the blocks in {name}", self.verdict),
            None => format!("{}: do not store the blocks", self.verdict),
        }
    }

    fn inputs(&self) -> Vec<(String, String)> {
        let Self { model, load, hardware, bytes, .. } = self;
        let Compute { name, devices, dollars_per_hour, .. } = hardware;
        let rate = match hardware.flops.zip(hardware.efficiency) {
            Some((flops, share)) => {
                format!("{} FLOP/s at {} %, ", count(flops), digits(100.0 * share))
            }
            None => String::new(),
        };
        let lines = [
            (
                "model",
                format!(
                    "{}, {}: {} a token, {} a block of {} tokens",
                    model.name,
                    model.kv_shape.kv_dtype,
                    decimal_bytes(bytes.token as f64),
                    decimal_bytes(bytes.block as f64),
                    load.chunk_tokens
                ),
            ),
            (
                "hardware",
                format!(
                    "{devices} x {name} at {} an hour: {rate}{} tokens/s of chunks and {} of \
                     queries each",
                    dollars(*dollars_per_hour),
                    count(hardware.prefill_tokens_per_second),
                    count(hardware.query_tokens_per_second)
                ),
            ),
            (
                "queries",
                format!(
                    "{} a second, {} chunks each, {} tokens; a chunk is read {} times a month",
                    digits(load.queries_per_second),
                    load.depth,
                    load.query_tokens,
                    count(load.reads_a_month)
                ),
            ),
            ("prices", format!("of {}", self.prices)),
        ];
        lines.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    fn outputs(&self) -> Vec<(String, String)> {
        let Self { load, hardware, bytes, build, recompute, reuse, .. } = self;
        let devices = hardware.devices;
        let on = match devices {
            1 => String::new(),
            devices => format!(" of one device, {} on {devices}", time(build.seconds)),
        };
        let way = |way: &Way| {
            format!(
                "{} of a device a query, {}; {} queries/s on {devices}; at {} queries/s {} devices, \
                 {} a month",
                time(way.device_seconds_a_query),
                dollars(way.dollars_a_query),
                digits(way.queries_per_second_max),
                digits(load.queries_per_second),
                digits(way.devices),
                dollars(way.dollars_a_month)
            )
        };
        let lines = [
            (
                "bytes",
                format!(
                    "{} in {} blocks; beside them about {} of tables, {} of chunk files, {} of \
                     manifest",
                    decimal_bytes(bytes.blocks as f64),
                    count(load.chunks as f64),
                    decimal_bytes(bytes.tables),
                    decimal_bytes(bytes.chunk_files),
                    decimal_bytes(bytes.manifest)
                ),
            ),
            ("build", format!("{}{on}, {}", time(build.device_seconds), dollars(build.dollars))),
            ("recompute", way(recompute)),
            (
                "reuse",
                format!(
                    "{}; {} a second are read at the largest rate",
                    way(reuse),
                    decimal_bytes(reuse.bytes_per_second_at_max)
                ),
            ),
            (
                "break-even bandwidth",
                format!(
                    "{} a second for a device",
                    decimal_bytes(self.break_even_bytes_per_second)
                ),
            ),
        ];
        lines.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    fn table(&self) -> Table {
        let mut table = Table::new([
            ("storage", Fit::Name),
            ("bandwidth", Fit::Number),
            ("bound by", Fit::Name),
            ("query", Fit::Number),
            ("speedup", Fit::Number),
            ("rent", Fit::Number),
            ("a month", Fit::Number),
            ("a query", Fit::Number),
            ("from reads/month", Fit::Number),
            ("from queries/s", Fit::Number),
        ]);
        let from = |value: Option<f64>| value.map_or_else(|| "never".to_owned(), count);
        for row in &self.storages {
            table.add([
                row.name.clone(),
                format!("{}/s", decimal_bytes(row.bytes_per_second)),
                row.bound_by.to_owned(),
                time(row.seconds_a_query),
                format!("{}x", digits(row.speedup)),
                dollars(row.rent_dollars_a_month),
                dollars(row.dollars_a_month),
                dollars(row.dollars_a_query),
                from(row.reads_a_month_break_even),
                from(row.queries_per_second_break_even),
            ]);
        }
        table
    }
}
