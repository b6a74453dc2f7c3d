//! Rerankers that read the query before the document: every prompt is computed whole.
//!
//! In: the tokens of a query, and documents. Out: scores of the documents' chunks. No block of the store
//! is read.

use std::ops::Range;

use hyperrag_core::{Document, LanguageModel, Pair, Profile, QueryTokens, Tokenize};
use hyperrag_corpus::Chunker;
use hyperrag_rerank::{ScoredBlocks, Work};

use crate::error::EngineError;
use crate::search::session::Session;

impl<M: LanguageModel, T: Tokenize> Session<'_, M, T> {
    /// Scores the texts of `documents` after the query, in chunks as long as the store's. Returns the
    /// range of each document's chunks with the scores.
    pub(crate) fn score_texts(
        &self,
        profile: &Profile,
        query: &QueryTokens,
        documents: &[Document],
    ) -> Result<(Vec<Range<usize>>, ScoredBlocks), EngineError> {
        let QueryTokens { lead, suffix } = query;
        let chunk_tokens = self.store.manifest().fingerprint.chunk_tokens as usize;
        let chunker = Chunker::new(self.tokenizer, profile, chunk_tokens)?;
        let (mut chunks, mut ranges) = (Vec::new(), Vec::with_capacity(documents.len()));
        for document in documents {
            let first = chunks.len();
            chunks.extend(chunker.chunks(document)?);
            ranges.push(first..chunks.len());
        }
        for chunk in &mut chunks {
            chunk.tokens.splice(..0, lead.iter().copied());
        }
        let largest = self.model.kv_shape().block_bytes(lead.len() + chunk_tokens);
        let scores = Vec::with_capacity(chunks.len());
        let mut scored = ScoredBlocks { scores, work: Work::default() };
        for batch in chunks.chunks((self.model.batch_bytes() / largest).max(1)) {
            let blocks = self.model.prefill_resident(batch)?;
            let pairs = blocks.iter().map(|block| Pair { query: suffix, block });
            let scores = self.model.score_resident(&pairs.collect::<Vec<_>>())?;
            let tokens = batch.iter().map(|chunk| chunk.tokens.len() + suffix.computed().len());
            scored.work.tokens_computed += tokens.sum::<usize>() as u64;
            scored.scores.extend(scores.into_iter().map(Some));
        }
        Ok((ranges, scored))
    }
}
