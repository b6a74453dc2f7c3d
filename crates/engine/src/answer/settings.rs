//! Settings of an answer. Nothing is done here.

use hyperrag_core::Sampling;

/// Source of the passages of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassageOrder {
    /// The best of the reranked candidates, as in [`Session::answer`](crate::search::session::Session::answer).
    Reranked {
        /// Candidates.
        depth: usize,
        /// Without stored blocks.
        recompute: bool,
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
