//! `tune`: scored hits and judgements in, the weight of a fusion out.

use anyhow::{Context, Result};
use hyperrag_core::counted;
use hyperrag_eval::experiment::tune::{ScoredQuery, Tuning};
use hyperrag_eval::metric::significance::PairedDifference;
use serde_json::{Map, Value};

use crate::cli::eval::TuneArgs;
use crate::exit::Status;
use crate::input::judged::read_qrels;
use crate::input::rows::json_rows;
use crate::output::table::fields;
use crate::report;

/// Finds the weight for `--fuse zscore`.
pub(crate) fn tune(args: &TuneArgs, json: bool) -> Result<Status> {
    let qrels = read_qrels(&args.qrels, std::slice::from_ref(&args.measure))?;
    let answers = json_rows::<Map<String, Value>>(&args.hits)?;
    // A query that failed has a line, too.
    let answers = answers.iter().filter(|(_, value)| value.get("error").is_none());
    let scored = answers.map(|(place, value)| {
        scored(value).with_context(|| {
            format!("{place}: not a line of `hyperrag query --json`: it has no query_id, or a hit without id, model_score and retriever_score")
        })
    });
    let scored = scored.collect::<Result<Vec<_>>>()?;
    let tuning = hyperrag_eval::experiment::tune::tune(&scored, &qrels, &args.measure)
        .with_context(|| {
            format!(
                "{}: fewer than two queries are judged, which cannot be halved",
                args.qrels.display()
            )
        })?;
    report::figures(&tuning, json, None, || describe(&tuning))?;
    Ok(Status::Done)
}

fn scored(answer: &Map<String, Value>) -> Option<ScoredQuery> {
    let id = answer.get("query_id")?.as_str()?.to_owned();
    let mut query = ScoredQuery { id, ..ScoredQuery::default() };
    for hit in answer.get("hits")?.as_array()? {
        let number = |key: &str| Some((hit.get(key)?.as_f64()? as f32).clamp(f32::MIN, f32::MAX));
        query.documents.push(hit.get("id")?.as_str()?.to_owned());
        query.model.push(number("model_score")?);
        query.retriever.push(number("retriever_score")?);
    }
    Some(query)
}

fn describe(tuning: &Tuning) -> String {
    let Tuning { measure, queries, weight, curve, folds, held_out, .. } = tuning;
    let mean = |at: usize| format!("{:.4}", curve.get(at).map_or(0.0, |point| point.1));
    let queries = counted(*queries, "query");
    let mut lines = vec![
        ("use", format!("--fuse zscore --fuse-weight {weight} ({measure}, {queries})")),
        ("retriever alone", mean(0)),
        ("model alone", mean(curve.len() - 1)),
        ("fused, held out", format!("{:.4}", held_out.mean)),
    ];
    lines.extend(folds.iter().map(|fold| {
        let queries = counted(fold.queries, "query");
        let (weight, mean, retriever) = (fold.weight, fold.mean, fold.retriever);
        let half = format!(
            "{mean:.4} with the weight {weight} of the other half, {queries}; retriever {retriever:.4}"
        );
        ("one half", half)
    }));
    let against = |difference: &PairedDifference| {
        let PairedDifference { mean, interval: [low, high], p, wins, losses, .. } = difference;
        format!("{mean:+.4} ({low:+.4} to {high:+.4}), p {p:.4}, {wins} better, {losses} worse")
    };
    lines.push(("against the retriever", against(&tuning.against_retriever)));
    lines.push(("against the model", against(&tuning.against_model)));
    fields(&lines.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Vec<_>>())
}
