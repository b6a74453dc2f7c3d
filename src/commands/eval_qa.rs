//! `eval qa`: answers and right ones in, exact match and F1 out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use hyperrag_core::{agreeing, counted};
use hyperrag_eval::metric::qa::{exact_match, f1};
use serde::Serialize;

use crate::cli::eval::QaArgs;
use crate::exit::Status;
use crate::input::gold::{Question, questions};
use crate::input::rows::{Row, json_rows};
use crate::output::table::fields;
use crate::report;

/// Worth of answers.
#[derive(Serialize)]
struct QaOutput {
    questions: usize,
    /// Questions without an answer: they count 0.
    unanswered: usize,
    metrics: BTreeMap<&'static str, f64>,
    per_query: BTreeMap<String, BTreeMap<&'static str, f64>>,
}

/// Evaluates answers.
pub(crate) fn eval_qa(args: &QaArgs, json: bool) -> Result<Status> {
    let answers = Answers::read(&args.answers)?;
    let mut output = QaOutput {
        questions: 0,
        unanswered: 0,
        metrics: BTreeMap::new(),
        per_query: BTreeMap::new(),
    };
    let (mut matches, mut overlaps, mut used) = (0.0, 0.0, HashSet::new());
    for question in questions(&args.gold)? {
        let Question { place, right, .. } = &question;
        let (key, answer) = answers.find(&question).with_context(|| place.clone())?;
        let (em, overlap) = match answer {
            Some((row, answer)) => {
                used.insert(*row);
                (exact_match(answer, right), f1(answer, right))
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
        let mean = |name: &str| (name.to_owned(), format!("{:.4}", metrics[name]));
        fields(&[("questions".to_owned(), output.questions.to_string()), mean("EM"), mean("F1")])
    })?;
    if output.unanswered > 0 {
        report::note(&format!(
            "{} {} no answer: {} 0",
            counted(output.unanswered, "question"),
            agreeing(output.unanswered, "has", "have"),
            agreeing(output.unanswered, "it counts", "they count")
        ));
    }
    if used.len() < answers.count {
        let rest = answers.count - used.len();
        report::note(&format!(
            "{} {} to no question and {} left out",
            counted(rest, "answer"),
            agreeing(rest, "belongs", "belong"),
            agreeing(rest, "was", "were")
        ));
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
        for (place, row) in json_rows::<Row>(path)? {
            let (id, query) = (row.id(), row.text("query"));
            ensure!(
                id.is_some() || query.is_some(),
                "{place}: it has neither `query_id` nor `query`"
            );
            let answer = match row.text("answer") {
                Some(answer) => answer,
                // A query that failed: its question has no answer.
                None if row.value("error").is_some() => continue,
                None => bail!("{place}: it has no `answer`"),
            };
            if let Some(query) = query {
                let kept = answers.by_query.entry(query);
                let kept = kept.or_insert_with(|| Some((answers.count, answer.clone())));
                kept.take_if(|(_, kept)| *kept != answer);
            }
            if let Some(id) = id {
                ensure!(
                    answers.by_id.insert(id.clone(), (answers.count, answer)).is_none(),
                    "{place}: the question {id:?} is answered twice"
                );
            }
            answers.count += 1;
        }
        Ok(answers)
    }

    /// Finds the name of a question, and its answer: by its id, else by its text.
    fn find(&self, question: &Question) -> Result<(String, Option<&(usize, String)>)> {
        if let Some(id) = &question.id {
            return Ok((id.clone(), self.by_id.get(id)));
        }
        let text = question.text.clone().context("it has neither `_id` nor `question`")?;
        let answer = match self.by_query.get(&text) {
            Some(None) => bail!("two answers to {text:?} differ: give the questions their ids"),
            Some(answer) => answer.as_ref(),
            None => None,
        };
        Ok((text, answer))
    }
}
