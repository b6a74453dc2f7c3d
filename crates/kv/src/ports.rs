//! Traits between the crates: tokenizer, language model, block reader and chunk reader, with their errors. In
//! and out: plain values. Knows no implementation.

use std::io::{self, ErrorKind};

use crate::{BlockKey, Chunk, Failover, Geometry, KvBlock, KvLayers, Pair, QueryPart};

/// Turns text into token ids.
pub trait Tokenize: Sync {
    /// Tokenises plain text. Nothing in it is read as a special token.
    ///
    /// # Errors
    /// [`ModelError`] if the tokenizer fails.
    fn encode_text(&self, text: &str) -> Result<Vec<u32>, ModelError>;

    /// Returns the first `max` token ids of [`Tokenize::encode_text`]. An implementation need not tokenise
    /// the rest of a long text.
    ///
    /// # Errors
    /// [`ModelError`] if the tokenizer fails.
    fn encode_start(&self, text: &str, max: usize) -> Result<Vec<u32>, ModelError> {
        let mut tokens = self.encode_text(text)?;
        tokens.truncate(max);
        Ok(tokens)
    }

    /// Tokenises a piece of a template, special tokens included.
    ///
    /// # Errors
    /// [`ModelError`] if the tokenizer fails.
    fn encode_template(&self, text: &str) -> Result<Vec<u32>, ModelError>;
}

/// A decoder-only language model whose KV is passed in and handed out.
///
/// A score or a block depends on its own tokens alone: its bits are the same for every batch and every number
/// of threads.
pub trait LanguageModel: Sync {
    /// A block in the memory where the model computes.
    type Resident: Send + Sync;

    /// Sizes and element type of the blocks that [`LanguageModel::prefill`] makes.
    fn geometry(&self) -> &Geometry;

    /// Largest number of positions of document part and query together.
    fn context_tokens(&self) -> usize;

    /// Number of positions that suits one call of [`LanguageModel::prefill`] best.
    fn prefill_tokens(&self) -> usize {
        1024
    }

    /// Size of the blocks that suits one call of [`LanguageModel::score_pairs`] best, in bytes.
    fn batch_bytes(&self) -> usize {
        96 << 20
    }

    /// Number of query positions that suits one call of [`LanguageModel::score_kept`] best.
    fn score_rows(&self) -> usize {
        2048
    }

    /// Computes K, V and the last hidden state of each chunk.
    ///
    /// # Errors
    /// [`ModelError`] for a chunk that is empty, too long, or has tokens outside the vocabulary.
    fn prefill(&self, chunks: &[Chunk]) -> Result<Vec<KvBlock>, ModelError>;

    /// Computes blocks like [`LanguageModel::prefill`] and leaves them where the model computes.
    ///
    /// # Errors
    /// See [`LanguageModel::prefill`].
    fn prefill_resident(&self, chunks: &[Chunk]) -> Result<Vec<Self::Resident>, ModelError> {
        self.prefill(chunks)?.into_iter().map(|block| self.upload(block)).collect()
    }

    /// Moves a block to where the model computes.
    ///
    /// # Errors
    /// [`ModelError`] for a block of another geometry.
    fn upload(&self, block: KvBlock) -> Result<Self::Resident, ModelError>;

