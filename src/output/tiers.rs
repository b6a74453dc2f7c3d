//! Output on tiers: their work and their answers in, lines for people out.

use hyperrag_core::counted;
use hyperrag_engine::maintain::tiers::{Fact, TierReport};
use hyperrag_rerank::{PlanWork, TierShare};
use hyperrag_store::{TierWork, Tiered};
use serde_json::{Value, json};

use crate::output::table;
use crate::report;

/// Says on stderr what each tier gave since the store was opened, and how far blocks were divided.
pub(crate) fn explain(store: &Tiered, plan: &PlanWork) {
    store.tier_work().iter().for_each(|work| report::note(&described(work)));
    plan.tiers.iter().for_each(|share| report::note(&divided(store, share)));
    if let Some(rate) = plan.prefill_tokens_per_second {
        report::note(&format!("plan: the model computes {rate:.0} tokens a second"));
    }
}

/// Warns of far places from which nothing came, whose blocks were computed.
pub(crate) fn warn_of_silence(store: &Tiered, plan: &PlanWork) {
    for share in plan.tiers.iter().filter(|share| share.speed.is_none() && share.computed > 0) {
        report::warn(&format!(
            "{}: nothing came from it in time; {} computed in the stead of loading",
            store.place_name(share.place),
            counted(share.computed, "block")
        ));
    }
}

/// Returns the division of each far place's blocks since the store was opened.
pub(crate) fn plan_json(store: &Tiered, plan: &PlanWork) -> Value {
    let share = |share: &TierShare| {
        json!({
            "tier": store.place_name(share.place),
            "loaded": share.loaded,
            "loaded_bytes": share.loaded_bytes,
            "computed": share.computed,
            "reason": share.reason().to_string(),
            "latency_seconds": share.speed.map(|speed| speed.latency_seconds),
            "bytes_per_second": share.speed.map(|speed| speed.bytes_per_second),
            "prefill_tokens_per_second": plan.prefill_tokens_per_second,
        })
    };
    plan.tiers.iter().map(share).collect()
}

/// Describes the division of a far place's blocks into loaded and computed ones.
fn divided(store: &Tiered, share: &TierShare) -> String {
    let TierShare { place, loaded, loaded_bytes, computed, speed } = share;
    let speed = speed.map_or_else(String::new, |speed| {
        let (millis, rate) = (1e3 * speed.latency_seconds, speed.bytes_per_second as u64);
        format!(
            "; measured: {millis:.1} ms to the first byte, then {} a second",
            report::bytes(rate)
        )
    });
    format!(
        "plan: {}: {} loaded ({}), {computed} computed in the stead of loading ({}){speed}",
        store.place_name(*place),
        counted(*loaded, "block"),
        report::bytes(*loaded_bytes),
        share.reason(),
    )
}

/// Describes the work of a tier in a sentence.
pub(crate) fn described(work: &TierWork) -> String {
    let TierWork { tier, hits, misses, failures, bytes, refused, .. } = work;
    let millis = |seconds: f64| format!("{:.1} ms", 1e3 * seconds);
    let mut said = vec![format!("{} ({})", counted(*hits, "block"), report::bytes(*bytes))];
    said.push(format!("{misses} absent"));
    said.push(format!("{failures} failed"));
    if *refused > 0 {
        said.push(format!("{refused} not kept"));
    }
    if let Some((p50, p99)) = work.wait_p50_seconds.zip(work.wait_p99_seconds) {
        said.push(format!("a piece came after {} (p50), {} (p99)", millis(p50), millis(p99)));
    }
    if let Some((usual, longest)) = work.first_layer_seconds.zip(work.first_layer_longest_seconds) {
        let (usual, longest) = (millis(usual), millis(longest));
        said.push(format!("the first layer of a request after {usual} (p50), {longest} (longest)"));
        said.push(format!("threads waited {:.2} s for it", work.waited_seconds));
    }
    format!("{tier}: {}", said.join(", "))
}

/// Lays the reports on tiers out, one under the other.
pub(crate) fn tier_table(reports: &[TierReport]) -> String {
    let fields = reports.iter().flat_map(|report| {
        let mut fields = vec![("tier".to_owned(), report.tier.clone())];
        let mut add = |name: &str, value: String| fields.push((format!("  {name}"), value));
        if let Some(error) = &report.error {
            add("error", error.clone());
            return fields;
        }
        let absent = match report.blocks_absent {
            0 => String::new(),
            absent => format!(", {absent} absent"),
        };
        let asked = counted(report.blocks_asked, "block");
        add("intact", format!("{} of {asked}{absent}", report.blocks_intact));
        if let Some(seconds) = report.latency_seconds {
            add("latency", format!("{:.2} ms", 1e3 * seconds));
        }
        if let Some(rate) = report.bytes_per_second {
            add("rate", format!("{} a second", report::bytes(rate as u64)));
        }
        for (name, fact) in &report.facts {
            let value = match fact {
                Fact::Text(text) => text.clone(),
                Fact::Number(bytes) if name.ends_with("_bytes") => report::bytes(*bytes as u64),
                Fact::Number(number) => number.to_string(),
            };
            add(&name.replace('_', " "), value);
        }
        fields
    });
    table::fields(&fields.collect::<Vec<_>>())
}
