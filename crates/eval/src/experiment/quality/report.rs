//! Worth of rankings, and how far they agree with a reference.

use std::collections::BTreeMap;

use hyperrag_rerank::{Aggregate, Candidate, Fusion, Ranking};
use serde::Serialize;

use crate::experiment::quality::candidates::JudgedQuery;
use crate::experiment::tune::{ScoredQuery, USUAL_WEIGHT, run_of, tune};
use crate::metric::agreement::{Agreement, agreement};
use crate::metric::evaluate::evaluate;
use crate::metric::measure::Measure;
use crate::metric::qrels::Qrels;
use crate::metric::significance::{PairedDifference, paired_difference};
use crate::metric::stats::Summary;

/// Source of a ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// The retriever's scores alone.
    Retriever,
    /// The model's alone.
    Alone,
    /// Both as z-scores, with a weight that was set before.
    Fused,
    /// Both as z-scores, each half of the queries with the weight that is best for the other half.
    Tuned,
}

/// A mean over queries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Standard error of the mean.
    pub error: f64,
}

/// Agreement of a ranking with the reference's, by query.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreements {
    /// Kendall's tau.
    pub kendall_tau: Estimate,
    /// Overlap of the ten best.
    pub top10_overlap: Estimate,
    /// The largest difference of a document's scores; those of a fusion are z-scores.
    pub score_difference_max: f64,
}

/// A ranking of all queries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QualityRow {
    /// The variant; empty for the retriever.
    pub variant: String,
    /// Use of the scores.
    pub how: How,
    /// The model's share in the fusion, of the one half and of the other.
    pub weights: Option<[f32; 2]>,
    /// Worth of the ranking.
    pub mean: f64,
    /// Difference from the same ranking of the first variant.
    pub against_reference: Option<PairedDifference>,
    /// Difference from the retriever's ranking.
    pub against_retriever: Option<PairedDifference>,
    /// Agreement with the same ranking of the first variant.
    pub agreement: Option<Agreements>,
    /// By the query's id.
    pub per_query: BTreeMap<String, f64>,
}

/// The documents of each query with both scores, from the scores of their chunks. Documents without
/// a chunk are left out.
#[must_use]
pub fn scored_queries(
    judged: &[JudgedQuery],
    scores: &[Vec<Vec<f32>>],
    aggregate: Aggregate,
) -> Vec<ScoredQuery> {
    let ranking = Ranking { aggregate, ..Ranking::default() };
    let scored = judged.iter().zip(scores).map(|(JudgedQuery { query, candidates }, scores)| {
        let (mut all, mut parts) = (Vec::new(), Vec::new());
        for ((id, retriever_score), own) in candidates.iter().zip(scores) {
            let chunks = all.len()..all.len() + own.len();
            all.extend(own.iter().copied().map(Some));
            parts.push(Candidate { id, chunks, retriever_score: (*retriever_score).into() });
        }
        let mut ranked = ranking.rank(&parts, &all);
        ranked.sort_by_key(|ranked| ranked.candidate);
        let mut scored = ScoredQuery { id: query.id.clone(), ..ScoredQuery::default() };
        for ranked in ranked {
            let (id, retriever) = &candidates[ranked.candidate];
            scored.documents.push(id.as_str().to_owned());
            scored.model.push(ranked.model_score);
            scored.retriever.push(*retriever);
        }
        scored
    });
    scored.collect()
}

/// The scores that a ranking sorts by, query by query, and what it is worth, by query id.
struct Ranked {
    how: How,
    scores: Vec<Vec<f32>>,
    per_query: BTreeMap<String, f64>,
    weights: Option<[f32; 2]>,
}

