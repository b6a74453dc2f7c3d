//! The one error of the engine. Each message says the cause and what to do.

use hyperrag_core::{ModelError, ProfileError};
use hyperrag_corpus::{ChunkError, CorpusError, Place};
use hyperrag_rerank::RerankError;
use hyperrag_retrieval::{RetrievalError, UnknownLanguage};
use hyperrag_store::StoreError;

/// Why a pipeline stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Reading the corpus.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// A document that the tokenizer does not take.
    #[error("{place}: the document cannot be tokenised")]
    Tokenize {
        /// Place in the input.
        place: Place,
        /// Cause.
        #[source]
        source: ModelError,
    },
    /// Cutting it into chunks.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// Blocks were asked for that no profile with the query first can have.
    #[error(
        "the profile {profile} has the query before the document, so nothing can be stored for it: \
         ask with `query --recompute`, which reads the texts of a store, whatever profile it was \
         built with"
    )]
    QueryFirst {
        /// Name of the profile.
        profile: String,
    },
    /// The profile's words in the tokens of the model.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index.
    #[error(transparent)]
    Retrieval(RetrievalError),
    /// The index is missing or damaged; the store has all that is needed to make it again.
    #[error(
        "{0}; run `hyperrag repair`, or the same `hyperrag build` again, which make the index anew"
    )]
    Index(RetrievalError),
    /// The store's index cuts words in a way that this version does not know.
    #[error(transparent)]
    Language(#[from] UnknownLanguage),
    /// Scoring.
    #[error(transparent)]
    Rerank(#[from] RerankError),
    /// Nothing to build from.
    #[error("the corpus has no document with any text in {rows} rows; nothing was built")]
    EmptyCorpus {
        /// Rows that were read.
        rows: u64,
    },
    /// The sealed units were made from other rows.
    #[error(
        "rows {first} to {last} of the input are not those that the store was made from; add what is new with --append, build another store, or give the same input and --limit"
    )]
    Changed {
        /// First row of the unit, from 1.
        first: u64,
        /// Last row of the unit.
        last: u64,
    },
    /// The units sealed by an unfinished append were made from other rows.
    #[error(
        "rows {first} to {last} of the input are not those that an unfinished append sealed; give the same input, or forget what it sealed with --restart"
    )]
    ChangedAppend {
        /// First row of the unit, from 1.
        first: u64,
        /// Last row of the unit.
        last: u64,
    },
    /// More than one input went into the store.
    #[error(
        "the store was added to, compacted or upgraded after its first build; add or replace documents with --append, or build another store"
    )]
    AddedTo,
    /// The store may not grow by another unit.
    #[error(
        "stopped before unit {unit}: with it the store could take {needed} bytes, --max-bytes allows {max}; \
         {unit} units are sealed, run the same command with more to go on"
    )]
    MaxBytes {
        /// The unit that does not fit.
        unit: u32,
        /// Bytes that the store could take with it.
        needed: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// The disk has no room for a single unit.
    #[error(
        "{}: the disk is full: {free} bytes are free and the next unit needs {needed}; free some space \
         and run the same command again, sealed units are kept", path.display()
    )]
    NoRoom {
        /// The store.
        path: std::path::PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// The disk has no room for the store once more.
    #[error(
        "{}: {free} bytes are free and the upgrade needs {needed}, for the store is written anew before \
         the former files go; free some space", path.display()
    )]
    NoRoomToUpgrade {
        /// The store.
        path: std::path::PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// The system gives no threads.
    #[error(
        "threads cannot be started ({0}): let the system have more, or start fewer (RAYON_NUM_THREADS)"
    )]
    Threads(String),
    /// A signal asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// A query without any token.
    #[error("the query is empty")]
    EmptyQuery,
    /// A candidate that the corpus does not have.
    #[error("query {query}: the input has no document {document:?}")]
    NotInCorpus {
        /// The query.
        query: String,
        /// The document.
        document: String,
    },
    /// Instruction, question and answer do not fit into the generator's context.
    #[error(
        "question, instruction and --max-tokens take {needed} tokens, the generator has room for {max}: \
         shorten them"
    )]
    PromptTooLong {
        /// Tokens without any passage.
        needed: usize,
        /// Tokens there may be.
        max: usize,
    },
    /// A candidate that the store does not have.
    #[error("query {query}: the store has no document {document:?}")]
    UnknownDocument {
        /// The query.
        query: String,
        /// The document.
        document: String,
    },
    /// A candidate whose score a float of 32 bits cannot hold.
    #[error(
        "query {query}: the score {score:e} of document {document:?} is beyond the {:e} that scores may \
         have: scale the scores of the candidates",
        f32::MAX
    )]
    ScoreRange {
        /// The query.
        query: String,
        /// The document.
        document: String,
        /// Score of the candidate.
        score: f64,
    },
}

impl From<RetrievalError> for EngineError {
    fn from(error: RetrievalError) -> Self {
        match error {
            RetrievalError::Damaged { .. } | RetrievalError::Missing { .. } => Self::Index(error),
            error => Self::Retrieval(error),
        }
    }
}
