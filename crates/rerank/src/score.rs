use std::ops::AddAssign;
use std::sync::mpsc::sync_channel;

use hyperrag_kv::{
    BlockError, BlockKey, BlockRead, ChunkRead, KvBlock, LanguageModel, ModelError, Pair, QueryPart,
};

/// What becomes of a stored block that is damaged or can not be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// It is computed again from its token ids.
    #[default]
    Recompute,
    /// Nothing is scored.
    Fail,
    /// Its candidate is scored without it.
    Skip,
}

/// Where the blocks come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// Stored ones.
    Stored(&'a dyn BlockRead, OnDamage),
    /// All computed again from their token ids.
    Recompute,
}

/// A stored block that was damaged or unreachable, and was computed again or left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Whose block it is.
    pub key: BlockKey,
    /// What was wrong.
    pub what: String,
    /// Whether it was left out.
    pub skipped: bool,
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
    /// Blocks that were damaged, and computed again or left out.
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
    /// One score a key; `None` for a block that was left out.
    pub scores: Vec<Option<f32>>,
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
    /// A damaged block, where that is to end everything.
    #[error("{what}; the block of {} is damaged: mend it with `hyperrag repair`, or ask with --on-damage recompute", key.chunk)]
    Damaged {
        /// Whose block it is.
        key: BlockKey,
        /// What is wrong with it.
        what: String,
    },
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
    query: &QueryPart,
    keys: &[BlockKey],
    chunk_tokens: usize,
    source: Source<'_>,
    chunks: &dyn ChunkRead,
) -> Result<Scored, RerankError> {
    let largest = model.geometry().block_bytes(chunk_tokens);
    let size = (model.batch_bytes() / largest).max(1);
    // What is left over comes first: nothing is computed until the first batch is read.
    let (first, rest) = keys.split_at(keys.len() % size);
    let batches = std::iter::once(first).filter(|keys| !keys.is_empty()).chain(rest.chunks(size));
    let mut scored = Scored::default();
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(0);
        scope.spawn(move || {
            for keys in batches {
                let blocks = match source {
                    Source::Stored(blocks, _) => blocks.get_many(keys),
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
                Source::Stored(_, on_damage) => {
                    complete(model, keys, stored, chunks, on_damage, &mut work)?
                }
                Source::Recompute => {
                    compute(model, keys, chunks, &mut work)?.into_iter().map(Some).collect()
                }
            };
            let present = resident.iter().flatten().map(|block| Pair { query, block });
            let present: Vec<_> = present.collect();
            work.tokens_computed += (present.len() * query.computed().len()) as u64;
            let mut batch = model.score_pairs(&present)?.into_iter();
            scored.scores.extend(resident.iter().map(|r| r.as_ref().and_then(|_| batch.next())));
            scored.work += work;
        }
        Ok(scored)
    })
}

/// The blocks as read and uploaded, the damaged ones computed again or left out.
fn complete<M: LanguageModel>(
    model: &M,
    keys: &[BlockKey],
    stored: Vec<Result<Option<KvBlock>, BlockError>>,
    chunks: &dyn ChunkRead,
    on_damage: OnDamage,
    work: &mut Work,
) -> Result<Vec<Option<M::Resident>>, RerankError> {
    let mut blocks = Vec::with_capacity(keys.len());
    for (key, block) in keys.iter().zip(stored) {
        match block {
            Ok(Some(block)) => {
                work.blocks_read += 1;
                work.bytes_read += block.geometry().block_bytes(block.tokens()) as u64;
                blocks.push(Some(model.upload(block)?));
            }
            Ok(None) => return Err(RerankError::Absent(key.clone())),
            Err(error) => {
                let what = error.to_string();
                let damage = |skipped| Damage { key: key.clone(), what: what.clone(), skipped };
                match on_damage {
                    OnDamage::Fail => {
                        return Err(RerankError::Damaged { key: key.clone(), what });
                    }
                    OnDamage::Skip => {
                        blocks.push(None);
                        work.damages.push(damage(true));
                    }
                    OnDamage::Recompute => {
                        let again = compute(model, std::slice::from_ref(key), chunks, work);
                        let again = again.map_err(|again| with_block(again, &what))?;
                        blocks.extend(again.into_iter().map(Some));
                        work.damages.push(damage(false));
                    }
                }
            }
        }
    }
    Ok(blocks)
}

/// An error of computing a block again, with what is wrong with the stored one.
fn with_block(error: RerankError, block: &str) -> RerankError {
    match error {
        RerankError::Lost { key, source, .. } => {
            RerankError::Lost { key, block: block.to_owned(), source }
        }
        other => other,
    }
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
