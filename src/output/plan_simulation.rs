//! Output of `plan --simulate`: a trace and prices in, figures and tables out.

use hyperrag_core::counted;
use hyperrag_eval::experiment::trace::{SimulatedTier, SimulatedTrace};
use hyperrag_rerank::cost::{QueryLoad, StoragePrice};
use serde::Serialize;

use crate::input::storage::StorageFlag;
use crate::output::money::{count, decimal_bytes, digits, dollars, time};
use crate::output::table::{Fit, Table, fields};

/// Bytes of a GB.
const GB: f64 = 1e9;

/// A kind of storage in a trace, with what it costs.
#[derive(Serialize)]
struct StorageRow {
    #[serde(flatten)]
    work: SimulatedTier,
    /// Bytes that are paid for: the size of a cache, or all blocks.
    size_bytes: f64,
    bytes_per_second: f64,
    rent_dollars_a_month: f64,
    request_dollars_a_month: f64,
}

/// Figures of a trace.
#[derive(Serialize)]
pub(crate) struct Simulation {
    queries: usize,
    distinct_queries: usize,
    blocks: u32,
    hottest_tenth: f64,
    seconds_mean: f64,
    seconds_p50: f64,
    seconds_p99: f64,
    storages: Vec<StorageRow>,
    /// Rent and requests of all kinds of storage.
    dollars_a_month: f64,
}

impl Simulation {
    /// Joins a trace with prices. `bytes` are those of all blocks.
    pub(crate) fn new(
        trace: SimulatedTrace,
        storages: &[StoragePrice],
        named: &[StorageFlag],
        bytes: f64,
        load: &QueryLoad,
    ) -> Self {
        let reads_a_month = load.queries_a_month() * load.depth;
        let row = |((work, price), flag): ((SimulatedTier, &StoragePrice), &StorageFlag)| {
            let size_bytes = flag.size_bytes.unwrap_or(bytes);
            let requests = reads_a_month * work.share_of_reads;
            StorageRow {
                size_bytes,
                bytes_per_second: work.bytes_a_query * load.queries_per_second,
                rent_dollars_a_month: size_bytes / GB * price.dollars_per_gb_month,
                request_dollars_a_month: requests * price.dollars_per_request,
                work,
            }
        };
        let rows = trace.tiers.into_iter().zip(storages).zip(named).map(row);
        let rows: Vec<StorageRow> = rows.collect();
        let money = rows.iter().map(|row| row.rent_dollars_a_month + row.request_dollars_a_month);
        Self {
            queries: trace.queries,
            distinct_queries: trace.distinct_queries,
            blocks: trace.blocks,
            hottest_tenth: trace.hottest_tenth,
            seconds_mean: trace.seconds.mean,
            seconds_p50: trace.seconds.p50,
            seconds_p99: trace.seconds.p99,
            dollars_a_month: money.sum(),
            storages: rows,
        }
    }

    /// Returns the figures for people.
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new([
            ("trace", Fit::Name),
            ("size", Fit::Number),
            ("hit rate", Fit::Number),
            ("of all reads", Fit::Number),
            ("a query", Fit::Number),
            ("a second", Fit::Number),
            ("rent a month", Fit::Number),
            ("requests a month", Fit::Number),
        ]);
        for row in &self.storages {
            table.add([
                row.work.name.clone(),
                decimal_bytes(row.size_bytes),
                format!("{:.3}", row.work.hit_rate),
                format!("{:.3}", row.work.share_of_reads),
                decimal_bytes(row.work.bytes_a_query),
                decimal_bytes(row.bytes_per_second),
                dollars(row.rent_dollars_a_month),
                dollars(row.request_dollars_a_month),
            ]);
        }
        let lines = [
            (
                "simulated",
                format!(
                    "{} of {} distinct ones over {} blocks, whose hottest tenth has {} % of the reads",
                    counted(self.queries as u64, "query"),
                    self.distinct_queries,
                    count(f64::from(self.blocks)),
                    digits(100.0 * self.hottest_tenth)
                ),
            ),
            (
                "time of a query",
                format!(
                    "{} (p50), {} (p99), if the machine is idle",
                    time(self.seconds_p50),
                    time(self.seconds_p99)
                ),
            ),
            ("storage a month", dollars(self.dollars_a_month)),
        ];
        let lines = lines.map(|(name, value)| (name.to_owned(), value));
        [table.text(), fields(&lines)].join("\n")
    }
}
