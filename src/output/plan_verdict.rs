//! The verdict of a plan in words: costs in, sentences out.

use hyperrag_rerank::cost::{BlockWork, Costs, QueryLoad, StorageCost};

use crate::output::money::{count, decimal_bytes, digits, dollars, time};

/// Hours of a month.
const MONTH_HOURS: f64 = 730.0;

/// Returns the verdict in one word.
pub(crate) fn choice(costs: &Costs) -> &'static str {
    match costs.best() {
        Some(_) => "reuse",
        None => "recompute",
    }
}

/// Says why, a sentence or two for each point.
pub(crate) fn reasons(work: &BlockWork, load: &QueryLoad, costs: &Costs) -> Vec<String> {
    match costs.best() {
        Some(best) => for_reuse(best, load, costs),
        None => for_recompute(work, load, costs),
    }
}

fn for_reuse(best: &StorageCost, load: &QueryLoad, costs: &Costs) -> Vec<String> {
    let mut said = vec![
        format!(
            "At {} queries a second, {} costs {} a month, recomputing {}: {} times as much.",
            digits(load.queries_per_second),
            best.storage.name,
            dollars(best.dollars_a_month),
            dollars(costs.recompute.dollars_a_month),
            digits(costs.recompute.dollars_a_month / best.dollars_a_month)
        ),
        format!(
            "A query takes {} on one device in place of {}.",
            time(best.seconds_a_query),
            time(costs.recompute.device_seconds_a_query)
        ),
    ];
    if let Some(months) = best.build_pays_after_months {
        said.push(format!(
            "The build costs {} once, which is saved after {}.",
            dollars(costs.build_dollars),
            time(months * MONTH_HOURS * 3600.0)
        ));
    }
    if let Some(rate) = best.queries_per_second_break_even {
        said.push(format!(
            "Do not store the blocks if you expect less than {} queries a second: recomputing is \
             cheaper then.",
            digits(rate)
        ));
    }
    said
}

fn for_recompute(work: &BlockWork, load: &QueryLoad, costs: &Costs) -> Vec<String> {
    let mut said: Vec<String> = costs
        .storages
        .iter()
        .map(|cost| match cost.is_faster() {
            false => too_slow(cost, work),
            true => too_dear(cost, load, costs),
        })
        .collect();
    let faster = costs.storages.iter().filter(|cost| cost.is_faster());
    if let Some(fastest) = faster.max_by(|a, b| a.speedup.total_cmp(&b.speedup)) {
        said.push(format!(
            "If time counts more than money: from {} a query takes {} on one device in place of {}.",
            fastest.storage.name,
            time(fastest.seconds_a_query),
            time(costs.recompute.device_seconds_a_query)
        ));
    }
    said
}

fn too_slow(cost: &StorageCost, work: &BlockWork) -> String {
    if cost.load_seconds < work.recompute_seconds() {
        return format!(
            "{} is too far away: its first byte comes after {}, and a query of so few blocks is computed \
             sooner.",
            cost.storage.name,
            time(cost.storage.latency_seconds)
        );
    }
    format!(
        "{} is too slow: a block takes {} to load at {} a second, {} to compute. A device would have to \
         read {} a second.",
        cost.storage.name,
        time(cost.load_seconds),
        decimal_bytes(cost.storage.bytes_per_second),
        time(work.prefill_seconds),
        decimal_bytes(work.break_even_bytes_per_second())
    )
}

fn too_dear(cost: &StorageCost, load: &QueryLoad, costs: &Costs) -> String {
    let name = &cost.storage.name;
    let mut said = format!(
        "{name} costs {} a month at {} queries a second, recomputing {}.",
        dollars(cost.dollars_a_month),
        digits(load.queries_per_second),
        dollars(costs.recompute.dollars_a_month)
    );
    if cost.change_dollars_a_month > costs.recompute.dollars_a_month {
        said += &format!(
            " Computing what changes takes {} of it: the corpus changes too often.",
            dollars(cost.change_dollars_a_month)
        );
        return said;
    }
    match (cost.queries_per_second_break_even, cost.reads_a_month_break_even) {
        (Some(rate), Some(reads)) => {
            said += &format!(
                " It pays from {} queries a second on, or for those chunks alone that are read at least {} \
                 times a month; the average is {}.",
                digits(rate),
                count(reads),
                count(load.reads_a_month())
            );
        }
        _ => said += " A read costs more than it spares.",
    }
    said
}
