//! BM25 scores of one segment's documents, and the best of all segments.
//!
//! In: a query's words, each with its postings. Out: places of documents. The scores of a document are
//! summed in the order of the query's words in every segment (tantivy's own union sums in another order
//! in each segment), so that a document has the same bits wherever it lies.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use tantivy::fieldnorm::FieldNormReader;
use tantivy::postings::{Postings, SegmentPostings};
use tantivy::query::Bm25Weight;
use tantivy::{DocId, DocSet, TERMINATED};

/// Number of documents scored at a time.
const WINDOW: usize = 4096;

/// Mark of a document without a word: no score is negative.
const UNTOUCHED: f32 = -1.0;

/// A word of the query in one segment.
pub(crate) struct Cursor<'a> {
    pub(crate) postings: SegmentPostings,
    pub(crate) weight: &'a Bm25Weight,
    /// Number of times the query has the word.
    pub(crate) repeats: f32,
}

/// Calls `found` for each document that has a word of the query, in the segment's order.
pub(crate) fn score_segment(
    cursors: &mut [Cursor<'_>],
    norms: &FieldNormReader,
    mut found: impl FnMut(DocId, f32),
) {
    let mut scores = vec![UNTOUCHED; WINDOW];
    loop {
        let start = cursors.iter().map(|cursor| cursor.postings.doc()).min().unwrap_or(TERMINATED);
        if start == TERMINATED {
            return;
        }
        for cursor in cursors.iter_mut() {
            loop {
                let doc = cursor.postings.doc();
                let offset = doc.wrapping_sub(start) as usize;
                if doc == TERMINATED || offset >= WINDOW {
                    break;
                }
                let term_count = cursor.postings.term_freq();
                let score = cursor.weight.score(norms.fieldnorm_id(doc), term_count);
                scores[offset] = scores[offset].max(0.0) + score * cursor.repeats;
                cursor.postings.advance();
            }
        }
        for (doc, score) in (start..).zip(&mut scores) {
            if *score != UNTOUCHED {
                found(doc, *score);
                *score = UNTOUCHED;
            }
        }
    }
}

/// A document that may be among the best.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Match {
    pub(crate) score: f32,
    pub(crate) row: u64,
    pub(crate) segment: usize,
    pub(crate) doc: DocId,
}

impl Match {
    /// Key of the order: greater is better; the segment does not matter.
    fn key(&self) -> (f32, Reverse<u64>) {
        (self.score, Reverse(self.row))
    }
}

impl Ord for Match {
    fn cmp(&self, other: &Self) -> Ordering {
        let (score, row) = self.key();
        let (other_score, other_row) = other.key();
        score.total_cmp(&other_score).then(row.cmp(&other_row))
    }
}

impl PartialOrd for Match {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Match {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Match {}

/// Keeps the `depth` best candidates, whatever the order in which they come.
pub(crate) struct Best {
    depth: usize,
    /// Heap with the worst candidate on top.
    heap: BinaryHeap<Reverse<Match>>,
}

impl Best {
    pub(crate) fn new(depth: usize) -> Self {
        Self { depth, heap: BinaryHeap::new() }
    }

    /// Whether a candidate of this score may get in. Saves reading its row.
    pub(crate) fn may_admit(&self, score: f32) -> bool {
        self.heap.len() < self.depth
            || self.heap.peek().is_some_and(|Reverse(worst)| score >= worst.score)
    }

    pub(crate) fn offer(&mut self, candidate: Match) {
        self.heap.push(Reverse(candidate));
        if self.heap.len() > self.depth {
            self.heap.pop();
        }
    }

    /// Returns the candidates, best first.
    pub(crate) fn into_ranking(self) -> Vec<Match> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(candidate)| candidate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_falls_on_the_greater_row() {
        let candidate = |score, row| Match { score, row, segment: 0, doc: 0 };
        let all = [candidate(1.0, 5), candidate(2.0, 9), candidate(1.0, 2), candidate(1.0, 7)];
        for rotation in 0..all.len() {
            let mut best = Best::new(3);
            for offset in 0..all.len() {
                let candidate = all[(rotation + offset) % all.len()];
                if best.may_admit(candidate.score) {
                    best.offer(candidate);
                }
            }
            let rows: Vec<u64> = best.into_ranking().iter().map(|c| c.row).collect();
            assert_eq!(rows, [9, 2, 5]);
        }
        let mut none = Best::new(0);
        none.offer(candidate(1.0, 1));
        assert!(none.into_ranking().is_empty());
    }
}
