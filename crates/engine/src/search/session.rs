//! A store open for queries: queries in, candidates, scores and ranked hits out.

use hyperrag_core::{
    BlockKey, Chunk, ChunkRead, DocId, Document, Failover, LanguageModel, Profile, QueryTemplate,
    QueryTokens, Tokenize,
};
use hyperrag_rerank::{
    BlockSource, DamagedBlock, OnDamage, PlanWork, Planner, Ranking, RerankError, ScoreRequest,
    ScoredBlocks, score,
};
use hyperrag_retrieval::{Hit, Index, Retrieved, WordCounts};
use hyperrag_store::{LiveRows, Tiered};
use serde::Serialize;

use crate::error::EngineError;
use crate::search::retriever::Retriever;

/// Origin of the blocks that are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockPolicy {
    /// Stored blocks are loaded.
    #[default]
    Load,
    /// Stored blocks are loaded, but some of those that are far are computed where that is sooner.
    Auto,
    /// Every block is computed again from its token ids.
    Recompute,
}

/// One query of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Name of the query.
    pub id: String,
    /// Text of the query.
    pub text: String,
}

/// A store open for queries, with the model it was made with.
pub struct Session<'a, M, T> {
    pub(crate) model: &'a M,
    pub(crate) tokenizer: &'a T,
    pub(crate) template: QueryTemplate,
    /// The profile, if it has the query before the document.
    pub(crate) query_first: Option<Profile>,
    pub(crate) store: &'a Tiered,
    index: Retriever<'a>,
    live: LiveRows,
    on_damage: OnDamage,
    planner: Planner,
    pub(crate) ranking: Ranking,
    /// Largest number of hits of a result.
    pub(crate) hits_max: usize,
    /// Whether hits have titles and texts.
    pub(crate) with_texts: bool,
}

/// A ranked document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankedHit {
    /// From 1.
    pub rank: usize,
    /// The document.
    pub id: String,
    /// Score that it is ranked by: the model's score, or that fused with the retriever's.
    pub score: f32,
    /// The model's score, by the profile's scorer.
    pub model_score: f32,
    /// The document's title.
    pub title: String,
    /// The chunk with the best score.
    pub chunk: u32,
    /// The retriever's score, BM25 or that of the run that named the document.
    pub retriever_score: f64,
    /// The document's text.
    #[serde(skip)]
    pub text: String,
}

/// Work of a search.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Candidates that were scored.
    pub candidates: usize,
    /// Blocks read.
    pub blocks_read: u64,
    /// Bytes of those blocks.
    pub bytes_read: u64,
    /// Positions that went through the decoder.
    pub tokens_computed: u64,
    /// Stored blocks that were computed while others were loaded: because that was sooner, or to time it.
    pub blocks_computed: u64,
    /// Blocks that were damaged and computed again.
    pub blocks_recomputed: usize,
    /// Blocks that were damaged and left out.
    pub blocks_skipped: usize,
    /// Blocks and files that were read from a replica, the store's own being damaged.
    pub failovers: usize,
    /// Seconds of retrieval.
    pub retrieve_seconds: f64,
    /// Seconds of reranking.
    pub rerank_seconds: f64,
}

/// The ranked hits of a query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SearchResult {
    /// The query's name.
    pub query_id: String,
    /// The query.
    pub query: String,
    /// Candidates, best first: all, or as many as the session allows.
    pub hits: Vec<RankedHit>,
    /// Candidates that were named and that the store does not have: others took their places.
    pub missing: Vec<String>,
    /// Words of the index by which the candidates were found, where no document has a word of the query; else
    /// empty.
    pub near_words: Vec<String>,
    /// Work that it took.
    pub stats: Stats,
    /// Blocks that were damaged.
    #[serde(skip)]
    pub damages: Vec<DamagedBlock>,
    /// Readings from replicas.
    #[serde(skip)]
    pub failovers: Vec<Failover>,
}