impl Ranked {
    fn of(
        queries: &[ScoredQuery],
        (qrels, measure): (&Qrels, &Measure),
        (how, weights): (How, Option<[f32; 2]>),
        scores: Vec<Vec<f32>>,
    ) -> Self {
        let name = measure.to_string();
        let evaluated = evaluate(&run_of(queries, &scores), qrels, std::slice::from_ref(measure));
        let value = |(id, values): (String, BTreeMap<String, f64>)| Some((id, *values.get(&name)?));
        let per_query = evaluated.per_query.into_iter().filter_map(value).collect();
        Self { how, scores, per_query, weights }
    }

    fn values(&self) -> Vec<f64> {
        self.per_query.values().copied().collect()
    }

    fn row(&self, variant: &str, retriever: &[f64], references: &[Self]) -> QualityRow {
        let values = self.values();
        let reference = references.iter().find(|reference| reference.how == self.how);
        QualityRow {
            variant: variant.to_owned(),
            how: self.how,
            weights: self.weights,
            mean: values.iter().sum::<f64>() / values.len().max(1) as f64,
            against_reference: reference.map(|r| paired_difference(&r.values(), &values)),
            against_retriever: (self.how != How::Retriever)
                .then(|| paired_difference(retriever, &values)),
            agreement: reference.and_then(|reference| agreements(&reference.scores, &self.scores)),
            per_query: self.per_query.clone(),
        }
    }
}

/// The retriever's ranking, then three of each variant: the model alone, fused, and fused with a tuned
/// weight. The first variant is the reference. Every query must be judged and `qrels` judge no other
/// one; with fewer than two nothing is tuned.
#[must_use]
pub fn quality_rows(
    variants: &[(String, Vec<ScoredQuery>)],
    qrels: &Qrels,
    measure: &Measure,
) -> Vec<QualityRow> {
    let Some((_, first)) = variants.first() else { return Vec::new() };
    let judged = (qrels, measure);
    let retriever = first.iter().map(|query| query.retriever.clone()).collect();
    let retriever = Ranked::of(first, judged, (How::Retriever, None), retriever);
    let before = retriever.values();
    let mut rows = vec![retriever.row("", &before, &[])];
    let mut references = Vec::new();
    for (i, (name, queries)) in variants.iter().enumerate() {
        for (how, weights) in rankings(queries, judged) {
            let ranked = Ranked::of(queries, judged, (how, weights), scores(queries, weights));
            rows.push(ranked.row(name, &before, &references));
            if i == 0 {
                references.push(ranked);
            }
        }
    }
    rows
}

/// The rankings of a variant, with the weights of the even queries and of the odd ones.
fn rankings(
    queries: &[ScoredQuery],
    (qrels, measure): (&Qrels, &Measure),
) -> Vec<(How, Option<[f32; 2]>)> {
    let mut rankings = vec![(How::Alone, None), (How::Fused, Some([USUAL_WEIGHT; 2]))];
    let tuned = tune(queries, qrels, measure);
    rankings.extend(tuned.map(|t| (How::Tuned, Some(t.folds.map(|fold| fold.weight)))));
    rankings
}

/// Returns what the queries' documents are sorted by. The queries stand in the order of their ids, as they do
/// where the weights were tuned.
fn scores(queries: &[ScoredQuery], weights: Option<[f32; 2]>) -> Vec<Vec<f32>> {
    let fused = queries.iter().enumerate().map(|(i, query)| {
        let fusion = match weights {
            None => Fusion::None,
            Some(weights) => Fusion::ZScore { weight: weights[i % 2] },
        };
        fusion.scores(&query.model, &query.retriever)
    });
    fused.collect()
}

/// `None` where there is no query.
fn agreements(reference: &[Vec<f32>], scores: &[Vec<f32>]) -> Option<Agreements> {
    let all: Vec<Agreement> = reference.iter().zip(scores).map(|(a, b)| agreement(a, b)).collect();
    let estimate = |part: fn(&Agreement) -> f64| {
        let Summary { mean, stddev, samples, .. } =
            Summary::of(&all.iter().map(part).collect::<Vec<_>>())?;
        Some(Estimate { mean, error: stddev / (samples as f64).sqrt() })
    };
    Some(Agreements {
        kendall_tau: estimate(|a| a.kendall_tau)?,
        top10_overlap: estimate(|a| a.top10_overlap)?,
        score_difference_max: all.iter().map(|a| a.score_difference_max).fold(0.0, f64::max),
    })
}

