//! `eval`: runs or answers and judgements in, measures out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use hyperrag_eval::metric::evaluate::{Evaluation, evaluate};
use hyperrag_eval::metric::qa::{exact_match, f1};
use hyperrag_eval::metric::significance::{PairedDifference, paired_difference};
use hyperrag_eval::report::svg::gains_svg;
use serde::Serialize;
use serde_json::Value;

use crate::cli::eval::{EvalArgs, EvalCommand, QaArgs};
use crate::exit::Status;
use crate::input::judged::{read_qrels, read_run};
use crate::input::queries;
use crate::output::table::{Fit, Table, fields};
use crate::report;

#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    run: &'a Evaluation,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<&'a Evaluation>,
    /// By measure: the run's values less the baseline's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    comparison: BTreeMap<String, PairedDifference>,
}

/// Evaluates a run, against another one if there is one.
pub(crate) fn eval(args: &EvalArgs, json: bool) -> Result<Status> {
    if let Some(EvalCommand::Qa(args)) = &args.command {
        return qa(args, json);
    }
    let (Some(run), Some(qrels)) = (&args.run, &args.qrels) else {
        bail!("name a run and its judgements with --run and --qrels");
    };
    let qrels = read_qrels(qrels)?;
    let evaluated = evaluate(&read_run(run)?, &qrels, &args.measures);
    let baseline = args.baseline.as_deref().map(read_run).transpose()?;
    let baseline = baseline.map(|run| evaluate(&run, &qrels, &args.measures));
    let comparison = baseline.iter().flat_map(|baseline| {
        args.measures.iter().map(|measure| {
            let (before, now) = (baseline.values(measure), evaluated.values(measure));
            (measure.to_string(), paired_difference(&before, &now))
        })
    });
    let comparison = comparison.collect();
    let output = Output { run: &evaluated, baseline: baseline.as_ref(), comparison };
    report::figures(&output, json, args.out.as_deref(), || table(args, &output))?;
    if let (Some(path), Some(baseline)) = (&args.svg, &baseline) {
        write_svg(path, args, &evaluated, baseline)?;
    }
    let Evaluation { queries, missing_queries, unjudged_queries, .. } = evaluated;
    if missing_queries > 0 {
        report::note(&format!(
            "{missing_queries} of {queries} judged queries are not in the run: they count 0"
        ));
    }
    if unjudged_queries > 0 {
        report::note(&format!(
            "{unjudged_queries} queries of the run are not judged: they were left out"
        ));
    }
    Ok(Status::Done)
}

fn write_svg(path: &Path, args: &EvalArgs, run: &Evaluation, baseline: &Evaluation) -> Result<()> {
    let Some(measure) = args.measures.first() else { return Ok(()) };
    let values = run.values(measure).into_iter().zip(baseline.values(measure));
    let differences: Vec<(&str, f64)> =
        run.per_query.keys().map(String::as_str).zip(values.map(|(a, b)| a - b)).collect();
    let svg = gains_svg(&format!("{measure} against the baseline, by query"), &differences);
    fs::write(path, svg).with_context(|| format!("{}: cannot be written", path.display()))
}

fn table(args: &EvalArgs, output: &Output<'_>) -> String {
    let compared = ["baseline", "difference", "95 % interval", "p", "better", "same", "worse"];
    let compared = compared.into_iter().filter(|_| output.baseline.is_some());
    let numbers = ["mean"].into_iter().chain(compared).map(|name| (name, Fit::Number));
    let mut table = Table::new([("measure", Fit::Name)].into_iter().chain(numbers));
    for name in args.measures.iter().map(ToString::to_string) {
        let mean = |evaluation: &Evaluation| {
            evaluation.metrics.get(&name).map_or_else(String::new, |m| format!("{:.4}", m.mean))
        };
        let mut row = vec![name.clone(), mean(output.run)];
        if let (Some(baseline), Some(compared)) = (output.baseline, output.comparison.get(&name)) {
            let PairedDifference { mean: difference, interval: [low, high], p, .. } = compared;
            row.extend([
                mean(baseline),
                format!("{difference:+.4}"),
                format!("{low:+.4} to {high:+.4}"),
                format!("{p:.4}"),
            ]);
            row.extend([compared.wins, compared.ties, compared.losses].map(|n| n.to_string()));
        }
        table.add(row);
    }
    let mut text = table.text();
    if args.per_query {
        for (query, values) in &output.run.per_query {
            for name in args.measures.iter().map(ToString::to_string) {
                let value = values.get(&name).copied().unwrap_or_default();
                text.push_str(&format!("\n{query}\t{name}\t{value:.4}"));
            }
        }
    }
    text
}