impl<'a, M: LanguageModel, T: Tokenize> Session<'a, M, T> {
    /// Opens the index of `store`, or a replica's where that is damaged. The caller has checked the
    /// store's fingerprint.
    ///
    /// # Errors
    /// [`EngineError::Index`] where no index is of use, [`EngineError::Profile`] where the
    /// profile's words are no tokens of the model.
    pub fn open(
        store: &'a Tiered,
        model: &'a M,
        tokenizer: &'a T,
        profile: &Profile,
    ) -> Result<Self, EngineError> {
        let index = Retriever::open(store)?;
        let template = profile.query_template(tokenizer)?;
        let live = store.manifest().live_rows();
        let (on_damage, ranking) = (OnDamage::default(), Ranking::default());
        let query_first = profile.lead.is_some().then(|| profile.clone());
        let hits_max = usize::MAX;
        Ok(Self {
            model,
            tokenizer,
            template,
            query_first,
            store,
            index,
            live,
            on_damage,
            planner: Planner::default(),
            ranking,
            hits_max,
            with_texts: true,
        })
    }

    /// Returns the session with another way to treat damaged blocks.
    #[must_use]
    pub fn with_on_damage(self, on_damage: OnDamage) -> Self {
        Self { on_damage, ..self }
    }

    /// Returns the session with another way from scores to a ranking.
    #[must_use]
    pub fn with_ranking(self, ranking: Ranking) -> Self {
        Self { ranking, ..self }
    }

    /// Returns the session with results of the best `hits_max` candidates only, so that the texts of no
    /// others are read.
    #[must_use]
    pub fn with_hits_max(self, hits_max: usize) -> Self {
        Self { hits_max, ..self }
    }

    /// Returns the session with hits that have titles and texts, or with empty ones, which need not be read.
    #[must_use]
    pub fn with_texts(self, with_texts: bool) -> Self {
        Self { with_texts, ..self }
    }

    /// Returns what [`BlockPolicy::Auto`] has done and learnt.
    #[must_use]
    pub fn plan_work(&self) -> PlanWork {
        self.planner.work()
    }

    /// Readings of replicas to open store and index; each is given once.
    #[must_use]
    pub fn take_failovers(&self) -> Vec<Failover> {
        self.store.take_failovers()
    }

    /// Documents that the index counts: those of the store, and what was deleted or replaced since
    /// its last compaction.
    #[must_use]
    pub fn indexed_documents(&self) -> u64 {
        self.index.documents()
    }

    /// Documents of the store that the index of an unfinished build lacks: no search finds them.
    #[must_use]
    pub fn unindexed_documents(&self) -> u64 {
        let manifest = self.store.manifest();
        manifest.documents().saturating_sub(self.index.documents_before(manifest.next_row()))
    }

    /// At most `count` documents, evenly spaced over the store.
    ///
    /// # Errors
    /// [`EngineError::Retrieval`].
    pub fn sample(&self, count: usize) -> Result<Vec<Document>, EngineError> {
        self.index.read(|index| {
            index.read_documents(&index.sample(count, |row| self.live.contains(row))?)
        })
    }

    /// Reads the titles and texts of hits.
    ///
    /// # Errors
    /// [`EngineError::Retrieval`].
    pub fn documents(&self, hits: &[Hit]) -> Result<Vec<Document>, EngineError> {
        self.index.read(|index| index.read_documents(hits))
    }

    /// The best `depth` documents of the store by BM25; those with near words where none has a word of the query.
    ///
    /// # Errors
    /// [`EngineError::Retrieval`].
    pub fn retrieve(&self, query: &Query, depth: usize) -> Result<Retrieved, EngineError> {
        // The index may be ahead of the store.
        let live = |row| self.live.contains(row);
        let mut found = self.index.read(|index| index.retrieve(&query.text, depth, live))?;
        found.hits.retain(|hit| self.holds(hit));
        Ok(found)
    }

    /// Counts by which BM25 weighs the words of a query in this store.
    pub(crate) fn word_counts(&self, query: &Query) -> Result<WordCounts, EngineError> {
        self.index.read(|index| index.word_counts(&query.text))
    }

