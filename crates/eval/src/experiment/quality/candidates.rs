//! Candidates of judged queries: a corpus, queries and a run or an index come in, the documents to score go
//! out.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use hyperrag_core::{Digest, DocId, ShardId, Slot, rank_order};
use hyperrag_corpus::{Chunker, Corpus};
use hyperrag_engine::{EngineError, Query};
use hyperrag_retrieval::{Analyzer, Index, IndexWriter, Location};

use crate::metric::qrels::Qrels;
use crate::metric::run::{Run, RunHit};

/// A query and its candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedQuery {
    /// The query.
    pub query: Query,
    /// The candidates with the retriever's scores, in the retriever's order.
    pub candidates: Vec<(DocId, f32)>,
}

/// The judged queries, or `count` of them that `seed` draws. The same seed draws the same queries
/// from files in another order.
#[must_use]
pub fn draw_queries(
    mut queries: Vec<Query>,
    qrels: &Qrels,
    count: Option<usize>,
    seed: u64,
) -> Vec<Query> {
    queries.retain(|query| qrels.grades(&query.id).is_some());
    queries.sort_by_key(|query| draw_key(seed, &query.id));
    queries.truncate(count.unwrap_or(usize::MAX));
    queries.sort_by(|a, b| a.id.cmp(&b.id));
    queries
}

/// The place of a name in a seeded order.
pub(crate) fn draw_key(seed: u64, name: &str) -> [u8; 32] {
    Digest::of(format!("{seed} {name}").as_bytes()).0
}

/// The best `depth` documents of the corpus for each query by BM25, through an index that is made in
/// the empty `folder`: the same as a store's of this corpus and language.
///
/// # Errors
/// [`EngineError`].
pub fn retrieve_candidates(
    corpus: &Corpus,
    chunker: &Chunker<'_>,
    (folder, analyzer): (&Path, Analyzer),
    queries: Vec<Query>,
    depth: usize,
    stop: &AtomicBool,
) -> Result<Vec<JudgedQuery>, EngineError> {
    let mut writer = IndexWriter::open(folder, analyzer)?;
    for (number, row) in (0..).zip(corpus.rows()) {
        check(stop)?;
        let document = row?.document;
        // Where blocks would lie does not matter: there are none.
        let location = Location { shard: ShardId(0), first_slot: Slot(0), chunks: 0 };
        if !chunker.chunks(&document)?.is_empty() {
            writer.add(number, &document, location)?;
        }
    }
    writer.finish(1)?;
    let index = Index::open(folder)?;
    let judged = queries.into_iter().map(|query| {
        check(stop)?;
        let hits = index.retrieve(&query.text, depth, |_| true)?.hits;
        let candidates = hits.into_iter().map(|hit| (hit.id, hit.score)).collect();
        Ok(JudgedQuery { query, candidates })
    });
    judged.collect()
}

/// The best `depth` documents by the scores that a run gives each query, all of which the corpus must have.
///
/// # Errors
/// [`EngineError::NotInCorpus`] for one that it does not have.
pub fn listed_candidates(
    corpus: &Corpus,
    queries: Vec<Query>,
    run: &Run,
    depth: usize,
    stop: &AtomicBool,
) -> Result<Vec<JudgedQuery>, EngineError> {
    let missing = |query: &Query, document: &str| {
        let (query, document) = (query.id.clone(), document.to_owned());
        EngineError::NotInCorpus { query, document }
    };
    let mut judged = Vec::with_capacity(queries.len());
    for query in queries {
        let mut listed: Vec<&RunHit> = run.hits(&query.id).unwrap_or_default().iter().collect();
        listed.sort_by(|a, b| rank_order((a.score, &a.document), (b.score, &b.document)));
        let candidates = listed.into_iter().take(depth);
        let candidates = candidates.map(|hit| match DocId::new(&hit.document) {
            // A score may be beyond the largest float of 32 bits.
            Ok(id) => Ok((id, (hit.score as f32).clamp(f32::MIN, f32::MAX))),
            Err(_) => Err(missing(&query, &hit.document)),
        });
        let candidates = candidates.collect::<Result<_, _>>()?;
        judged.push(JudgedQuery { query, candidates });
    }
    let mut absent = candidate_ids(&judged);
    for row in corpus.rows() {
        check(stop)?;
        absent.remove(&row?.document.id);
    }
    for JudgedQuery { query, candidates } in &judged {
        if let Some((id, _)) = candidates.iter().find(|(id, _)| absent.contains(id)) {
            return Err(missing(query, id.as_str()));
        }
    }
    Ok(judged)
}

/// All documents that are a candidate of some query.
pub(crate) fn candidate_ids(judged: &[JudgedQuery]) -> HashSet<DocId> {
    judged.iter().flat_map(|query| &query.candidates).map(|(id, _)| id.clone()).collect()
}

pub(crate) fn check(stop: &AtomicBool) -> Result<(), EngineError> {
    match stop.load(Ordering::Relaxed) {
        true => Err(EngineError::Interrupted),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_drawn_by_their_names() {
        let qrels: String = (0..50).map(|i| format!("q{i} 0 d 1\n")).collect();
        let qrels = Qrels::parse(qrels.as_bytes(), "qrels").unwrap();
        let all: Vec<Query> =
            (0..60).map(|i| Query { id: format!("q{i}"), text: "x".to_owned() }).collect();
        let turned: Vec<Query> = all.iter().rev().cloned().collect();
        let ids = |queries: Vec<Query>| -> Vec<String> {
            queries.into_iter().map(|query| query.id).collect()
        };
        let drawn = ids(draw_queries(all.clone(), &qrels, Some(7), 1));
        assert_eq!(drawn.len(), 7);
        assert_eq!(drawn, ids(draw_queries(turned, &qrels, Some(7), 1)));
        assert_ne!(drawn, ids(draw_queries(all.clone(), &qrels, Some(7), 2)));
        assert_eq!(draw_queries(all, &qrels, None, 1).len(), 50, "the judged ones");
    }
}