#[cfg(test)]
mod tests {
    use hyperrag_core::DocId;

    use super::*;
    use hyperrag_engine::Query;

    fn judged(count: usize) -> Vec<JudgedQuery> {
        let candidates = |scores: [f32; 3]| {
            let ids = ["a", "b", "c"].map(|id| DocId::new(id).unwrap());
            ids.into_iter().zip(scores).collect()
        };
        let query = |i: usize| Query { id: format!("q{i:02}"), text: String::new() };
        (0..count)
            .map(|i| JudgedQuery { query: query(i), candidates: candidates([3.0, 2.0, 1.0]) })
            .collect()
    }

    fn qrels(count: usize) -> Qrels {
        let lines: String = (0..count).map(|i| format!("q{i:02} 0 b 1\n")).collect();
        Qrels::parse(lines.as_bytes(), "qrels").unwrap()
    }

    #[test]
    fn chunks_become_documents_and_those_without_are_left_out() {
        let scores = vec![vec![vec![-2.0, -1.0], Vec::new(), vec![-3.0]]];
        let scored = scored_queries(&judged(1), &scores, Aggregate::Max);
        assert_eq!(scored[0].documents, ["a", "c"]);
        assert_eq!(
            (&scored[0].model[..], &scored[0].retriever[..]),
            (&[-1.0, -3.0][..], &[3.0, 1.0][..])
        );
        assert_eq!(scored_queries(&judged(1), &scores, Aggregate::First)[0].model, [-2.0, -3.0]);
    }

    #[test]
    fn rankings_are_compared_by_hand() {
        // The reference has the right one first, the other variant what the retriever has.
        let variant = |name: &str, scores: [f32; 3]| {
            let scores = scores.map(|score| vec![score]).to_vec();
            let scored = scored_queries(&judged(6), &vec![scores; 6], Aggregate::Max);
            (name.to_owned(), scored)
        };
        let variants = [variant("f32", [1.0, 3.0, 2.0]), variant("int4", [30.0, 20.0, 10.0])];
        let rows = quality_rows(&variants, &qrels(6), &"RR".parse().unwrap());
        let found: Vec<(&str, How, f64)> =
            rows.iter().map(|row| (row.variant.as_str(), row.how, row.mean)).collect();
        assert_eq!(
            found[..3],
            [("", How::Retriever, 0.5), ("f32", How::Alone, 1.0), ("f32", How::Fused, 1.0)]
        );
        assert_eq!(found[4..6], [("int4", How::Alone, 0.5), ("int4", How::Fused, 0.5)]);
        assert_eq!(rows.len(), 7);
        let worse = rows[4].against_reference.unwrap();
        assert_eq!((worse.mean, worse.losses, worse.p), (-0.5, 6, 0.03125));
        assert_eq!(rows[4].against_retriever.unwrap().ties, 6);
        let agreement = rows[4].agreement.unwrap();
        assert_eq!((agreement.kendall_tau.mean, agreement.top10_overlap.mean), (-1.0 / 3.0, 1.0));
        assert_eq!(agreement.score_difference_max, 29.0);
        assert!(rows[1].agreement.is_none() && rows[3].how == How::Tuned);
        assert_eq!(rows[3].weights.unwrap(), [0.6; 2]);
        assert_eq!(rows[6].per_query.len(), 6);
        // One query cannot be halved.
        let one = [("f32".to_owned(), variants[0].1[..1].to_vec())];
        assert_eq!(quality_rows(&one, &qrels(1), &"RR".parse().unwrap()).len(), 3);
        assert!(quality_rows(&[], &qrels(1), &"RR".parse().unwrap()).is_empty());
    }
}
