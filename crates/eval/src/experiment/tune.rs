//! The weight of a fusion, chosen on one half of the queries and reported on the other.

use hyperrag_rerank::Fusion;
use serde::Serialize;

use crate::metric::evaluate::{Evaluation, Metric, evaluate};
use crate::metric::measure::Measure;
use crate::metric::qrels::Qrels;
use crate::metric::run::{Run, RunHit};
use crate::metric::significance::{PairedDifference, paired_difference};

/// Steps of the weight from 0 to 1.
const STEPS: u8 = 20;
/// The model's share where nothing was tuned; among weights of equal worth, the one nearest to it is
/// chosen.
pub const USUAL_WEIGHT: f32 = 0.6;

/// A query's candidates with both scores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoredQuery {
    /// The query's name.
    pub id: String,
    /// The candidates' ids.
    pub documents: Vec<String>,
    /// The model's scores.
    pub model: Vec<f32>,
    /// The retriever's scores.
    pub retriever: Vec<f32>,
}

/// A weight that one half of the queries chose, and what it is worth on the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fold {
    /// The weight.
    pub weight: f32,
    /// Queries that it is reported on.
    pub queries: usize,
    /// The mean there.
    pub mean: f64,
    /// The retriever's mean there.
    pub retriever: f64,
}

/// Result of tuning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tuning {
    /// Measure that was tuned for.
    pub measure: Measure,
    /// Judged queries.
    pub queries: usize,
    /// The best weight for all queries: the one to use.
    pub weight: f32,
    /// Means of all queries at every weight, from 0 (the retriever alone) to 1 (the model alone).
    pub curve: Vec<(f32, f64)>,
    /// Each half with the other's weight.
    pub folds: [Fold; 2],
    /// Mean of all queries, each with the weight that the other half chose.
    pub held_out: Metric,
    /// Difference from the retriever alone.
    pub against_retriever: PairedDifference,
    /// Difference from the model alone.
    pub against_model: PairedDifference,
}

/// Chooses the weight of [`Fusion::ZScore`] on one half of the queries and reports on the other, both
/// ways: a weight that is reported on the queries it was chosen by would look too good. Every second
/// query is of the same half. Judged queries without candidates count 0. `None` where fewer than two
/// queries are judged.
#[must_use]
pub fn tune(queries: &[ScoredQuery], qrels: &Qrels, measure: &Measure) -> Option<Tuning> {
    // By weight, then by query: all in the order of the ids.
    let values: Vec<Vec<f64>> = weights()
        .map(|weight| evaluated(queries, qrels, measure, weight).values(measure))
        .collect();
    let count = values.first()?.len();
    if count < 2 {
        return None;
    }
    let mean = |values: &[f64], half: Option<usize>| {
        let of = |i: &usize| half.is_none_or(|half| i % 2 == half);
        let part: Vec<f64> = (0..count).filter(of).map(|i| values[i]).collect();
        (part.iter().sum::<f64>() / part.len() as f64, part.len())
    };
    let best = |half: Option<usize>| {
        let worth = |i: &usize| mean(&values[*i], half).0;
        let near = |i: &usize| (weight(*i as u8) - USUAL_WEIGHT).abs();
        (0..values.len())
            .max_by(|a, b| worth(a).total_cmp(&worth(b)).then(near(b).total_cmp(&near(a))))
    };
    let chosen = [best(Some(0))?, best(Some(1))?];
    let fold = |half: usize| {
        let other = chosen[1 - half];
        let (mean_there, queries) = mean(&values[other], Some(half));
        let retriever = mean(&values[0], Some(half)).0;
        Fold { weight: weight(other as u8), queries, mean: mean_there, retriever }
    };
    let held_out: Vec<f64> = (0..count).map(|i| values[chosen[1 - i % 2]][i]).collect();
    Some(Tuning {
        measure: measure.clone(),
        queries: count,
        weight: weight(best(None)? as u8),
        curve: weights().zip(&values).map(|(w, values)| (w, mean(values, None).0)).collect(),
        folds: [fold(0), fold(1)],
        held_out: Metric { mean: mean(&held_out, None).0 },
        against_retriever: paired_difference(&values[0], &held_out),
        against_model: paired_difference(values.last()?, &held_out),
    })
}

fn weight(step: u8) -> f32 {
    f32::from(step) / f32::from(STEPS)
}

fn weights() -> impl Iterator<Item = f32> {
    (0..=STEPS).map(weight)
}

fn evaluated(queries: &[ScoredQuery], qrels: &Qrels, measure: &Measure, weight: f32) -> Evaluation {
    let fused = queries
        .iter()
        .map(|query| Fusion::ZScore { weight }.scores(&query.model, &query.retriever));
    evaluate(&run_of(queries, &fused.collect::<Vec<_>>()), qrels, std::slice::from_ref(measure))
}

/// The queries' documents with these scores.
pub(crate) fn run_of(queries: &[ScoredQuery], scores: &[Vec<f32>]) -> Run {
    let hits = queries.iter().zip(scores).map(|(query, scores)| {
        let hit = |(document, score): (&String, &f32)| RunHit {
            document: document.clone(),
            score: (*score).into(),
            line: 0,
        };
        (query.id.clone(), query.documents.iter().zip(scores).map(hit).collect())
    });
    hits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` queries in each of which the model, or else the retriever, has the relevant one first.
    fn queries(n: usize, model_is_right: impl Fn(usize) -> bool) -> (Vec<ScoredQuery>, Qrels) {
        let query = |i: usize| {
            let (right, wrong) = (vec![2.0, 1.0], vec![1.0, 2.0]);
            let (model, retriever) =
                if model_is_right(i) { (right, wrong) } else { (wrong, right) };
            let documents = vec!["a".to_owned(), "b".to_owned()];
            ScoredQuery { id: format!("q{i:03}"), documents, model, retriever }
        };
        let qrels: String = (0..n).map(|i| format!("q{i:03} 0 a 1\n")).collect();
        ((0..n).map(query).collect(), Qrels::parse(qrels.as_bytes(), "qrels").unwrap())
    }

    #[test]
    fn the_better_side_gets_the_weight() {
        let measure: Measure = "RR".parse().unwrap();
        let (all, qrels) = queries(20, |_| true);
        let tuning = tune(&all, &qrels, &measure).unwrap();
        assert_eq!((tuning.weight, tuning.queries), (0.6, 20), "the usual one of equals");
        assert_eq!(tuning.held_out.mean, 1.0);
        assert_eq!((tuning.curve[0], tuning.curve[20]), ((0.0, 0.5), (1.0, 1.0)));
        assert_eq!((tuning.against_retriever.wins, tuning.against_model.ties), (20, 20));
        let (none, qrels) = queries(20, |_| false);
        assert!(tune(&none, &qrels, &measure).unwrap().weight < 0.5);
    }

    #[test]
    fn a_half_is_reported_with_the_weight_of_the_other() {
        // The model is right for one half of the queries only.
        let (half, qrels) = queries(20, |i| i % 2 == 0);
        let tuning = tune(&half, &qrels, &"RR".parse().unwrap()).unwrap();
        assert_eq!(tuning.held_out.mean, 0.5, "each half's choice is wrong for the other");
        assert!(tuning.folds[0].weight < 0.5 && tuning.folds[1].weight > 0.5);
        assert_eq!((tuning.folds[0].mean, tuning.folds[0].retriever), (0.5, 0.5));
    }

    #[test]
    fn one_query_is_too_few() {
        let (one, qrels) = queries(1, |_| true);
        assert_eq!(tune(&one, &qrels, &"RR".parse().unwrap()), None);
    }
}
