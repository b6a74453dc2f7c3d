//! The cost of quality: rankings of fewer candidates and of cheaper variants, and the knee.

use hyperrag_rerank::Fusion;
use serde::Serialize;

use crate::experiment::tune::{ScoredQuery, USUAL_WEIGHT, run_of};
use crate::metric::evaluate::evaluate;
use crate::metric::measure::Measure;
use crate::metric::qrels::Qrels;

/// Largest loss against the best measure at the knee: the sets at hand can hardly tell it apart.
const KNEE_LOSS: f64 = 0.005;

/// Cost of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Seconds that the model takes for all candidates of a query, their blocks in memory.
    pub seconds_a_query: f64,
    /// Bytes of a document's blocks.
    pub bytes_a_document: f64,
}

/// A ranking and its cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CostPoint {
    /// The variant.
    pub variant: String,
    /// Candidates of a query.
    pub depth: usize,
    /// Worth of its ranking, fused with the retriever's by the usual weight.
    pub mean: f64,
    /// Queries a second.
    pub queries_per_second: f64,
    /// Bytes of a document's blocks.
    pub bytes_a_document: f64,
}

/// For each variant, rankings of the first candidates alone, 5, 10, 20, 50 and so on up to `depth`.
#[must_use]
pub fn cost_points(
    variants: &[(String, Vec<ScoredQuery>, Cost)],
    depth: usize,
    qrels: &Qrels,
    measure: &Measure,
) -> Vec<CostPoint> {
    let mut points = Vec::new();
    for (variant, queries, cost) in variants {
        let candidates: usize = queries.iter().map(|query| query.documents.len()).sum();
        for depth in depths(depth) {
            let first: Vec<ScoredQuery> = queries.iter().map(|q| first(q, depth)).collect();
            let scored: usize = first.iter().map(|query| query.documents.len()).sum();
            let share = scored as f64 / candidates.max(1) as f64;
            points.push(CostPoint {
                variant: variant.clone(),
                depth,
                mean: fused_mean(&first, qrels, measure),
                queries_per_second: 1.0 / (cost.seconds_a_query * share).max(f64::MIN_POSITIVE),
                bytes_a_document: cost.bytes_a_document,
            });
        }
    }
    points
}

/// The fastest of the rankings that are within 0.005 of the best; of equally fast ones the smallest.
#[must_use]
pub fn knee(points: &[CostPoint]) -> Option<&CostPoint> {
    let best = points.iter().map(|point| point.mean).max_by(f64::total_cmp)?;
    let near = points.iter().filter(|point| point.mean >= best - KNEE_LOSS);
    near.max_by(|a, b| {
        let faster = a.queries_per_second.total_cmp(&b.queries_per_second);
        faster.then_with(|| b.bytes_a_document.total_cmp(&a.bytes_a_document))
    })
}

fn depths(depth: usize) -> Vec<usize> {
    let usual = (0..6).flat_map(|power| [1, 2, 5].map(|step| step * 10_usize.pow(power)));
    usual.filter(|usual| (5..depth).contains(usual)).chain([depth]).collect()
}

/// The query with its first `depth` candidates, which stand in the retriever's order.
fn first(query: &ScoredQuery, depth: usize) -> ScoredQuery {
    let mut first = query.clone();
    first.documents.truncate(depth);
    first.model.truncate(depth);
    first.retriever.truncate(depth);
    first
}

fn fused_mean(queries: &[ScoredQuery], qrels: &Qrels, measure: &Measure) -> f64 {
    let fusion = Fusion::ZScore { weight: USUAL_WEIGHT };
    let fused = queries.iter().map(|query| fusion.scores(&query.model, &query.retriever));
    let evaluated = evaluate(
        &run_of(queries, &fused.collect::<Vec<_>>()),
        qrels,
        std::slice::from_ref(measure),
    );
    let name = measure.to_string();
    let values: Vec<f64> =
        evaluated.per_query.values().filter_map(|v| v.get(&name)).copied().collect();
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten candidates, of which the seventh is right and the model's best.
    fn variant(
        name: &str,
        seconds_a_query: f64,
        bytes_a_document: f64,
    ) -> (String, Vec<ScoredQuery>, Cost) {
        let query = ScoredQuery {
            id: "q".to_owned(),
            documents: (0..10).map(|i| format!("d{i}")).collect(),
            model: (0..10).map(|i| if i == 6 { 100.0 } else { 0.0 }).collect(),
            retriever: (0..10).map(|i| 1.0 - 0.01 * i as f32).collect(),
        };
        (name.to_owned(), vec![query], Cost { seconds_a_query, bytes_a_document })
    }

    #[test]
    fn the_knee_is_the_fastest_that_is_good_enough() {
        let qrels = Qrels::parse(&b"q 0 d6 1\n"[..], "qrels").unwrap();
        let variants =
            [variant("bf16", 1.0, 100.0), variant("int8", 1.0, 50.0), variant("int4", 2.0, 25.0)];
        let points = cost_points(&variants, 10, &qrels, &"RR".parse().unwrap());
        let found: Vec<_> = points
            .iter()
            .map(|p| (p.variant.as_str(), p.depth, p.mean, p.queries_per_second))
            .collect();
        assert_eq!(found[..2], [("bf16", 5, 0.0, 2.0), ("bf16", 10, 1.0, 1.0)]);
        assert_eq!(found[5], ("int4", 10, 1.0, 0.5));
        let knee = knee(&points).unwrap();
        assert_eq!((knee.variant.as_str(), knee.depth), ("int8", 10));
        assert!(super::knee(&[]).is_none());
    }

    #[test]
    fn depths_end_with_the_one_asked_for() {
        assert_eq!(depths(20), [5, 10, 20]);
        assert_eq!(depths(3), [3]);
        assert_eq!(depths(100), [5, 10, 20, 50, 100]);
    }
}
