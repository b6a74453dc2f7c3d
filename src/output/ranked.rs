//! Output of ranked hits: a result in, a table, a JSON line or the lines of a run out.

use anyhow::Result;
use hyperrag_core::counted;
use hyperrag_engine::SearchResult;
use hyperrag_engine::search::session::RankedHit;
use hyperrag_eval::metric::run::{run_id, run_line};
use hyperrag_store::TierWork;
use serde_json::Value;

use crate::cli::query::Format;
use crate::output::table::{Fit, Table, is_tab_separated};
use crate::report;

/// Says how blanks of ids are written in a run.
pub(crate) const BLANKS: &str = "blanks in ids are written as %20 and the like, for they part the fields of a \
                      run; --json has the ids as they are";

/// Whether an id is not written as it is in a run.
pub(crate) fn has_blanks(result: &SearchResult) -> bool {
    let changes = |id: &str| run_id(id) != id;
    result.hits.iter().any(|hit| changes(&hit.id) || changes(&result.query_id))
}

/// Device and tiers that made a result, with the tiers' work since the store was opened.
pub(crate) struct Made<'a> {
    pub(crate) device: &'a str,
    pub(crate) tiers: Vec<TierWork>,
    /// Division of far blocks into loaded and computed ones.
    pub(crate) plan: Value,
}

/// Renders a result; `first` says whether it is the first of its output.
pub(crate) fn render(
    result: &SearchResult,
    made: &Made<'_>,
    format: Format,
    tag: &str,
    first: bool,
) -> Result<String> {
    Ok(match format {
        Format::Jsonl => {
            let mut value = serde_json::to_value(result)?;
            value["stats"]["device"] = made.device.into();
            if !made.tiers.is_empty() {
                value["stats"]["tiers"] = serde_json::to_value(&made.tiers)?;
            }
            if made.plan.as_array().is_some_and(|shares| !shares.is_empty()) {
                value["stats"]["plan"] = made.plan.clone();
            }
            value.to_string()
        }
        Format::Trec => {
            let line = |hit: &RankedHit| {
                let (query, document) = (run_id(&result.query_id), run_id(&hit.id));
                run_line(&query, &document, hit.rank, hit.score, tag)
            };
            result.hits.iter().map(line).collect::<Result<Vec<_>, _>>()?.join("\n")
        }
        Format::Text => text(result, first),
    })
}

/// Columns that a snippet may have at most.
const SNIPPET_COLUMNS: usize = 160;

/// Returns the hits as a table. In a pipe they are tab-separated, and each names its query.
fn text(result: &SearchResult, first: bool) -> String {
    let tab_separated = is_tab_separated();
    let names = [
        ("query", Fit::Name),
        ("score", Fit::Number),
        ("rank", Fit::Number),
        ("id", Fit::Name),
        ("title", Fit::Text),
        ("snippet", Fit::Text),
    ];
    let skipped = usize::from(!tab_separated);
    let mut table = Table::new(names.into_iter().skip(skipped));
    for hit in &result.hits {
        let cells = [
            result.query_id.clone(),
            // A small negative number is no -0.
            format!("{:.4}", hit.score).replace("-0.0000", "0.0000"),
            hit.rank.to_string(),
            hit.id.clone(),
            report::on_one_line(&hit.title, usize::MAX),
            report::snippet(&hit.text, &result.query, SNIPPET_COLUMNS),
        ];
        table.add(cells.into_iter().skip(skipped));
    }
    match (tab_separated, first) {
        (true, true) => return table.text(),
        (true, false) => return table.rows(),
        (false, _) => {}
    }
    let stats = &result.stats;
    format!(
        "{}\n{}\n{} in {:.2} s: {} computed, {} of KV read",
        result.query,
        table.text(),
        counted(stats.candidates, "candidate"),
        stats.retrieve_seconds + stats.rerank_seconds,
        counted(stats.tokens_computed, "token"),
        report::bytes(stats.bytes_read),
    )
}
