//! Traits between the crates: tokenizer, language model, block reader and chunk reader. In
//! and out: plain values. Knows no implementation.

use crate::block::kv_block::KvBlock;
use crate::block::kv_shape::KvShape;
use crate::block::layer_source::{Failover, LayerSource};
use crate::document::{BlockKey, Chunk};
use crate::error::{BlockError, ModelError};
use crate::prompt::query::{Pair, QuerySuffix};

/// Turns text into token ids.
pub trait Tokenize: Sync {
    /// Tokenises plain text. Nothing in it is read as a special token.
    ///
    /// # Errors
    /// [`ModelError`] if the tokenizer fails.
    fn encode_text(&self, text: &str) -> Result<Vec<u32>, ModelError>;

    /// Gives the token ids of [`Tokenize::encode_text`] in parts, in their order. An implementation that
    /// tokenises long texts piece by piece holds no more than a piece's.
    ///
    /// # Errors
    /// [`ModelError`] if the tokenizer fails. Parts that were given before are worth nothing then.
    fn encode_parts(&self, text: &str, give: &mut dyn FnMut(&[u32])) -> Result<(), ModelError> {
        give(&self.encode_text(text)?);
        Ok(())
    }

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
    fn kv_shape(&self) -> &KvShape;

    /// Largest number of positions of document part and query together.
    fn context_tokens(&self) -> usize;

    /// Number of positions that suits one call of [`LanguageModel::prefill`] best.
    fn prefill_tokens(&self) -> usize {
        1024
    }

    /// Size of the blocks that suits one call of [`LanguageModel::score_resident`] best, in bytes.
    fn batch_bytes(&self) -> usize {
        96 << 20
    }

    /// Number of query positions that suits one call of [`LanguageModel::score_streamed`] best.
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
    /// [`ModelError`] for a block of another shape.
    fn upload(&self, block: KvBlock) -> Result<Self::Resident, ModelError>;

    /// Scores each pair with the scorer of its query. Queries may differ from pair to pair.
    ///
    /// # Errors
    /// [`ModelError`] for a query that is empty, too long, or has tokens outside the vocabulary.
    fn score_resident(&self, pairs: &[Pair<'_, Self::Resident>]) -> Result<Vec<f32>, ModelError>;

    /// Scores pairs whose blocks stay in storage. Layers are read during the pass, and a block that cannot be
    /// read yields its error. Each score has the bits that [`LanguageModel::score_resident`] gives.
    ///
    /// # Errors
    /// See [`LanguageModel::score_resident`]; also [`ModelError`] for a block of another shape.
    fn score_streamed(
        &self,
        pairs: &[Pair<'_, dyn LayerSource + '_>],
    ) -> Result<Vec<Result<f32, BlockError>>, ModelError>;

    /// Returns the mean log-probability of the query's tokens after each candidate's document part.
    ///
    /// # Errors
    /// See [`LanguageModel::score_resident`].
    fn score(&self, query: &[u32], candidates: &[&Self::Resident]) -> Result<Vec<f32>, ModelError> {
        let query = QuerySuffix::likelihood(query);
        let pairs = candidates.iter().map(|block| Pair { query: &query, block: *block });
        self.score_resident(&pairs.collect::<Vec<_>>())
    }
}

/// Result of looking a block up. An absent block is `None`; a damaged one is an error.
pub type Opened<'a> = Result<Option<Box<dyn LayerSource + 'a>>, BlockError>;

/// A place that holds blocks.
pub trait BlockRead: Sync {
    /// Reads the blocks, in the order of the keys. An absent block is `None`; a damaged one is an error.
    fn get_many(&self, keys: &[BlockKey]) -> Vec<Result<Option<KvBlock>, BlockError>>;

    /// Looks blocks up like [`BlockRead::get_many`], but reads K and V only when a layer is asked for. Places that
    /// are far are asked ahead for what a pass over all blocks needs first.
    fn open_many(&self, keys: &[BlockKey]) -> Vec<Opened<'_>>;

    /// Looks blocks up like [`BlockRead::open_many`], but asks no far place before [`LayerSource::request`] or a
    /// read.
    fn open_idle(&self, keys: &[BlockKey]) -> Vec<Opened<'_>> {
        self.open_many(keys)
    }
}

/// A place that holds the token ids of the blocks, from which any block can be computed again.
pub trait ChunkRead: Sync {
    /// Returns the chunk of a block. If a replica has to serve it, adds that to `failovers`.
    ///
    /// # Errors
    /// [`BlockError`] if the chunk is damaged or cannot be read.
    fn chunk(&self, key: &BlockKey, failovers: &mut Vec<Failover>) -> Result<Chunk, BlockError>;
}