    /// The best `depth` documents of the store by BM25, with words weighed by the counts of several stores.
    pub(crate) fn retrieve_among(
        &self,
        query: &Query,
        counts: &WordCounts,
        depth: usize,
    ) -> Result<Vec<Hit>, EngineError> {
        let live = |row| self.live.contains(row);
        let found = |index: &Index| index.search_among(&query.text, counts, depth, live);
        let mut hits = self.index.read(found)?;
        hits.retain(|hit| self.holds(hit));
        Ok(hits)
    }

    /// The document of this id, with score 0.
    pub(crate) fn find(&self, id: &DocId) -> Result<Option<Hit>, EngineError> {
        let live = |row| self.live.contains(row);
        let found = self.index.read(|index| index.get(id, live))?;
        Ok(found.filter(|hit| self.holds(hit)))
    }

    fn holds(&self, hit: &Hit) -> bool {
        let shard = self.store.manifest().shard(hit.location.shard);
        let end = u64::from(hit.location.first_slot.0) + u64::from(hit.location.chunks);
        shard.is_some_and(|shard| end <= shard.chunks)
    }

    /// Retrieves and reranks.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn search(
        &self,
        query: &Query,
        depth: usize,
        policy: BlockPolicy,
    ) -> Result<SearchResult, EngineError> {
        self.rerank(self.request(query, depth, None)?, policy)
    }

    /// Scores the blocks of `keys` for the query.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn score(
        &self,
        query: &Query,
        keys: &[BlockKey],
        policy: BlockPolicy,
    ) -> Result<ScoredBlocks, EngineError> {
        let QueryTokens { suffix, .. } = self.query_tokens(query)?;
        let scored = self.score_requests(&[ScoreRequest { query: &suffix, keys }], policy)?;
        scored.into_iter().next().unwrap_or_else(|| Ok(ScoredBlocks::default()))
    }

    /// Scores the blocks of several queries together; each has what it comes to by itself.
    pub(crate) fn score_requests(
        &self,
        requests: &[ScoreRequest<'_>],
        policy: BlockPolicy,
    ) -> Result<Vec<Result<ScoredBlocks, EngineError>>, EngineError> {
        if let Some(profile) = &self.query_first {
            return Err(EngineError::QueryFirst { profile: profile.name.clone() });
        }
        let chunk_tokens = self.store.manifest().fingerprint.chunk_tokens as usize;
        let source = match policy {
            BlockPolicy::Load => BlockSource::Stored(self.store, self.on_damage),
            BlockPolicy::Auto => BlockSource::Planned(self.store, self.on_damage, &self.planner),
            BlockPolicy::Recompute => BlockSource::Recompute,
        };
        let scored = score(self.model, requests, chunk_tokens, source, self.store)?;
        Ok(scored.into_iter().map(|scored| Ok(scored?)).collect())
    }

    /// Tokenises a query between the profile's words.
    ///
    /// # Errors
    /// [`EngineError::EmptyQuery`] for one without a word.
    pub fn query_tokens(&self, query: &Query) -> Result<QueryTokens, EngineError> {
        query_tokens(self.tokenizer, &self.template, query)
    }

    /// Reads the token ids that a block is made from.
    ///
    /// # Errors
    /// [`EngineError::Rerank`] where they cannot be read.
    pub fn chunk(&self, key: &BlockKey) -> Result<Chunk, EngineError> {
        let lost = |source| RerankError::lost(key, String::new(), source);
        Ok(self.store.chunk(key, &mut Vec::new()).map_err(lost)?)
    }
}

/// Tokenises a query between the words of a profile.
///
/// # Errors
/// [`EngineError::EmptyQuery`] for one without a word.
pub fn query_tokens(
    tokenizer: &impl Tokenize,
    template: &QueryTemplate,
    query: &Query,
) -> Result<QueryTokens, EngineError> {
    if query.text.trim().is_empty() {
        return Err(EngineError::EmptyQuery);
    }
    template.tokens(tokenizer, &query.text)?.ok_or(EngineError::EmptyQuery)
}
