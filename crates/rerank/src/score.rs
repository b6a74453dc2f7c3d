use std::ops::AddAssign;
use std::sync::mpsc::sync_channel;

use hyperrag_kv::{BlockError, BlockKey, BlockRead, ChunkRead, KvBlock, LanguageModel, ModelError};

/// Where the blocks come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// Stored ones; a damaged one is computed again from its token ids.
    Stored(&'a dyn BlockRead),
    /// All computed again from their token ids.
    Recompute,
}

/// A stored block that was damaged or unreachable, and was computed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Whose block it is.
    pub key: BlockKey,
    /// What was wrong.
    pub what: String,
}

/// What scoring took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// Blocks read.
    pub blocks_read: u64,
    /// Bytes of those blocks.
    pub bytes_read: u64,
    /// Positions that went through the decoder.
    pub tokens_computed: u64,
    /// Blocks that were damaged and computed again.
    pub damages: Vec<Damage>,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.blocks_read += other.blocks_read;
        self.bytes_read += other.bytes_read;
        self.tokens_computed += other.tokens_computed;
        self.damages.extend(other.damages);
    }
}

/// Scores in the order of the keys, and what they took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// One score a key.
    pub scores: Vec<f32>,
    /// What it took.
    pub work: Work,
}

/// Why candidates were not scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RerankError {
    /// The model refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A block that the store does not have.
    #[error("the store has no block of {0:?}")]
    Absent(BlockKey),
    /// Neither the block nor the token ids it is made from can be read.
    #[error("{} can neither be read nor computed again ({block})", key.chunk)]
    Lost {
        /// Whose block it is.
        key: BlockKey,
        /// What is wrong with the block; empty where it was not asked for.
        block: String,
        /// What is wrong with the token ids.
        #[source]
        source: BlockError,
    },
}

/// Scores every key's block for `query`. The next batch is read while this one is computed.
///
/// # Errors
/// [`RerankError`]; damaged blocks alone are none.
pub fn score<M: LanguageModel>(
    model: &M,
    query: &[u32],
    keys: &[BlockKey],
    chunk_tokens: usize,
    source: Source<'_>,
    chunks: &dyn ChunkRead,
) -> Result<Scored, RerankError> {
    let largest = model.geometry().block_bytes(chunk_tokens);
    let batches = keys.chunks((model.batch_bytes() / largest).max(1));
    let mut scored = Scored::default();
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(0);
        scope.spawn(move || {
            for keys in batches {
                let blocks = match source {
                    Source::Stored(blocks) => blocks.get_many(keys),
                    Source::Recompute => Vec::new(),
                };
                if sender.send((keys, blocks)).is_err() {
                    break; // The other side has failed and says why.
                }
            }
        });
        for (keys, stored) in receiver {
            let mut work = Work::default();
            let resident = match source {
                Source::Stored(_) => complete(model, keys, stored, chunks, &mut work)?,
                Source::Recompute => compute(model, keys, chunks, &mut work)?,
            };
            let batch = model.score(query, &resident.iter().collect::<Vec<_>>())?;
            work.tokens_computed += (keys.len() * query.len().saturating_sub(1)) as u64;
            scored.scores.extend(batch);
            scored.work += work;
        }
        Ok(scored)
    })
}

/// The blocks as read and uploaded, the damaged ones computed again.
fn complete<M: LanguageModel>(
    model: &M,
    keys: &[BlockKey],
    stored: Vec<Result<Option<KvBlock>, BlockError>>,
    chunks: &dyn ChunkRead,
    work: &mut Work,
) -> Result<Vec<M::Resident>, RerankError> {
    let mut blocks = Vec::with_capacity(keys.len());
    for (key, block) in keys.iter().zip(stored) {
        match block {
            Ok(Some(block)) => {
                work.blocks_read += 1;
                work.bytes_read += block.geometry().block_bytes(block.tokens()) as u64;
                blocks.push(model.upload(block)?);
            }
            Ok(None) => return Err(RerankError::Absent(key.clone())),
            Err(error) => {
                let what = error.to_string();
                let again = compute(model, std::slice::from_ref(key), chunks, work);
                blocks.extend(again.map_err(|again| match again {
                    RerankError::Lost { key, source, .. } => {
                        RerankError::Lost { key, block: what.clone(), source }
                    }
                    other => other,
                })?);
                work.damages.push(Damage { key: key.clone(), what });
            }
        }
    }
    Ok(blocks)
}

fn compute<M: LanguageModel>(
    model: &M,
    keys: &[BlockKey],
    chunks: &dyn ChunkRead,
    work: &mut Work,
) -> Result<Vec<M::Resident>, RerankError> {
    let chunk = |key: &BlockKey| {
        let block = "not asked for".to_owned();
        chunks.chunk(key).map_err(|source| RerankError::Lost { key: key.clone(), block, source })
    };
    let chunks = keys.iter().map(chunk).collect::<Result<Vec<_>, _>>()?;
    work.tokens_computed += chunks.iter().map(|chunk| chunk.tokens.len() as u64).sum::<u64>();
    Ok(model.prefill_resident(&chunks)?)
}
