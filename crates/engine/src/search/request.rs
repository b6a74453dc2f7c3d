//! Queries with their candidates, reranked one by one or together.

use std::ops::Range;
use std::time::Instant;

use hyperrag_core::{BlockKey, ChunkId, Failover, LanguageModel, QuerySuffix, Slot, Tokenize};
use hyperrag_rerank::{Candidate, Request, Scored, Work};
use hyperrag_retrieval::Hit;

use crate::error::EngineError;
use crate::search::session::{Query, RankedHit, SearchResult, Session, Stats};

/// A query with its candidates.
pub struct RerankRequest {
    query: Query,
    part: QuerySuffix,
    hits: Vec<Hit>,
    /// The blocks of all hits, and which are whose.
    keys: Vec<BlockKey>,
    ranges: Vec<Range<usize>>,
    retrieve_seconds: f64,
    /// Readings of replicas by the retrieval; the first query has those of the store's opening, too.
    failovers: Vec<Failover>,
}

impl RerankRequest {
    /// Positions that go through the decoder to score it from stored blocks.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.keys.len() * self.part.computed().len()
    }

    fn request(&self) -> Request<'_> {
        Request { query: &self.part, keys: &self.keys }
    }
}

impl<M: LanguageModel, T: Tokenize> Session<'_, M, T> {
    /// The query with its best `depth` documents by BM25.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn ask(&self, query: &Query, depth: usize) -> Result<RerankRequest, EngineError> {
        let start = Instant::now();
        let hits = self.retrieve(query, depth)?;
        let retrieve_seconds = start.elapsed().as_secs_f64();
        Ok(RerankRequest { retrieve_seconds, ..self.ask_of(query, hits)? })
    }

    /// The query with these candidates.
    ///
    /// # Errors
    /// [`EngineError::EmptyQuery`] for one without a word.
    pub fn ask_of(&self, query: &Query, hits: Vec<Hit>) -> Result<RerankRequest, EngineError> {
        let part = self.query_part(query)?;
        let (keys, ranges) = keys(&hits);
        let (query, failovers) = (query.clone(), self.take_failovers());
        Ok(RerankRequest { query, part, hits, keys, ranges, retrieve_seconds: 0.0, failovers })
    }

    /// Returns how many [`RerankRequest::rows`] the model computes best together.
    #[must_use]
    pub fn rows_together(&self) -> usize {
        self.model.score_rows()
    }

    /// Reranks the candidates, from stored blocks or by computing each again.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn rerank(
        &self,
        mut asked: RerankRequest,
        recompute: bool,
    ) -> Result<SearchResult, EngineError> {
        let start = Instant::now();
        let scored = match &self.query_first {
            Some(profile) if recompute => {
                let (own, scored) = self.score_texts(profile, &asked.query, &asked.hits)?;
                asked.ranges = own;
                scored
            }
            _ => {
                let scored = self.score_requests(&[asked.request()], recompute)?;
                scored.into_iter().next().unwrap_or_else(|| Ok(Scored::default()))?
            }
        };
        Ok(self.ranked(asked, scored, start.elapsed().as_secs_f64()))
    }

    /// Reranks the candidates of several queries, which share the model's passes. Each query has the
    /// scores that it has by itself, and a share of the time by its rows.
    pub fn rerank_together(
        &self,
        asked: Vec<RerankRequest>,
        recompute: bool,
    ) -> Vec<Result<SearchResult, EngineError>> {
        let one_by_one = |asked: Vec<RerankRequest>| {
            asked.into_iter().map(|asked| self.rerank(asked, recompute)).collect()
        };
        if asked.len() < 2 || self.query_first.is_some() {
            return one_by_one(asked);
        }
        let start = Instant::now();
        let requests: Vec<_> = asked.iter().map(RerankRequest::request).collect();
        let scored = self.score_requests(&requests, recompute);
        // The model refuses one, and does not say which.
        let Ok(scored) = scored else { return one_by_one(asked) };
        let rows: usize = asked.iter().map(RerankRequest::rows).sum();
        let row_seconds = start.elapsed().as_secs_f64() / rows.max(1) as f64;
        let ranked = |(asked, scored): (RerankRequest, Result<Scored, EngineError>)| {
            let seconds = row_seconds * asked.rows() as f64;
            Ok(self.ranked(asked, scored?, seconds))
        };
        asked.into_iter().zip(scored).map(ranked).collect()
    }

    fn ranked(&self, asked: RerankRequest, scored: Scored, rerank_seconds: f64) -> SearchResult {
        let RerankRequest { query, hits, ranges, retrieve_seconds, mut failovers, .. } = asked;
        let Scored { scores, work } = scored;
        let candidates = hits.iter().zip(ranges).map(|(hit, chunks)| Candidate {
            id: &hit.document.id,
            chunks,
            retriever_score: hit.score,
        });
        let ranked = self.ranking.rank(&candidates.collect::<Vec<_>>(), &scores);
        let Work { blocks_read, bytes_read, tokens_computed, damages, failovers: of_blocks } = work;
        failovers.extend(of_blocks);
        let skipped = damages.iter().filter(|damage| damage.skipped).count();
        let stats = Stats {
            candidates: hits.len(),
            blocks_read,
            bytes_read,
            tokens_computed,
            blocks_recomputed: damages.len() - skipped,
            blocks_skipped: skipped,
            failovers: failovers.len(),
            retrieve_seconds,
            rerank_seconds,
        };
        let answered = (1..).zip(ranked).map(|(rank, ranked)| {
            let hit = &hits[ranked.candidate];
            RankedHit {
                rank,
                id: hit.document.id.as_str().to_owned(),
                score: ranked.score,
                model_score: ranked.model_score,
                title: hit.document.title.clone(),
                chunk: ranked.chunk,
                retriever_score: hit.score,
                text: hit.document.text.clone(),
            }
        });
        let hits = answered.collect();
        SearchResult { query_id: query.id, query: query.text, hits, stats, damages, failovers }
    }
}

/// Returns the blocks of all hits, and the range of each hit's in them.
#[must_use]
pub fn keys(hits: &[Hit]) -> (Vec<BlockKey>, Vec<Range<usize>>) {
    let (mut keys, mut ranges) = (Vec::new(), Vec::new());
    for hit in hits {
        let first = keys.len();
        keys.extend((0..hit.location.chunks).map(|ordinal| BlockKey {
            shard: hit.location.shard,
            slot: Slot(hit.location.first_slot.0 + ordinal),
            chunk: ChunkId { document: hit.document.id.clone(), ordinal },
        }));
        ranges.push(first..keys.len());
    }
    (keys, ranges)
}
