//! Candidates of a query: documents that a retriever names come in, those that the store has go out, with the
//! retriever's scores. It does not know who retrieved.

use hyperrag_core::{DocId, LanguageModel, Tokenize};
use hyperrag_retrieval::Hit;

use crate::error::EngineError;
use crate::search::session::{Query, Session};

/// Treatment of a candidate that the store does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMissing {
    /// The next candidate takes its place.
    #[default]
    Skip,
    /// Failure of the query.
    Fail,
}

/// Candidates of one query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidates {
    /// The documents.
    pub(crate) hits: Vec<Hit>,
    /// The retriever's score of each, which is finite.
    pub(crate) scores: Vec<f64>,
    /// Ids that the store does not have, in the order in which they were named.
    pub(crate) missing: Vec<String>,
}

impl From<Vec<Hit>> for Candidates {
    fn from(hits: Vec<Hit>) -> Self {
        let scores = hits.iter().map(|hit| hit.score.into()).collect();
        Self { hits, scores, missing: Vec::new() }
    }
}

impl<M: LanguageModel, T: Tokenize> Session<'_, M, T> {
    /// Looks up the first `depth` of `named` that the store has. `named` are ids with finite scores, best
    /// first.
    ///
    /// # Errors
    /// [`EngineError::UnknownDocument`] for one that the store does not have, under [`OnMissing::Fail`].
    pub fn candidates<'i>(
        &self,
        query: &Query,
        named: impl IntoIterator<Item = (&'i str, f64)>,
        depth: usize,
        on_missing: OnMissing,
    ) -> Result<Candidates, EngineError> {
        let mut found = Candidates::default();
        for (document, score) in named {
            if found.hits.len() == depth {
                break;
            }
            let hit = match DocId::stored(document) {
                Ok(id) => self.find(&id)?,
                Err(_) => None,
            };
            match (hit, on_missing) {
                (Some(hit), _) => {
                    found.hits.push(hit);
                    // The sum with zero is 0 for -0, too.
                    found.scores.push(score + 0.0);
                }
                (None, OnMissing::Skip) => found.missing.push(document.to_owned()),
                (None, OnMissing::Fail) => {
                    let (query, document) = (query.id.clone(), document.to_owned());
                    return Err(EngineError::UnknownDocument { query, document });
                }
            }
        }
        Ok(found)
    }
}
