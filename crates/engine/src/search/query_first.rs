//! Rerankers that read the query before the document: every prompt is computed whole.

use std::ops::Range;

use hyperrag_core::{LanguageModel, Pair, Profile, Tokenize};
use hyperrag_corpus::Chunker;
use hyperrag_rerank::{Scored, Work};
use hyperrag_retrieval::Hit;

use crate::error::EngineError;
use crate::search::session::{Query, Session};

impl<M: LanguageModel, T: Tokenize> Session<'_, M, T> {
    /// Scores the texts of `hits` after the query, in chunks as long as the store's; which scores are
    /// whose.
    pub(crate) fn score_texts(
        &self,
        profile: &Profile,
        query: &Query,
        hits: &[Hit],
    ) -> Result<(Vec<Range<usize>>, Scored), EngineError> {
        let part = self.query_part(query)?;
        let lead = self.template.lead(self.tokenizer, &query.text)?;
        let chunk_tokens = self.store.manifest().fingerprint.chunk_tokens as usize;
        let chunker = Chunker::new(self.tokenizer, profile, chunk_tokens)?;
        let (mut chunks, mut ranges) = (Vec::new(), Vec::with_capacity(hits.len()));
        for hit in hits {
            let first = chunks.len();
            chunks.extend(chunker.chunks(&hit.document)?);
            ranges.push(first..chunks.len());
        }
        for chunk in &mut chunks {
            chunk.tokens.splice(..0, lead.iter().copied());
        }
        let largest = self.model.kv_shape().block_bytes(lead.len() + chunk_tokens);
        let mut scored = Scored { scores: Vec::with_capacity(chunks.len()), work: Work::default() };
        for batch in chunks.chunks((self.model.batch_bytes() / largest).max(1)) {
            let blocks = self.model.prefill_resident(batch)?;
            let pairs = blocks.iter().map(|block| Pair { query: &part, block });
            let scores = self.model.score_resident(&pairs.collect::<Vec<_>>())?;
            let tokens = batch.iter().map(|chunk| chunk.tokens.len() + part.computed().len());
            scored.work.tokens_computed += tokens.sum::<usize>() as u64;
            scored.scores.extend(scores.into_iter().map(Some));
        }
        Ok((ranges, scored))
    }
}
