use std::io::{self, ErrorKind};

use crate::{BlockKey, Chunk, Failover, Geometry, KvBlock, KvLayers, Pair, QueryPart};

/// Text to token ids.
pub trait Tokenize: Sync {
    /// Token ids of plain text: nothing in it is read as a special token.
    ///
    /// # Errors
    /// [`ModelError`] where the tokenizer fails.
    fn encode_text(&self, text: &str) -> Result<Vec<u32>, ModelError>;

    /// The first `max` token ids of [`Tokenize::encode_text`], of a long text without making all.
    ///
    /// # Errors
    /// [`ModelError`] where the tokenizer fails.
    fn encode_start(&self, text: &str, max: usize) -> Result<Vec<u32>, ModelError> {
        let mut tokens = self.encode_text(text)?;
        tokens.truncate(max);
        Ok(tokens)
    }

    /// Token ids of a piece of a template, special tokens parsed.
    ///
    /// # Errors
    /// [`ModelError`] where the tokenizer fails.
    fn encode_template(&self, text: &str) -> Result<Vec<u32>, ModelError>;
}

/// A decoder-only language model whose KV is passed in and handed out.
///
/// A score or a block is a function of its own tokens alone: the same bits come out whatever else
/// is in the batch, and however many threads compute it.
pub trait LanguageModel: Sync {
    /// A block where the model computes.
    type Resident: Send + Sync;

    /// Sizes and element type of the blocks that [`LanguageModel::prefill`] makes.
    fn geometry(&self) -> &Geometry;

    /// Positions that document part and query may have together.
    fn context_tokens(&self) -> usize;

    /// Positions that one call of [`LanguageModel::prefill`] computes best.
    fn prefill_tokens(&self) -> usize {
        1024
    }

    /// Bytes of blocks that one call of [`LanguageModel::score_pairs`] takes best.
    fn batch_bytes(&self) -> usize {
        96 << 20
    }

    /// Positions of queries that one call of [`LanguageModel::score_kept`] computes best.
    fn score_rows(&self) -> usize {
        2048
    }

    /// Computes K, V and the last hidden state of each chunk.
    ///
    /// # Errors
    /// [`ModelError`] for a chunk without tokens, too long, or with tokens out of the vocabulary.
    fn prefill(&self, chunks: &[Chunk]) -> Result<Vec<KvBlock>, ModelError>;

    /// As [`LanguageModel::prefill`], the blocks left where the model computes.
    ///
    /// # Errors
    /// As [`LanguageModel::prefill`].
    fn prefill_resident(&self, chunks: &[Chunk]) -> Result<Vec<Self::Resident>, ModelError> {
        self.prefill(chunks)?.into_iter().map(|block| self.upload(block)).collect()
    }

    /// Takes a block to where the model computes.
    ///
    /// # Errors
    /// [`ModelError`] for a block of another geometry.
    fn upload(&self, block: KvBlock) -> Result<Self::Resident, ModelError>;

    /// The score of each pair, by its query's scorer. Queries may differ from pair to pair.
    ///
    /// # Errors
    /// [`ModelError`] for an empty query, too long, or with tokens out of the vocabulary.
    fn score_pairs(&self, pairs: &[Pair<'_, Self::Resident>]) -> Result<Vec<f32>, ModelError>;

    /// The same of blocks where they are kept, which are read meanwhile; of one that cannot be read, why.
    /// Each score has the bits that [`LanguageModel::score_pairs`] gives.
    ///
    /// # Errors
    /// As [`LanguageModel::score_pairs`]; [`ModelError`] for a block of another geometry.
    fn score_kept(
        &self,
        pairs: &[Pair<'_, dyn KvLayers + '_>],
    ) -> Result<Vec<Result<f32, BlockError>>, ModelError>;

    /// The mean log-probability of the query's tokens after each candidate's document part.
    ///
    /// # Errors
    /// As [`LanguageModel::score_pairs`].
    fn score(&self, query: &[u32], candidates: &[&Self::Resident]) -> Result<Vec<f32>, ModelError> {
        let query = QueryPart::likelihood(query);
        let pairs = candidates.iter().map(|block| Pair { query: &query, block: *block });
        self.score_pairs(&pairs.collect::<Vec<_>>())
    }
}

/// A block that was looked up: absent is `None`; damaged is an error, never taken for absent.
pub type Opened<'a> = Result<Option<Box<dyn KvLayers + 'a>>, BlockError>;

/// A place where blocks are.
pub trait BlockRead: Sync {
    /// Reads the blocks, in the order of the keys. Absent is `None`; damaged is an error, never
    /// taken for absent.
    fn get_many(&self, keys: &[BlockKey]) -> Vec<Result<Option<KvBlock>, BlockError>>;

    /// As [`BlockRead::get_many`], but K and V are left where they are until a layer is asked for.
    fn open_many(&self, keys: &[BlockKey]) -> Vec<Opened<'_>>;
}

/// Where the token ids behind the blocks are, from which any block can be computed again.
pub trait ChunkRead: Sync {
    /// The chunk of a block. Where a replica has to give it, `failovers` says so.
    ///
    /// # Errors
    /// [`BlockError`] where it is damaged or can not be read.
    fn chunk(&self, key: &BlockKey, failovers: &mut Vec<Failover>) -> Result<Chunk, BlockError>;
}

/// Why a model did not compute.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Nothing to compute from.
    #[error("{what} has no tokens")]
    Empty {
        /// Chunk or query.
        what: String,
    },
    /// More positions than the model was trained for.
    #[error("{what} needs {tokens} positions, the model has {max}")]
    TooLong {
        /// Chunk or query.
        what: String,
        /// Positions asked for.
        tokens: usize,
        /// Positions there are.
        max: usize,
    },
    /// A token id that the vocabulary does not have.
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
    /// A score or a state that is no number: the block or the weights hold such values.
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
    /// The device has no memory for a single sequence.
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

/// Why a block was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Its bytes are not what was written, or not of the chunk that was asked for.
    #[error("{place}: {what}")]
    Damaged {
        /// File and slot.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// The place can not be reached.
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
    /// Whether the system refuses the bytes, see [`is_refusal`]: that is no damage.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_refusal(source))
    }
}

/// Whether the system refuses to open or read a file for a reason that says nothing of its bytes: the
/// user has no right to it, or process or system have no descriptors or memory left.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::OutOfMemory)
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
