//! The one error of the engine: errors of the other crates and its own causes come in, a message, a kind and
//! a remedy go out. It names no flag.

use hyperrag_core::{Classified, ErrorKind, Hint, ModelError, ProfileError, agreeing, counted};
use hyperrag_corpus::{ChunkError, CorpusError, Place};
use hyperrag_rerank::RerankError;
use hyperrag_retrieval::{RetrievalError, UnknownLanguage};
use hyperrag_store::StoreError;

use crate::build::partition_error::PartitionError;
use crate::shared::error::ShareError;

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
        "the profile {profile} has the query before the document, so nothing can be stored for it"
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
    /// A place of a shared store.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A build that many processes share.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// The index.
    #[error(transparent)]
    Retrieval(RetrievalError),
    /// The index is missing or damaged; the store has all that is needed to make it again.
    #[error("{0}")]
    Index(RetrievalError),
    /// The store's index cuts words in a way that this version does not know.
    #[error(transparent)]
    Language(#[from] UnknownLanguage),
    /// Scoring.
    #[error(transparent)]
    Rerank(#[from] RerankError),
    /// Nothing to build from.
    #[error("the corpus has no document{}; nothing was built", match rows {
        0 => String::new(),
        rows => format!(" with any text in {}", counted(*rows, "row")),
    })]
    EmptyCorpus {
        /// Rows that were read.
        rows: u64,
    },
    /// The sealed units were made from other rows.
    #[error("rows {first} to {last} of the input are not those that the store was made from")]
    Changed {
        /// First row of the unit, from 1.
        first: u64,
        /// Last row of the unit.
        last: u64,
    },
    /// The units sealed by an unfinished append were made from other rows.
    #[error("rows {first} to {last} of the input are not those that an unfinished append sealed")]
    ChangedAppend {
        /// First row of the unit, from 1.
        first: u64,
        /// Last row of the unit.
        last: u64,
    },
    /// More than one input went into the store.
    #[error("the store was added to, compacted or upgraded after its first build")]
    AddedTo,
    /// The store may not grow by another unit.
    #[error(
        "stopped before unit {unit}, with which the store could take {needed} bytes: {max} are allowed, and \
         {} {} sealed", counted(*unit, "unit"), agreeing(*unit, "is", "are")
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
    #[error("threads cannot be started ({0})")]
    Threads(String),
    /// A signal asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// Indexes of stores that were to answer as one cut the query into different words.
    #[error(
        "the indexes of the collection cut words by different rules, so that their scores mean different things; \
         the same version of the program must make all of them"
    )]
    OtherWords,
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
    /// Chunks so long that the model has no positions left for a query.
    #[error(
        "chunks of {chunk_tokens} positions leave no room for queries: the model has {context}, and a query \
         takes {fixed} for the profile's words and at least {least} of its own"
    )]
    NoQueryRoom {
        /// Positions of a chunk.
        chunk_tokens: usize,
        /// Positions of the model.
        context: usize,
        /// Positions of the profile's words around a query.
        fixed: usize,
        /// Positions of a short query.
        least: usize,
    },
    /// Instruction, question and answer do not fit into the generator's context.
    #[error(
        "question, instruction and answer take {needed} tokens, the generator has room for {max}"
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
    /// The model has no room for the query beside a chunk.
    #[error(
        "the query takes {query_tokens} tokens with the profile's words and the store's chunks up to \
         {chunk_tokens}, the model has room for {max} together"
    )]
    QueryTooLong {
        /// Tokens of the query.
        query_tokens: usize,
        /// Tokens of the longest chunk that the store may have.
        chunk_tokens: usize,
        /// Tokens that the model has room for.
        max: usize,
    },
}

impl Classified for EngineError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Corpus(error) => error.kind(),
            Self::Chunk(error) => error.kind(),
            Self::Profile(error) => error.kind(),
            Self::Model(source) | Self::Tokenize { source, .. } => source.kind(),
            Self::Store(error) => error.kind(),
            Self::Share(error) => error.kind(),
            Self::Partition(error) => error.kind(),
            Self::Retrieval(error) | Self::Index(error) => error.kind(),
            Self::Rerank(error) => error.kind(),
            Self::Language(_) => ErrorKind::Failed,
            Self::QueryFirst { .. }
            | Self::EmptyCorpus { .. }
            | Self::NoQueryRoom { .. }
            | Self::Changed { .. }
            | Self::ChangedAppend { .. }
            | Self::AddedTo
            | Self::OtherWords
            | Self::EmptyQuery
            | Self::NotInCorpus { .. }
            | Self::PromptTooLong { .. }
            | Self::UnknownDocument { .. }
            | Self::QueryTooLong { .. } => ErrorKind::Input,
            Self::MaxBytes { .. }
            | Self::NoRoom { .. }
            | Self::NoRoomToUpgrade { .. }
            | Self::Threads(_) => ErrorKind::Refused,
            Self::Interrupted => ErrorKind::Interrupted,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Corpus(error) => error.hint(),
            Self::Chunk(error) => error.hint(),
            Self::Profile(error) => error.hint(),
            Self::Model(source) | Self::Tokenize { source, .. } => source.hint(),
            Self::Store(error) => error.hint(),
            Self::Share(error) => error.hint(),
            Self::Partition(error) => error.hint(),
            Self::Rerank(error) => error.hint(),
            Self::Index(_) => Some(Hint::RebuildIndex),
            Self::QueryFirst { .. } => Some(Hint::RecomputeQuery),
            Self::Changed { .. } => Some(Hint::AppendOrSameInput),
            Self::ChangedAppend { .. } => Some(Hint::SameInputOrRestart),
            Self::NoQueryRoom { context, fixed, least, .. } => {
                let most = context.saturating_sub(fixed + least);
                Some(Hint::ShorterChunks { most })
            }
            Self::AddedTo => Some(Hint::Append),
            Self::MaxBytes { .. } => Some(Hint::LargerStore),
            Self::PromptTooLong { .. } => Some(Hint::ShorterPrompt),
            Self::QueryTooLong { query_tokens, chunk_tokens, max } => Some(Hint::ShorterQuery {
                tokens_max: max.saturating_sub(*chunk_tokens),
                chunk_tokens_max: max.saturating_sub(*query_tokens),
            }),
            Self::Threads(_) => Some(Hint::FewerThreads),
            _ => None,
        }
    }
}

impl From<RetrievalError> for EngineError {
    fn from(error: RetrievalError) -> Self {
        match error {
            RetrievalError::Damaged { .. } | RetrievalError::Missing { .. } => Self::Index(error),
            error => Self::Retrieval(error),
        }
    }
}
