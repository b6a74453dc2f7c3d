//! `eval`: runs and judgements in, measures and comparisons out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use hyperrag_eval::metric::evaluate::{Evaluation, evaluate};
use hyperrag_eval::metric::significance::{PairedDifference, holm, paired_difference};
use hyperrag_eval::report::svg::gains_svg;
use hyperrag_eval::{Measure, Qrels};
use serde::Serialize;

use crate::cli::eval::EvalArgs;
use crate::error::Usage;
use crate::exit::Status;
use crate::input::judged::{read_qrels, read_run};
use crate::report;

/// By measure: a run's values less those of the run that it is compared with.
type Comparison = BTreeMap<String, Compared>;

/// A difference, with its p among those of all runs that are compared in this measure.
#[derive(Serialize)]
struct Compared {
    #[serde(flatten)]
    difference: PairedDifference,
    p_holm: f64,
}

/// Evaluation of the first run, which is most often the only one, and of the others.
#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    first: &'a Evaluation,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<&'a Evaluation>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    comparison: &'a Comparison,
    /// All runs, where there are several.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    runs: &'a [Evaluated],
}

/// A run, its values, and its comparison where it is compared.
#[derive(Serialize)]
struct Evaluated {
    /// Path of the file.
    run: String,
    #[serde(flatten)]
    evaluation: Evaluation,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    comparison: Comparison,
}

/// Evaluates runs, against another one if there is one.
pub(crate) fn eval(args: &EvalArgs, json: bool) -> Result<Status> {
    let Some(qrels) = &args.qrels else { bail!("name the judgements with --qrels") };
    let mut measures: Vec<Measure> = Vec::new();
    for measure in args.measures.iter().flat_map(|list| &list.0) {
        if !measures.contains(measure) {
            measures.push(measure.clone());
        }
    }
    let qrels = read_qrels(qrels, &measures)?;
    let evaluated = |path: &Path| evaluated(path, args, (&qrels, &measures));
    let mut runs = args.runs.iter().map(|path| evaluated(path)).collect::<Result<Vec<_>>>()?;
    let baseline = args.baseline.as_deref().map(evaluated).transpose()?;
    let compared = match (&baseline, &mut runs[..]) {
        (Some(baseline), runs) => compare(baseline, runs, &measures),
        (None, [first, others @ ..]) => compare(first, others, &measures),
        (None, []) => bail!("name a run with --run"),
    };
    if args.svg.is_some() && compared != 1 {
        let what =
            "--svg draws one run against another: name one with --run and one with --baseline";
        return Err(Usage(what.to_owned()).into());
    }
    let output = Output {
        first: &runs[0].evaluation,
        baseline: baseline.as_ref().map(|run| &run.evaluation),
        comparison: &runs[0].comparison,
        runs: if runs.len() > 1 { &runs } else { &[] },
    };
    let text = || table(&measures, args.per_query, &runs, baseline.as_ref());
    report::figures(&output, json, args.out.as_deref(), text)?;
    if let (Some(path), Some(measure)) = (&args.svg, measures.first()) {
        let last = runs.len() - 1;
        let reference = baseline.as_ref().unwrap_or(&runs[0]);
        write_svg(path, measure, &runs[last].evaluation, &reference.evaluation)?;
    }
    Ok(Status::Done)
}

/// Evaluates the run of a file, and tells the user what it lacks.
fn evaluated(
    path: &Path,
    args: &EvalArgs,
    (qrels, measures): (&Qrels, &[Measure]),
) -> Result<Evaluated> {
    let (mut run, name) = (read_run(path)?, path.display());
    let excluded = if args.exclude_self { run.exclude_self() } else { 0 };
    let evaluation = evaluate(&run, qrels, measures);
    let Evaluation { queries, missing_queries: missing, unjudged_queries: unjudged, .. } =
        evaluation;
    if excluded > 0 {
        report::note(&format!("{name}: {excluded} documents with their query's id were left out"));
    }
    if run.is_empty() {
        report::warn(&format!("{name}: the run is empty: all {queries} judged queries count 0"));
    } else if unjudged == run.len() {
        let own = run.queries().next().map_or("", |(query, _)| query);
        let judged = qrels.queries().next().map_or("", |(query, _)| query);
        report::warn(&format!(
            "{name}: none of its {unjudged} queries is judged, so all count 0: its first query is \
             {own:?}, the first judged one {judged:?}"
        ));
    } else {
        if missing > 0 {
            report::note(&format!(
                "{name}: {missing} of {queries} judged queries are not in the run: they count 0"
            ));
        }
        if unjudged > 0 {
            report::note(&format!(
                "{name}: {unjudged} queries of the run are not judged: they were left out"
            ));
        }
    }
    let run = name.to_string();
    Ok(Evaluated { run, evaluation, comparison: Comparison::new() })
}

