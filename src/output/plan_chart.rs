//! Charts of a plan: costs in, an SVG out with money over queries a second, and time over bandwidth.

use hyperrag_eval::report::chart::{Panel, Point, panels_svg};
use hyperrag_rerank::cost::{BlockWork, Costs, QueryLoad, StoragePrice};

use crate::output::money::{decimal_bytes, digits, dollars, time};

/// Points of a line.
const POINTS: u32 = 33;
/// Factor from the middle of a chart to either end.
const REACH: f64 = 16.0;
/// Largest cost that is drawn, as a share of recomputing's.
const SHARE_MAX: f64 = 3.0;

/// Draws the costs of a load, at other rates of queries and other bandwidths too.
pub(crate) fn svg(
    work: &BlockWork,
    load: &QueryLoad,
    dollars_per_hour: f64,
    storages: &[StoragePrice],
) -> String {
    let costs = |rate: f64, storages: &[StoragePrice]| {
        let load = QueryLoad { queries_per_second: rate, ..*load };
        Costs::new(work, &load, dollars_per_hour, storages)
    };
    let rates: Vec<f64> = around(load.queries_per_second).collect();
    // What storage costs falls from far above recomputing to a part of it: a share shows where they cross.
    let line = |name: &str, of: &dyn Fn(&Costs) -> f64, storages: &[StoragePrice]| {
        let points = rates.iter().map(|rate| {
            let costs = costs(*rate, storages);
            let amount = of(&costs);
            let label = format!("{name}: {} queries/s, {} a month", digits(*rate), dollars(amount));
            Point { x: *rate, y: amount / costs.recompute.dollars_a_month, label }
        });
        points.filter(|point| point.y <= SHARE_MAX).collect::<Vec<_>>()
    };
    let recompute = line("recompute", &|costs| costs.recompute.dollars_a_month, &[]);
    let mut series = vec![("recompute", recompute)];
    for storage in storages {
        let of = |costs: &Costs| costs.storages.first().map_or(0.0, |cost| cost.dollars_a_month);
        let points = line(&storage.name, &of, std::slice::from_ref(storage));
        series.push((storage.name.as_str(), points));
    }
    let money =
        Panel { x: "queries a second", y: "dollars a month, recompute = 1", series, marked: None };
    panels_svg("storing blocks against recomputing them", &[money, speed(work, load)])
}

/// A panel of the time of a query over the bandwidth of its storage.
fn speed<'a>(work: &BlockWork, load: &QueryLoad) -> Panel<'a> {
    let even = work.break_even_bytes_per_second();
    let point = |rate: f64, seconds: f64| {
        let label = format!("{} a second: {}", decimal_bytes(rate), time(seconds));
        Point { x: rate, y: seconds, label }
    };
    let computed = load.depth * work.recompute_seconds();
    let of = |rate: f64| {
        let storage = StoragePrice {
            name: String::new(),
            dollars_per_gb_month: 0.0,
            dollars_per_request: 0.0,
            bytes_per_second: rate,
            latency_seconds: 0.0,
        };
        Costs::new(work, load, 1.0, &[storage]).storages.first().map_or(0.0, |c| c.seconds_a_query)
    };
    // Slower storage than half the break-even would flatten the rest.
    let rates = || around(even * REACH / 2.0);
    Panel {
        x: "bytes a second that a device reads",
        y: "seconds of a query",
        series: vec![
            ("recompute", rates().map(|rate| point(rate, computed)).collect()),
            ("reuse", rates().map(|rate| point(rate, of(rate))).collect()),
        ],
        marked: Some((even, of(even), format!("break-even, {} a second", decimal_bytes(even)))),
    }
}

/// Returns numbers from a 16th of `middle` to 16 times it, in equal steps of their logarithm.
fn around(middle: f64) -> impl Iterator<Item = f64> {
    let step = move |at: u32| REACH.powf(2.0 * f64::from(at) / f64::from(POINTS - 1) - 1.0);
    (0..POINTS).map(move |at| middle * step(at))
}
