//! `eval`: runs and judgements in, measures and comparisons out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use hyperrag_eval::metric::evaluate::{Evaluation, evaluate};
use hyperrag_eval::metric::significance::{PairedDifference, holm, paired_difference};
use hyperrag_eval::report::svg::gains_svg;
use hyperrag_eval::{Measure, Qrels};
use serde::Serialize;

use crate::cli::eval::EvalArgs;
use crate::error::Usage;
use crate::exit::Status;
use crate::input::judged::{read_qrels, read_run};
use crate::output::table::{Fit, Table};
use crate::report;

/// Word in the place of a query's id for all of them, as trec_eval has it.
const ALL_QUERIES: &str = "all";

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

/// Lays out the figures: a row for each measure and run, after one for each query of them where `per_query`
/// is set.
fn table(
    measures: &[Measure],
    per_query: bool,
    runs: &[Evaluated],
    baseline: Option<&Evaluated>,
) -> String {
    let several = runs.len() > 1;
    let reference = baseline.or(runs.first().filter(|_| several));
    let columns = columns(per_query, several, baseline.is_some());
    let mut table = Table::new(columns.iter().copied());
    let names: Vec<String> = measures.iter().map(ToString::to_string).collect();
    let start = |name: &str, run: &Evaluated, query: &str| {
        let mut row = vec![name.to_owned()];
        row.extend(several.then(|| run.run.clone()));
        row.extend(per_query.then(|| query.to_owned()));
        row
    };
    let mut add = |mut row: Vec<String>| {
        row.resize(columns.len(), String::new());
        table.add(row);
    };
    let queries = runs.iter().filter(|_| per_query);
    let queries = queries.flat_map(|run| run.evaluation.per_query.keys().map(move |id| (run, id)));
    for (run, query) in queries {
        for name in &names {
            let value = |run: &Evaluated| {
                let values = run.evaluation.per_query.get(query);
                values.and_then(|values| values.get(name)).copied().unwrap_or_default()
            };
            let mut row = start(name, run, query);
            row.push(format!("{:.4}", value(run)));
            row.extend(baseline.map(|baseline| format!("{:.4}", value(baseline))));
            let others = reference.filter(|reference| !std::ptr::eq(*reference, run));
            row.extend(others.map(|other| format!("{:+.4}", value(run) - value(other))));
            add(row);
        }
    }
    for name in &names {
        for run in runs {
            let mut row = start(name, run, ALL_QUERIES);
            row.extend(mean_cells(name, run, baseline, several));
            add(row);
        }
    }
    table.text()
}

/// Names of the columns, and what becomes of their cells.
fn columns(per_query: bool, several: bool, has_baseline: bool) -> Vec<(&'static str, Fit)> {
    let mut columns = vec![("measure", Fit::Name)];
    columns.extend(several.then_some(("run", Fit::Path)));
    columns.extend(per_query.then_some(("query", Fit::Name)));
    let mut numbers = vec![if per_query { "value" } else { "mean" }];
    numbers.extend(has_baseline.then_some("baseline"));
    if several || has_baseline {
        numbers.extend(["difference", "95 % interval", "p"]);
        numbers.extend(several.then_some("p (Holm)"));
        numbers.extend(["better", "same", "worse"]);
    }
    columns.extend(numbers.into_iter().map(|name| (name, Fit::Number)));
    columns
}

/// The cells of a run's mean in the measure `name`, and of its comparison.
fn mean_cells(
    name: &str,
    run: &Evaluated,
    baseline: Option<&Evaluated>,
    several: bool,
) -> Vec<String> {
    let mean = |run: &Evaluated| {
        let metric = run.evaluation.metrics.get(name);
        metric.map_or_else(String::new, |metric| format!("{:.4}", metric.mean))
    };
    let mut cells = vec![mean(run)];
    cells.extend(baseline.map(mean));
    if let Some(Compared { difference, p_holm }) = run.comparison.get(name) {
        let PairedDifference { mean, interval: [low, high], p, wins, ties, losses } = difference;
        cells.extend([
            format!("{mean:+.4}"),
            format!("{low:+.4} to {high:+.4}"),
            format!("{p:.4}"),
        ]);
        cells.extend(several.then(|| format!("{p_holm:.4}")));
        cells.extend([wins, ties, losses].map(|count| count.to_string()));
    }
    cells
}
