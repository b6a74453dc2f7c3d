//! A question in, the passages that its answer is written from out: reranked, or as retrieved.

use std::time::Instant;

use hyperrag_core::{Failover, LanguageModel, Tokenize, rank_order};
use hyperrag_rerank::DamagedBlock;
use hyperrag_retrieval::Retrieved;
use serde::Serialize;

use crate::answer::settings::{AnswerSettings, PassageOrder};
use crate::error::EngineError;
use crate::search::session::{Query, SearchResult, Session, Stats};

/// A passage that the generator read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Passage {
    /// Number of the passage in the prompt, from 1.
    pub rank: usize,
    /// The document.
    pub id: String,
    /// Title of the document.
    pub title: String,
    /// Score that it is ranked by.
    pub score: f32,
    /// The reranker's score, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_score: Option<f32>,
    /// The retriever's score.
    pub retriever_score: f64,
    /// Tokens of its text that were in the prompt.
    pub tokens: usize,
    /// Tokens at its end for which there was no room.
    pub cut_tokens: usize,
    /// The document's text.
    #[serde(skip)]
    pub text: String,
}

/// Passages, and what finding them took.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) passages: Vec<Passage>,
    pub(crate) near_words: Vec<String>,
    pub(crate) stats: Stats,
    pub(crate) damages: Vec<DamagedBlock>,
    pub(crate) failovers: Vec<Failover>,
}

impl<M: LanguageModel, T: Tokenize> Session<'_, M, T> {
    /// Finds the passages for `query`.
    pub(crate) fn passages(
        &self,
        settings: &AnswerSettings<'_>,
        query: &Query,
    ) -> Result<Found, EngineError> {
        let count = settings.passages;
        match settings.order {
            _ if count == 0 => Ok(Found::default()),
            PassageOrder::Reranked { depth, policy } => {
                let SearchResult { hits, near_words, stats, damages, failovers, .. } =
                    self.search(query, depth, policy)?;
                let passages = hits.into_iter().take(count).map(|hit| Passage {
                    rank: hit.rank,
                    id: hit.id,
                    title: hit.title,
                    score: hit.score,
                    model_score: Some(hit.model_score),
                    retriever_score: hit.retriever_score,
                    tokens: 0,
                    cut_tokens: 0,
                    text: hit.text,
                });
                let passages = passages.collect();
                Ok(Found { passages, near_words, stats, damages, failovers })
            }
            PassageOrder::Retrieved => {
                let start = Instant::now();
                let Retrieved { mut hits, near_words } = self.retrieve(query, count)?;
                hits.sort_by(|a, b| {
                    rank_order((a.score.into(), a.id.as_str()), (b.score.into(), b.id.as_str()))
                });
                let ranked = (1..).zip(hits.iter().zip(self.documents(&hits)?));
                let passages = ranked.map(|(rank, (hit, document))| Passage {
                    rank,
                    id: document.id.as_str().to_owned(),
                    title: document.title,
                    score: hit.score,
                    model_score: None,
                    retriever_score: hit.score.into(),
                    tokens: 0,
                    cut_tokens: 0,
                    text: document.text,
                });
                let (passages, failovers) = (passages.collect(), self.take_failovers());
                let retrieve_seconds = start.elapsed().as_secs_f64();
                let stats =
                    Stats { retrieve_seconds, failovers: failovers.len(), ..Stats::default() };
                Ok(Found { passages, near_words, stats, damages: Vec::new(), failovers })
            }
        }
    }
}
