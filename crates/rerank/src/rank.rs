//! Orders documents by the scores of their chunks.
//!
//! In: candidates, and a score for each chunk. Out: ranks. It does not know where scores come from.

use std::ops::Range;

use hyperrag_core::{DocId, rank_order};

use crate::fuse::Fusion;

/// A candidate document.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// The document.
    pub id: &'a DocId,
    /// Range of its chunks in the list of scores.
    pub chunks: Range<usize>,
    /// The retriever's score.
    pub retriever_score: f64,
}

/// A ranked document.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedCandidate {
    /// Index of the candidate in the input.
    pub candidate: usize,
    /// Score that decides the rank.
    pub score: f32,
    /// The model's score.
    pub model_score: f32,
    /// Number of the chunk with the best score, among those that count.
    pub chunk: u32,
}

/// Combination of the scores of a document's chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregate {
    /// Score of the best chunk.
    #[default]
    Max,
    /// Mean of the scores.
    Mean,
    /// Score of the first chunk that has one.
    First,
}

/// Rules by which scores become a ranking.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ranking {
    /// Combination of chunks into a document.
    pub aggregate: Aggregate,
    /// Combination of the model's score with the retriever's.
    pub fusion: Fusion,
}

impl Ranking {
    /// Orders documents as [`rank_order`] does: by score, equal ones by document id from high to low. Chunks
    /// without a score do not count, and documents without a scored chunk are left out. No score is `-0`.
    #[must_use]
    pub fn rank(
        self,
        candidates: &[Candidate<'_>],
        scores: &[Option<f32>],
    ) -> Vec<RankedCandidate> {
        let scored = candidates.iter().enumerate().filter_map(|(candidate, of)| {
            let chunks = (0..).zip(&scores[of.chunks.clone()]);
            let chunks = chunks.filter_map(|(chunk, score)| Some((chunk, (*score)?)));
            let (score, chunk) = self.aggregate.score(&chunks.collect::<Vec<_>>())?;
            // The sum with zero is 0 for -0, too.
            Some(RankedCandidate { candidate, score, model_score: score + 0.0, chunk })
        });
        let mut ranked: Vec<RankedCandidate> = scored.collect();
        let model: Vec<f32> = ranked.iter().map(|ranked| ranked.model_score).collect();
        let retriever: Vec<f64> =
            ranked.iter().map(|ranked| candidates[ranked.candidate].retriever_score).collect();
        let fused = self.fusion.scores(&model, &retriever);
        ranked.iter_mut().zip(fused).for_each(|(ranked, score)| ranked.score = score + 0.0);
        let place = |ranked: &RankedCandidate| {
            (f64::from(ranked.score), candidates[ranked.candidate].id.as_str())
        };
        ranked.sort_by(|a, b| rank_order(place(a), place(b)));
        ranked
    }
}

impl Aggregate {
    /// Returns the score of a document and its best chunk, from chunks with their scores.
    fn score(self, chunks: &[(u32, f32)]) -> Option<(f32, u32)> {
        let first = *chunks.first()?;
        // The first of equal chunks: `max_by` would take the last.
        let better = |best: (u32, f32), next: &(u32, f32)| {
            if next.1.total_cmp(&best.1).is_gt() { *next } else { best }
        };
        let best = chunks.iter().fold(first, better);
        Some(match self {
            Self::Max => (best.1, best.0),
            Self::First => (first.1, first.0),
            Self::Mean => {
                let sum: f64 = chunks.iter().map(|chunk| f64::from(chunk.1)).sum();
                ((sum / chunks.len() as f64) as f32, best.0)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(ranking: Ranking, scores: &[Option<f32>]) -> Vec<(usize, f32, u32)> {
        let ids = ["b", "a", "c"].map(|id| DocId::new(id).unwrap());
        let chunks = [0..2, 2..3, 3..6];
        let candidates: Vec<Candidate<'_>> = ids
            .iter()
            .zip(chunks)
            .zip([1.0, 3.0, 2.0])
            .map(|((id, chunks), retriever_score)| Candidate { id, chunks, retriever_score })
            .collect();
        let ranked = ranking.rank(&candidates, scores);
        ranked.iter().map(|r| (r.candidate, r.score, r.chunk)).collect()
    }

    #[test]
    fn the_best_chunk_counts_and_ties_go_by_id_from_high_to_low() {
        let mut scores = [-2.0, -1.0, -1.0, -3.0, -0.5, -0.5].map(Some);
        let ranking = Ranking::default();
        assert_eq!(order(ranking, &scores), [(2, -0.5, 1), (0, -1.0, 1), (1, -1.0, 0)]);
        (scores[2], scores[4]) = (None, None);
        assert_eq!(order(ranking, &scores), [(2, -0.5, 2), (0, -1.0, 1)], "chunks left out");
        let zeros = [None, Some(-0.0), Some(0.0), None, None, Some(-0.0)];
        let order = order(ranking, &zeros);
        assert_eq!(order.iter().map(|ranked| ranked.0).collect::<Vec<_>>(), [2, 0, 1], "c, b, a");
        assert!(order.iter().all(|ranked| ranked.1.is_sign_positive()), "{order:?}");
    }

    #[test]
    fn mean_and_first_count_what_is_there() {
        let mut scores = [-2.0, -1.0, -1.0, -3.0, -0.5, -1.0].map(Some);
        let with = |aggregate| Ranking { aggregate, ..Ranking::default() };
        let (mean, first) = (with(Aggregate::Mean), with(Aggregate::First));
        assert_eq!(order(mean, &scores), [(1, -1.0, 0), (2, -1.5, 1), (0, -1.5, 1)]);
        assert_eq!(order(first, &scores), [(1, -1.0, 0), (0, -2.0, 0), (2, -3.0, 0)]);
        scores[3] = None;
        assert_eq!(order(mean, &scores)[0], (2, -0.75, 1));
        assert_eq!(order(first, &scores)[0], (2, -0.5, 1));
    }

    #[test]
    fn the_retriever_may_decide() {
        let scores = [None, Some(-1.0), Some(-1.1), None, None, Some(-1.2)];
        let with = |fusion| Ranking { fusion, ..Ranking::default() };
        let places = |fusion| -> Vec<usize> {
            order(with(fusion), &scores).iter().map(|ranked| ranked.0).collect()
        };
        assert_eq!(places(Fusion::None), [0, 1, 2]);
        assert_eq!(places(Fusion::ZScore { weight: 0.0 }), [1, 2, 0]);
        assert_eq!(places(Fusion::ZScore { weight: 0.6 }), [1, 0, 2]);
        assert_eq!(places(Fusion::ReciprocalRank), [1, 0, 2]);
    }
}