/// Worth of answers.
#[derive(Serialize)]
struct QaOutput {
    questions: usize,
    /// Questions without an answer: they count 0.
    unanswered: usize,
    metrics: BTreeMap<&'static str, f64>,
    per_query: BTreeMap<String, BTreeMap<&'static str, f64>>,
}

fn qa(args: &QaArgs, json: bool) -> Result<Status> {
    let answers = Answers::read(&args.answers)?;
    let mut output = QaOutput {
        questions: 0,
        unanswered: 0,
        metrics: BTreeMap::new(),
        per_query: BTreeMap::new(),
    };
    let (mut matches, mut overlaps, mut used) = (0.0, 0.0, HashSet::new());
    for (place, value) in queries::objects(&args.gold)? {
        let (key, answer) = answers.find(&value).with_context(|| place.clone())?;
        let right = right_answers(&value)
            .with_context(|| format!("{place}: it has no `answers`, a list of texts"))?;
        let (em, overlap) = match answer {
            Some((row, answer)) => {
                used.insert(*row);
                (exact_match(answer, &right), f1(answer, &right))
            }
            None => {
                output.unanswered += 1;
                (0.0, 0.0)
            }
        };
        (matches, overlaps) = (matches + em, overlaps + overlap);
        output.questions += 1;
        let values = BTreeMap::from([("EM", em), ("F1", overlap)]);
        ensure!(
            output.per_query.insert(key.clone(), values).is_none(),
            "{place}: the question {key:?} comes twice"
        );
    }
    ensure!(output.questions > 0, "{}: the file has no questions", args.gold.display());
    let count = output.questions as f64;
    output.metrics = BTreeMap::from([("EM", matches / count), ("F1", overlaps / count)]);
    report::figures(&output, json, None, || {
        let metrics = &output.metrics;
        fields(&[
            ("questions".to_owned(), output.questions.to_string()),
            ("EM".to_owned(), format!("{:.4}", metrics["EM"])),
            ("F1".to_owned(), format!("{:.4}", metrics["F1"])),
        ])
    })?;
    if output.unanswered > 0 {
        report::note(&format!("{} questions have no answer: they count 0", output.unanswered));
    }
    if used.len() < answers.count {
        let rest = answers.count - used.len();
        report::note(&format!("{rest} answers belong to no question: they were left out"));
    }
    Ok(Status::Done)
}

/// Answers with the number of their row.
struct Answers {
    count: usize,
    by_id: HashMap<String, (usize, String)>,
    /// `None` for a query with answers that differ.
    by_query: HashMap<String, Option<(usize, String)>>,
}

impl Answers {
    fn read(path: &Path) -> Result<Self> {
        let mut answers = Self { count: 0, by_id: HashMap::new(), by_query: HashMap::new() };
        for (place, value) in queries::objects(path)? {
            let (id, query) = (id(&value), value.get("query").and_then(Value::as_str));
            ensure!(
                id.is_some() || query.is_some(),
                "{place}: it has neither `query_id` nor `query`"
            );
            let answer = value.get("answer").and_then(Value::as_str);
            let answer = answer.with_context(|| format!("{place}: it has no `answer`"))?;
            let row = (answers.count, answer.to_owned());
            answers.count += 1;
            if let Some(query) = query {
                let kept = answers.by_query.entry(query.to_owned());
                let kept = kept.or_insert_with(|| Some(row.clone()));
                kept.take_if(|(_, kept)| kept != answer);
            }
            if let Some(id) = id {
                ensure!(
                    answers.by_id.insert(id.clone(), row).is_none(),
                    "{place}: the question {id:?} is answered twice"
                );
            }
        }
        Ok(answers)
    }

    /// Finds the name of a question, and its answer: by its id, else by its text.
    fn find(&self, question: &Value) -> Result<(String, Option<&(usize, String)>)> {
        if let Some(id) = id(question) {
            let answer = self.by_id.get(&id);
            return Ok((id, answer));
        }
        let text = question.get("question").and_then(Value::as_str);
        let text = text.context("it has neither `_id` nor `question`")?.to_owned();
        let answer = match self.by_query.get(&text) {
            Some(None) => bail!("two answers to {text:?} differ: give the questions their ids"),
            Some(answer) => answer.as_ref(),
            None => None,
        };
        Ok((text, answer))
    }
}

/// At least one; `None` where there is no such list.
fn right_answers(question: &Value) -> Option<Vec<String>> {
    let answers = question.get("answers").and_then(Value::as_array)?;
    let answers: Option<Vec<String>> =
        answers.iter().map(|answer| answer.as_str().map(str::to_owned)).collect();
    answers.filter(|answers| !answers.is_empty())
}

fn id(value: &Value) -> Option<String> {
    ["query_id", "_id", "id"].iter().find_map(|key| match value.get(key) {
        Some(Value::String(id)) => Some(id.clone()),
        Some(Value::Number(id)) => Some(id.to_string()),
        _ => None,
    })
}
