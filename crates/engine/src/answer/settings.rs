//! Settings of an answer. Nothing is done here.

use hyperrag_core::Sampling;

use crate::search::session::BlockPolicy;

/// Source of the passages of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassageOrder {
    /// The best of the reranked candidates, as in [`Session::search`](crate::search::session::Session::search).
    Reranked {
        /// Candidates.
        depth: usize,
        /// Origin of the blocks.
        policy: BlockPolicy,
    },
    /// The retriever's best.
    Retrieved,
}

/// Settings of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerSettings<'a> {
    /// Instruction of the generator, between passages and question; without it to answer in few
    /// words, from the passages if there are any.
    pub instruction: Option<&'a str>,
    /// Passages at most.
    pub passages: usize,
    /// Order of the passages.
    pub order: PassageOrder,
    /// Choice of each token.
    pub sampling: Sampling,
}
