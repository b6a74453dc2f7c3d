//! A run and judgements in, the values of measures out, by query and on average.

use std::collections::{BTreeMap, HashMap};

use hyperrag_core::rank_order;
use serde::Serialize;

use crate::metric::measure::Measure;
use crate::metric::qrels::Qrels;
use crate::metric::run::{Run, RunHit};

/// Worth of a run by some judgements.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Evaluation {
    /// Queries that are judged: a mean is over all of them.
    pub queries: usize,
    /// Judged queries that the run does not have: they count 0.
    pub missing_queries: usize,
    /// Queries of the run that nobody judged: they are left out.
    pub unjudged_queries: usize,
    /// By the measure's name.
    pub metrics: BTreeMap<String, Metric>,
    /// By the query's id and the measure's name.
    pub per_query: BTreeMap<String, BTreeMap<String, f64>>,
}

/// One measure over all queries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// Arithmetic mean.
    pub mean: f64,
}

impl Evaluation {
    /// The values of one measure, by query id.
    #[must_use]
    pub fn values(&self, measure: &Measure) -> Vec<f64> {
        let name = measure.to_string();
        self.per_query.values().filter_map(|values| values.get(&name).copied()).collect()
    }
}

/// Evaluates a run as `trec_eval` does with all judged queries (`-c`): documents are in the order of
/// [`rank_order`], and ranks are not looked at.
#[must_use]
pub fn evaluate(run: &Run, qrels: &Qrels, measures: &[Measure]) -> Evaluation {
    let mut evaluation = Evaluation {
        unjudged_queries: run.queries().filter(|(query, _)| qrels.grades(query).is_none()).count(),
        ..Evaluation::default()
    };
    for (query, grades) in qrels.queries() {
        let hits = run.hits(query);
        evaluation.queries += 1;
        evaluation.missing_queries += usize::from(hits.is_none());
        let ranking = ranking(hits.unwrap_or_default(), grades);
        let judged: Vec<i32> = grades.values().copied().collect();
        let values = measures.iter().map(|m| (m.to_string(), m.value(&ranking, &judged)));
        evaluation.per_query.insert(query.to_owned(), values.collect());
    }
    for measure in measures {
        let sum: f64 = evaluation.values(measure).iter().sum();
        // A sum of nothing is -0.
        let mean = sum / evaluation.queries.max(1) as f64 + 0.0;
        evaluation.metrics.insert(measure.to_string(), Metric { mean });
    }
    evaluation
}

/// Grades of the documents, best first; `None` for one that nobody judged.
fn ranking(hits: &[RunHit], grades: &HashMap<String, i32>) -> Vec<Option<i32>> {
    let mut hits: Vec<&RunHit> = hits.iter().collect();
    hits.sort_unstable_by(|a, b| rank_order((a.score, &a.document), (b.score, &b.document)));
    hits.iter().map(|hit| grades.get(&hit.document).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_missing_and_unjudged_queries() {
        let run = "a Q0 x 1 1.0 t\na Q0 y 2 1.0 t\nc Q0 x 1 1 t\n";
        let run = Run::parse(run.as_bytes(), "run").unwrap();
        let qrels = Qrels::parse("a 0 y 1\nb 0 x 1\n".as_bytes(), "qrels").unwrap();
        let measures = ["RR".parse::<Measure>().unwrap()];
        let evaluation = evaluate(&run, &qrels, &measures);
        assert_eq!((evaluation.queries, evaluation.missing_queries), (2, 1));
        assert_eq!(evaluation.unjudged_queries, 1);
        assert_eq!(evaluation.values(&measures[0]), [1.0, 0.0], "y is before x");
        assert_eq!(evaluation.metrics["RR"].mean, 0.5);
    }

    #[test]
    fn scores_that_are_equal_in_single_precision_tie() {
        let run = "a Q0 x 1 1.00000000001 t\na Q0 y 2 1.0 t\n";
        let run = Run::parse(run.as_bytes(), "run").unwrap();
        let qrels = Qrels::parse("a 0 y 1\n".as_bytes(), "qrels").unwrap();
        assert_eq!(evaluate(&run, &qrels, &["RR".parse().unwrap()]).metrics["RR"].mean, 1.0);
    }
}