/// Compares each run with the reference, and returns the number of runs.
fn compare(reference: &Evaluated, runs: &mut [Evaluated], measures: &[Measure]) -> usize {
    for measure in measures {
        let before = reference.evaluation.values(measure);
        let difference =
            |run: &Evaluated| paired_difference(&before, &run.evaluation.values(measure));
        let differences: Vec<PairedDifference> = runs.iter().map(difference).collect();
        let p: Vec<f64> = differences.iter().map(|difference| difference.p).collect();
        for ((run, difference), p_holm) in runs.iter_mut().zip(differences).zip(holm(&p)) {
            run.comparison.insert(measure.to_string(), Compared { difference, p_holm });
        }
    }
    runs.len()
}

fn write_svg(path: &Path, measure: &Measure, run: &Evaluation, before: &Evaluation) -> Result<()> {
    let values = run.values(measure).into_iter().zip(before.values(measure));
    let differences: Vec<(&str, f64)> =
        run.per_query.keys().map(String::as_str).zip(values.map(|(a, b)| a - b)).collect();
    let svg = gains_svg(&format!("{measure} against the baseline, by query"), &differences);
    fs::write(path, svg).with_context(|| format!("{}: cannot be written", path.display()))
}

fn table(
    measures: &[Measure],
    per_query: bool,
    runs: &[Evaluated],
    baseline: Option<&Evaluated>,
) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    let (several, compared) = (runs.len() > 1, runs.len() > 1 || baseline.is_some());
    let mut titles = vec!["measure"];
    titles.extend(several.then_some("run"));
    titles.push("mean");
    titles.extend(baseline.map(|_| "baseline"));
    if compared {
        titles.extend(["difference", "95 % interval", "p"]);
        titles.extend(several.then_some("p (Holm)"));
        titles.extend(["better", "same", "worse"]);
    }
    table.set_header(&titles);
    for name in measures.iter().map(ToString::to_string) {
        let mean = |run: &Evaluated| {
            let metric = run.evaluation.metrics.get(&name);
            metric.map_or_else(String::new, |metric| format!("{:.4}", metric.mean))
        };
        for run in runs {
            let mut row = vec![name.clone()];
            row.extend(several.then(|| run.run.clone()));
            row.push(mean(run));
            row.extend(baseline.map(mean));
            if let Some(Compared { difference, p_holm }) = run.comparison.get(&name) {
                let PairedDifference { mean, interval: [low, high], p, .. } = difference;
                row.extend([
                    format!("{mean:+.4}"),
                    format!("{low:+.4} to {high:+.4}"),
                    format!("{p:.4}"),
                ]);
                row.extend(several.then(|| format!("{p_holm:.4}")));
                let PairedDifference { wins, ties, losses, .. } = difference;
                row.extend([wins, ties, losses].map(|count| count.to_string()));
            }
            row.resize(titles.len(), String::new());
            table.add_row(row);
        }
    }
    for column in table.column_iter_mut().skip(if several { 2 } else { 1 }) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = table.to_string();
    if per_query {
        runs.iter().for_each(|run| lines(run, several, measures, &mut text));
    }
    text
}

/// Adds the values of every query.
fn lines(run: &Evaluated, several: bool, measures: &[Measure], text: &mut String) {
    let prefix = if several { format!("{}\t", run.run) } else { String::new() };
    for (query, values) in &run.evaluation.per_query {
        for name in measures.iter().map(ToString::to_string) {
            let value = values.get(&name).copied().unwrap_or_default();
            text.push_str(&format!("\n{prefix}{query}\t{name}\t{value:.4}"));
        }
    }
}
