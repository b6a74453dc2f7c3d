//! Queries with their candidates, reranked one by one or together.

use std::ops::Range;
use std::time::Instant;

use hyperrag_core::{
    BlockKey, ChunkId, Document, Failover, LanguageModel, ModelError, QueryTokens, Slot, Tokenize,
};
use hyperrag_rerank::{Candidate, RankedCandidate, RerankError, ScoreRequest, ScoredBlocks, Work};
use hyperrag_retrieval::{Hit, Retrieved};

use crate::error::EngineError;
use crate::search::candidates::Candidates;
use crate::search::session::{BlockPolicy, Query, RankedHit, SearchResult, Session, Stats};

/// Documents of candidates, or why they cannot be read.
type ReadDocuments = Result<Vec<Document>, EngineError>;

/// A query with its candidates.
pub struct RerankRequest {
    pub(super) query: Query,
    pub(super) tokens: QueryTokens,
    pub(super) hits: Vec<Hit>,
    /// The retriever's scores of the hits.
    pub(super) retriever_scores: Vec<f64>,
    /// Candidates that the store does not have.
    pub(super) missing: Vec<String>,
    /// Words by which the hits were found, where no document has a word of the query.
    pub(super) near_words: Vec<String>,
    /// The blocks of all hits, and which are whose.
    pub(super) keys: Vec<BlockKey>,
    pub(super) ranges: Vec<Range<usize>>,
    pub(super) retrieve_seconds: f64,
    /// Readings of replicas by the retrieval; the first query has those of the store's opening, too.
    pub(super) failovers: Vec<Failover>,
}

impl RerankRequest {
    /// Positions that go through the decoder to score it from stored blocks.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.keys.len() * self.tokens.suffix.computed().len()
    }

    fn score_request(&self) -> ScoreRequest<'_> {
        ScoreRequest { query: &self.tokens.suffix, keys: &self.keys }
    }
}

