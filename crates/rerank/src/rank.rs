use std::ops::Range;

use hyperrag_kv::DocId;

/// A candidate document in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// Which candidate, counted as given.
    pub candidate: usize,
    /// The document's score: the best of its chunks'.
    pub score: f32,
    /// The chunk that gave it.
    pub chunk: u32,
}

/// Orders documents by the best score of their chunks; equal scores by document id.
///
/// `candidates` gives each document's id and where its chunks' scores stand. A chunk without a score
/// does not count, and neither does a document without a scored chunk.
#[must_use]
pub fn rank(candidates: &[(&DocId, Range<usize>)], scores: &[Option<f32>]) -> Vec<Ranked> {
    let mut ranked: Vec<Ranked> = candidates
        .iter()
        .enumerate()
        .filter_map(|(candidate, (_, chunks))| {
            let chunks = (0..).zip(&scores[chunks.clone()]);
            let chunks = chunks.filter_map(|(chunk, score)| Some((chunk, (*score)?)));
            // The first of equal chunks: `max_by` would take the last.
            let best = chunks
                .reduce(|best, next| if next.1.total_cmp(&best.1).is_gt() { next } else { best });
            best.map(|(chunk, score)| Ranked { candidate, score, chunk })
        })
        .collect();
    let id = |ranked: &Ranked| candidates[ranked.candidate].0;
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| id(a).cmp(id(b))));
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_chunk_counts_and_ties_go_by_id() {
        let ids = ["b", "a", "c"].map(|id| DocId::new(id).unwrap());
        let candidates = [(&ids[0], 0..2), (&ids[1], 2..3), (&ids[2], 3..6)];
        let order = |scores: &[Option<f32>]| -> Vec<_> {
            let ranked = rank(&candidates, scores);
            ranked.iter().map(|r| (r.candidate, r.score, r.chunk)).collect()
        };
        let mut scores = [-2.0, -1.0, -1.0, -3.0, -0.5, -0.5].map(Some);
        assert_eq!(order(&scores), [(2, -0.5, 1), (1, -1.0, 0), (0, -1.0, 1)]);
        (scores[2], scores[4]) = (None, None);
        assert_eq!(order(&scores), [(2, -0.5, 2), (0, -1.0, 1)], "chunks that were left out");
    }
}
