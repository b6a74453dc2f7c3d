//! Several stores that answer as one. In: a session of each, queries. Out: results with the ids and scores of one
//! store over all documents. It knows no files.
//!
//! BM25's counts are summed before any store ranks, so a word weighs the same in each. Equal scores stand in the
//! order of the stores, as rows of one store would.

use std::time::Instant;

use hyperrag_core::{LanguageModel, Tokenize};
use hyperrag_rerank::{ScoreRequest, ScoredBlocks, Work};
use hyperrag_retrieval::Hit;

use crate::error::EngineError;
use crate::search::request::{RerankRequest, keys};
use crate::search::session::{BlockPolicy, Query, SearchResult, Session};

/// Stores open for queries as one. All have one fingerprint, as the caller has checked.
pub struct CollectionSession<'a, M, T> {
    members: Vec<Session<'a, M, T>>,
}

/// A candidate, and the number of its store.
struct Found {
    member: usize,
    hit: Hit,
}

impl<'a, M: LanguageModel, T: Tokenize> CollectionSession<'a, M, T> {
    /// Joins sessions, of which there is at least one. The first says how results are ranked.
    #[must_use]
    pub fn new(members: Vec<Session<'a, M, T>>) -> Self {
        assert!(!members.is_empty(), "a collection has a store");
        Self { members }
    }

    /// The sessions, in the order of the stores.
    #[must_use]
    pub fn members(&self) -> &[Session<'a, M, T>] {
        &self.members
    }

    /// Retrieves the best `depth` documents of all stores, and reranks them. Near words are not looked for.
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::OtherWords`] if the indexes cut the query into different words.
    pub fn search(
        &self,
        query: &Query,
        depth: usize,
        policy: BlockPolicy,
    ) -> Result<SearchResult, EngineError> {
        let start = Instant::now();
        let first = &self.members[0];
        let tokens = first.query_tokens(query)?;
        let found = self.retrieve(query, depth)?;
        let retrieve_seconds = start.elapsed().as_secs_f64();

        let hits: Vec<Hit> = found.iter().map(|found| found.hit.clone()).collect();
        let mut request = RerankRequest {
            query: query.clone(),
            retriever_scores: hits.iter().map(|hit| hit.score.into()).collect(),
            tokens,
            hits,
            missing: Vec::new(),
            near_words: Vec::new(),
            keys: Vec::new(),
            ranges: vec![0..0; found.len()],
            retrieve_seconds,
            failovers: self.members.iter().flat_map(Session::take_failovers).collect(),
        };
        let start = Instant::now();
        let scored = self.score(&mut request, &found, policy);
        let scored = scored.map_err(|error| first.query_too_long(error, &request.tokens))?;
        let documents = |_: &[Hit], best: &[usize]| {
            let read = |candidate: &usize| {
                let Found { member, hit } = &found[*candidate];
                self.members[*member].documents(std::slice::from_ref(hit))
            };
            let read: Result<Vec<_>, EngineError> = best.iter().map(read).collect();
            Ok(read?.into_iter().flatten().collect())
        };
        first.result_with(request, scored, start.elapsed().as_secs_f64(), &documents)
    }

    /// Returns the best documents of all stores, best first.
    fn retrieve(&self, query: &Query, depth: usize) -> Result<Vec<Found>, EngineError> {
        let (first, others) = self.members.split_first().expect("a collection has a store");
        let mut counts = first.word_counts(query)?;
        for member in others {
            if !counts.add(&member.word_counts(query)?) {
                return Err(EngineError::OtherWords);
            }
        }
        let mut found = Vec::new();
        for (number, member) in self.members.iter().enumerate() {
            let hits = member.retrieve_among(query, &counts, depth)?;
            found.extend(hits.into_iter().map(|hit| Found { member: number, hit }));
        }
        // Those of a store come in its order, and a stable sort keeps the order of stores.
        found.sort_by(|a, b| b.hit.score.total_cmp(&a.hit.score));
        found.truncate(depth);
        Ok(found)
    }

    /// Scores the blocks of the candidates in each store, and notes which scores are whose.
    fn score(
        &self,
        request: &mut RerankRequest,
        found: &[Found],
        policy: BlockPolicy,
    ) -> Result<ScoredBlocks, EngineError> {
        let mut all = ScoredBlocks::default();
        for (number, member) in self.members.iter().enumerate() {
            let own = found.iter().enumerate().filter(|(_, found)| found.member == number);
            let (places, hits): (Vec<usize>, Vec<Hit>) =
                own.map(|(place, found)| (place, found.hit.clone())).unzip();
            if hits.is_empty() {
                continue;
            }
            let (keys, ranges) = keys(&hits);
            let suffix = &request.tokens.suffix;
            let scored =
                member.score_requests(&[ScoreRequest { query: suffix, keys: &keys }], policy)?;
            let scored =
                scored.into_iter().next().unwrap_or_else(|| Ok(ScoredBlocks::default()))?;
            let before = all.scores.len();
            for (place, range) in places.into_iter().zip(ranges) {
                request.ranges[place] = before + range.start..before + range.end;
            }
            all.scores.extend(scored.scores);
            add(&mut all.work, scored.work);
        }
        Ok(all)
    }
}

fn add(all: &mut Work, more: Work) {
    let Work { blocks_read, bytes_read, tokens_computed, blocks_computed, damages, failovers } =
        more;
    all.blocks_read += blocks_read;
    all.bytes_read += bytes_read;
    all.tokens_computed += tokens_computed;
    all.blocks_computed += blocks_computed;
    all.damages.extend(damages);
    all.failovers.extend(failovers);
}