impl<M: LanguageModel, T: Tokenize> Session<'_, M, T> {
    /// Makes the request for the best `depth` documents by BM25, of which none is `excluded`.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn request(
        &self,
        query: &Query,
        depth: usize,
        excluded: Option<&str>,
    ) -> Result<RerankRequest, EngineError> {
        let start = Instant::now();
        let spare = usize::from(excluded.is_some());
        let Retrieved { mut hits, near_words } =
            self.retrieve(query, depth.saturating_add(spare))?;
        hits.retain(|hit| Some(hit.id.as_str()) != excluded);
        hits.truncate(depth);
        let retrieve_seconds = start.elapsed().as_secs_f64();
        let request = self.request_for(query, hits.into())?;
        Ok(RerankRequest { retrieve_seconds, near_words, ..request })
    }

    /// Makes the request for these candidates.
    ///
    /// # Errors
    /// [`EngineError::EmptyQuery`] for a query without a word.
    pub fn request_for(
        &self,
        query: &Query,
        candidates: Candidates,
    ) -> Result<RerankRequest, EngineError> {
        let tokens = self.query_tokens(query)?;
        let Candidates { hits, scores: retriever_scores, missing } = candidates;
        let (keys, ranges) = keys(&hits);
        Ok(RerankRequest {
            query: query.clone(),
            tokens,
            hits,
            retriever_scores,
            missing,
            near_words: Vec::new(),
            keys,
            ranges,
            retrieve_seconds: 0.0,
            failovers: self.take_failovers(),
        })
    }

    /// Returns how many [`RerankRequest::rows`] the model computes best together.
    #[must_use]
    pub fn rows_together(&self) -> usize {
        self.model.score_rows()
    }

    /// Reranks the candidates.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn rerank(
        &self,
        mut request: RerankRequest,
        policy: BlockPolicy,
    ) -> Result<SearchResult, EngineError> {
        let start = Instant::now();
        let scored = self.score_request(&mut request, policy);
        let scored = scored.map_err(|error| self.query_too_long(error, &request.tokens))?;
        self.result(request, scored, start.elapsed().as_secs_f64())
    }

    fn score_request(
        &self,
        request: &mut RerankRequest,
        policy: BlockPolicy,
    ) -> Result<ScoredBlocks, EngineError> {
        match (&self.query_first, policy) {
            (Some(profile), BlockPolicy::Recompute) => {
                let documents = self.documents(&request.hits)?;
                let (own, scored) = self.score_texts(profile, &request.tokens, &documents)?;
                request.ranges = own;
                Ok(scored)
            }
            _ => {
                let scored = self.score_requests(&[request.score_request()], policy)?;
                scored.into_iter().next().unwrap_or_else(|| Ok(ScoredBlocks::default()))
            }
        }
    }

    /// Says how long query and chunks are, where the model has no room for both.
    pub(super) fn query_too_long(&self, error: EngineError, tokens: &QueryTokens) -> EngineError {
        let max = match &error {
            EngineError::Model(ModelError::TooLong { max, .. })
            | EngineError::Rerank(RerankError::Model(ModelError::TooLong { max, .. })) => *max,
            _ => return error,
        };
        let query_tokens = tokens.lead.len() + tokens.suffix.tokens.len();
        let chunk_tokens = self.store.manifest().fingerprint.chunk_tokens as usize;
        EngineError::QueryTooLong { query_tokens, chunk_tokens, max }
    }

    /// Reranks the candidates of several queries, which share the model's passes. Each query has the
    /// scores that it has by itself, and a share of the time by its rows.
    pub fn rerank_together(
        &self,
        requests: Vec<RerankRequest>,
        policy: BlockPolicy,
    ) -> Vec<Result<SearchResult, EngineError>> {
        let one_by_one = |requests: Vec<RerankRequest>| {
            requests.into_iter().map(|request| self.rerank(request, policy)).collect()
        };
        if requests.len() < 2 || self.query_first.is_some() {
            return one_by_one(requests);
        }
        let start = Instant::now();
        let together: Vec<_> = requests.iter().map(RerankRequest::score_request).collect();
        let scored = self.score_requests(&together, policy);
        // The model refuses one, and does not say which.
        let Ok(scored) = scored else { return one_by_one(requests) };
        let rows: usize = requests.iter().map(RerankRequest::rows).sum();
        let row_seconds = start.elapsed().as_secs_f64() / rows.max(1) as f64;
        let result = |(request, scored): (RerankRequest, Result<ScoredBlocks, EngineError>)| {
            let seconds = row_seconds * request.rows() as f64;
            self.result(request, scored?, seconds)
        };
        requests.into_iter().zip(scored).map(result).collect()
    }

    /// Ranks the candidates, and reads the titles and texts of the best.
    fn result(
        &self,
        request: RerankRequest,
        scored: ScoredBlocks,
        rerank_seconds: f64,
    ) -> Result<SearchResult, EngineError> {
        let documents = |hits: &[Hit], best: &[usize]| {
            let best: Vec<Hit> = best.iter().map(|candidate| hits[*candidate].clone()).collect();
            self.documents(&best)
        };
        self.result_with(request, scored, rerank_seconds, &documents)
    }

    /// Ranks the candidates like [`Session::result`]; `documents` reads those of candidates by number.
    pub(super) fn result_with(
        &self,
        request: RerankRequest,
        scored: ScoredBlocks,
        rerank_seconds: f64,
        documents: &dyn Fn(&[Hit], &[usize]) -> ReadDocuments,
    ) -> Result<SearchResult, EngineError> {
        let RerankRequest { query, hits, retriever_scores, missing, near_words, ranges, .. } =
            request;
        let (mut retrieve_seconds, mut failovers) = (request.retrieve_seconds, request.failovers);
        let ScoredBlocks { scores, work } = scored;
        let candidates = hits.iter().zip(ranges).zip(&retriever_scores);
        let candidates = candidates.map(|((hit, chunks), score)| Candidate {
            id: &hit.id,
            chunks,
            retriever_score: *score,
        });
        let mut ranked = self.ranking.rank(&candidates.collect::<Vec<_>>(), &scores);
        ranked.truncate(self.hits_max);

        let start = Instant::now();
        let best: Vec<usize> = ranked.iter().map(|ranked| ranked.candidate).collect();
        let bare = |candidate: &usize| {
            let id = hits[*candidate].id.clone();
            Document { id, title: String::new(), text: String::new() }
        };
        let documents = match self.with_texts {
            true => documents(&hits, &best)?,
            false => best.iter().map(bare).collect(),
        };
        retrieve_seconds += start.elapsed().as_secs_f64();

        let Work { blocks_read, bytes_read, tokens_computed, blocks_computed, .. } = work;
        let (damages, of_blocks) = (work.damages, work.failovers);
        failovers.extend(of_blocks);
        failovers.extend(self.take_failovers());
        let skipped = damages.iter().filter(|damage| damage.skipped).count();
        let stats = Stats {
            candidates: hits.len(),
            blocks_read,
            bytes_read,
            tokens_computed,
            blocks_computed,
            blocks_recomputed: damages.len() - skipped,
            blocks_skipped: skipped,
            failovers: failovers.len(),
            retrieve_seconds,
            rerank_seconds,
        };
        let of_rank =
            |(rank, (ranked, document)): (usize, (RankedCandidate, Document))| RankedHit {
                rank,
                id: document.id.as_str().to_owned(),
                score: ranked.score,
                model_score: ranked.model_score,
                title: document.title,
                chunk: ranked.chunk,
                retriever_score: retriever_scores[ranked.candidate],
                text: document.text,
            };
        let hits = (1..).zip(ranked.into_iter().zip(documents)).map(of_rank).collect();
        let Query { id: query_id, text: query } = query;
        Ok(SearchResult { query_id, query, hits, missing, near_words, stats, damages, failovers })
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
            chunk: ChunkId { document: hit.id.clone(), ordinal },
        }));
        ranges.push(first..keys.len());
    }
    (keys, ranges)
}