    /// Scores each pair with the scorer of its query. Queries may differ from pair to pair.
    ///
    /// # Errors
    /// [`ModelError`] for a query that is empty, too long, or has tokens outside the vocabulary.
    fn score_pairs(&self, pairs: &[Pair<'_, Self::Resident>]) -> Result<Vec<f32>, ModelError>;

    /// Scores pairs whose blocks stay in storage. Layers are read during the pass, and a block that cannot be
    /// read yields its error. Each score has the bits that [`LanguageModel::score_pairs`] gives.
    ///
    /// # Errors
    /// See [`LanguageModel::score_pairs`]; also [`ModelError`] for a block of another geometry.
    fn score_kept(
        &self,
        pairs: &[Pair<'_, dyn KvLayers + '_>],
    ) -> Result<Vec<Result<f32, BlockError>>, ModelError>;

    /// Returns the mean log-probability of the query's tokens after each candidate's document part.
    ///
    /// # Errors
    /// See [`LanguageModel::score_pairs`].
    fn score(&self, query: &[u32], candidates: &[&Self::Resident]) -> Result<Vec<f32>, ModelError> {
        let query = QueryPart::likelihood(query);
        let pairs = candidates.iter().map(|block| Pair { query: &query, block: *block });
        self.score_pairs(&pairs.collect::<Vec<_>>())
    }
}

/// Result of looking a block up. An absent block is `None`; a damaged one is an error.
pub type Opened<'a> = Result<Option<Box<dyn KvLayers + 'a>>, BlockError>;

/// A place that holds blocks.
pub trait BlockRead: Sync {
    /// Reads the blocks, in the order of the keys. An absent block is `None`; a damaged one is an error.
    fn get_many(&self, keys: &[BlockKey]) -> Vec<Result<Option<KvBlock>, BlockError>>;

    /// Looks blocks up like [`BlockRead::get_many`], but reads K and V only when a layer is asked for.
    fn open_many(&self, keys: &[BlockKey]) -> Vec<Opened<'_>>;
}

/// A place that holds the token ids of the blocks, from which any block can be computed again.
pub trait ChunkRead: Sync {
    /// Returns the chunk of a block. If a replica has to serve it, adds that to `failovers`.
    ///
    /// # Errors
    /// [`BlockError`] if the chunk is damaged or cannot be read.
    fn chunk(&self, key: &BlockKey, failovers: &mut Vec<Failover>) -> Result<Chunk, BlockError>;
}

/// Reason why a model did not compute.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A chunk or query without tokens.
    #[error("{what} has no tokens")]
    Empty {
        /// Chunk or query.
        what: String,
    },
    /// A chunk or query with more positions than the model was trained for.
    #[error("{what} needs {tokens} positions, the model has {max}")]
    TooLong {
        /// Chunk or query.
        what: String,
        /// Positions needed.
        tokens: usize,
        /// Positions that the model has.
        max: usize,
    },
    /// A token id outside the vocabulary.
    #[error("{what} has token {token}, the vocabulary ends at {vocabulary}")]
    UnknownToken {
        /// Chunk or query.
        what: String,
        /// The token id.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// A block made by another model or with another element type.
    #[error("the block's sizes {block:?} are not the model's {model:?}")]
    Geometry {
        /// Sizes of the block.
        block: Box<Geometry>,
        /// Sizes of the model.
        model: Box<Geometry>,
    },
    /// A score or a state that is not a number, because the block or the weights hold such values.
    #[error(
        "{what} gave a value that is not a number; on a GPU, try --dtype bf16, whose range is larger"
    )]
    NotANumber {
        /// Chunk or candidate.
        what: String,
    },
    /// The tokenizer failed.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
    /// The memory of the device cannot hold a single sequence.
    #[error(
        "the device has too little memory for one sequence of {rows} rows: free some, or use --device cpu"
    )]
    OutOfMemory {
        /// Rows of the sequence.
        rows: usize,
    },
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}

/// Reason why a block was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The bytes are not those written, or belong to another chunk.
    #[error("{place}: {what}")]
    Damaged {
        /// File and slot.
        place: String,
        /// Fault found.
        what: String,
    },
    /// The place cannot be reached.
    #[error("{place}: cannot be read")]
    Io {
        /// File or address.
        place: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl BlockError {
    /// Whether the system refuses the read (see [`is_refusal`]), which is no damage.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_refusal(source))
    }
}

/// Whether the system refuses to open or read a file for a reason that says nothing about its bytes: missing
/// rights, or no descriptors or memory left.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::OutOfMemory)
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
