//! Scores blocks, stored or computed again, for one query or many.
//!
//! In: requests of a query and block keys, a model, and readers of blocks and chunks. Out: a score for
//! each key, and the work. It does not know documents or ranks.

use hyperrag_core::{
    BlockError, BlockKey, BlockRead, ChunkRead, Classified, ErrorKind, Failover, Hint,
    LanguageModel, LayerSource, ModelError, Opened, Pair, QuerySuffix,
};

use crate::plan::planner::Planner;

/// Largest number of blocks open at once. Each may keep a shard's file open, and a process may have few
/// open files.
const OPENED_MAX: usize = 256;

/// Treatment of a stored block that is damaged or cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// Computation of the block from its token ids.
    #[default]
    Recompute,
    /// Failure of the request.
    Fail,
    /// Scores without the block.
    Skip,
}

/// Source of the blocks.
#[derive(Clone, Copy)]
pub enum BlockSource<'a> {
    /// Stored blocks.
    Stored(&'a dyn BlockRead, OnDamage),
    /// Stored blocks, of which some are computed while others are on their way, as is sooner.
    Planned(&'a dyn BlockRead, OnDamage, &'a Planner),
    /// Blocks that are all computed again from their token ids.
    Recompute,
}

/// A stored block that was damaged or unreachable, and was computed again or left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBlock {
    /// Key of the block.
    pub key: BlockKey,
    /// Fault of the block.
    pub what: String,
    /// Whether the block was left out. If not, it was computed again.
    pub skipped: bool,
}

/// Amount of work that scoring took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// Number of blocks read.
    pub blocks_read: u64,
    /// Size of those blocks, in bytes.
    pub bytes_read: u64,
    /// Number of positions that went through the decoder.
    pub tokens_computed: u64,
    /// Number of stored blocks that were computed because that was sooner than loading them.
    pub blocks_computed: u64,
    /// Blocks that were damaged, and computed again or left out.
    pub damages: Vec<DamagedBlock>,
    /// Reads that a replica served.
    pub failovers: Vec<Failover>,
}

/// Scores in the order of the keys, and the work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoredBlocks {
    /// A score for each key; `None` for a block that was left out.
    pub scores: Vec<Option<f32>>,
    /// Work that the scores took.
    pub work: Work,
}

/// Reasons why candidates were not scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RerankError {
    /// A refusal by the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A block that the store does not have.
    #[error("the store has no block of {0:?}")]
    Absent(BlockKey),
    /// A damaged block under [`OnDamage::Fail`].
    #[error("{what}; the block of {} is damaged", key.chunk)]
    Damaged {
        /// Key of the block.
        key: BlockKey,
        /// Fault of the block.
        what: String,
    },
    /// A file that the system refuses, which is no damage.
    #[error(
        "the block of {} is refused by the system: give this user the right to read it, or this process \
         more open files (`ulimit -n`)", key.chunk
    )]
    Refused {
        /// Key of the block.
        key: BlockKey,
        /// Cause.
        #[source]
        source: BlockError,
    },
    /// A block that can be neither read nor computed again.
    #[error("{} can neither be read nor computed again ({block})", key.chunk)]
    Lost {
        /// Key of the block.
        key: BlockKey,
        /// Fault of the block, or a note that the stored one was not asked for.
        block: String,
        /// Fault of the token ids.
        #[source]
        source: BlockError,
    },
}

impl RerankError {
    /// Makes the error for a block whose token ids cannot be read either.
    #[must_use]
    pub fn lost(key: &BlockKey, block: String, source: BlockError) -> Self {
        let key = key.clone();
        match source.is_refusal() {
            true => Self::Refused { key, source },
            false => Self::Lost { key, block, source },
        }
    }
}

impl Classified for RerankError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Model(error) => error.kind(),
            Self::Absent(_) => ErrorKind::Failed,
            Self::Damaged { .. } | Self::Lost { .. } => ErrorKind::Damaged,
            Self::Refused { .. } => ErrorKind::Refused,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Model(error) => error.hint(),
            Self::Damaged { .. } => Some(Hint::RepairOrRecompute),
            _ => None,
        }
    }
}

/// Blocks to score for a query.
#[derive(Clone, Copy, Debug)]
pub struct ScoreRequest<'a> {
    /// The query.
    pub query: &'a QuerySuffix,
    /// Keys of the blocks.
    pub keys: &'a [BlockKey],
}

/// A block of a request.
#[derive(Clone, Copy)]
pub(crate) struct PendingBlock<'a> {
    /// Index of the request, and index of the key in it.
    pub(crate) place: (usize, usize),
    pub(crate) query: &'a QuerySuffix,
    key: &'a BlockKey,
}

/// A block of a request, open.
pub(crate) type OpenBlock<'a, 's> = (PendingBlock<'a>, Box<dyn LayerSource + 's>);

/// A block of a request that could not be read.
pub(crate) type DamagedRead<'a> = (PendingBlock<'a>, BlockError);

/// Scores every key's block for the query of its request. Results are in the order of the requests.
/// Candidates of several queries go through the model together. A request fails by itself if one of its
/// blocks cannot be had; damage alone is no failure unless `source` says so.
///
/// # Errors
/// [`RerankError::Model`], which fails all requests.
pub fn score<M: LanguageModel>(
    model: &M,
    requests: &[ScoreRequest<'_>],
    chunk_tokens: usize,
    source: BlockSource<'_>,
    chunks: &dyn ChunkRead,
) -> Result<Vec<Result<ScoredBlocks, RerankError>>, RerankError> {
    let empty = |request: &ScoreRequest<'_>| {
        Ok(ScoredBlocks { scores: vec![None; request.keys.len()], work: Work::default() })
    };
    let largest = model.kv_shape().block_bytes(chunk_tokens);
    let mut scoring = Scoring {
        model,
        chunks,
        batch: (model.batch_bytes() / largest).max(1),
        scored: requests.iter().map(empty).collect(),
    };
    let all = requests.iter().enumerate().flat_map(|(i, request)| {
        let keys = request.keys.iter().enumerate();
        keys.map(move |(j, key)| PendingBlock { place: (i, j), query: request.query, key })
    });
    let all: Vec<PendingBlock<'_>> = all.collect();
    match source {
        BlockSource::Stored(blocks, on_damage) => {
            for pending in all.chunks(OPENED_MAX) {
                scoring.stored(pending, blocks, on_damage)?;
            }
        }
        BlockSource::Planned(blocks, on_damage, planner) => {
            for pending in all.chunks(OPENED_MAX) {
                scoring.planned(pending, blocks, on_damage, planner)?;
            }
        }
        BlockSource::Recompute => {
            scoring.recompute(all.into_iter().map(|pending| (pending, "not asked for")))?;
        }
    }
    Ok(scoring.scored)
}

/// The state of scoring.
pub(crate) struct Scoring<'a, M> {
    model: &'a M,
    chunks: &'a dyn ChunkRead,
    /// Number of blocks that are computed together.
    pub(crate) batch: usize,
    scored: Vec<Result<ScoredBlocks, RerankError>>,
}

impl<M: LanguageModel> Scoring<'_, M> {
    /// Returns the request's scores so far; `None` if the request has failed.
    fn scored(&mut self, pending: &PendingBlock<'_>) -> Option<&mut ScoredBlocks> {
        self.scored[pending.place.0].as_mut().ok()
    }

    fn has_failed(&self, pending: &PendingBlock<'_>) -> bool {
        self.scored[pending.place.0].is_err()
    }

    fn fail(&mut self, pending: &PendingBlock<'_>, error: RerankError) {
        if !self.has_failed(pending) {
            self.scored[pending.place.0] = Err(error);
        }
    }

    fn set(&mut self, pending: &PendingBlock<'_>, score: f32) {
        if let Some(scored) = self.scored(pending) {
            scored.scores[pending.place.1] = Some(score);
            scored.work.tokens_computed += pending.query.computed().len() as u64;
        }
    }

    /// Scores stored blocks. `on_damage` decides the treatment of damaged ones.
    fn stored(
        &mut self,
        all: &[PendingBlock<'_>],
        blocks: &dyn BlockRead,
        on_damage: OnDamage,
    ) -> Result<(), RerankError> {
        let (opened, mut damaged) = self.open(all, |keys| blocks.open_many(keys));
        damaged.extend(self.score_open(opened)?);
        self.damaged(damaged, on_damage)
    }

    /// Opens blocks by `open`, and returns those that are damaged apart.
    pub(crate) fn open<'a, 's>(
        &mut self,
        all: &[PendingBlock<'a>],
        open: impl FnOnce(&[BlockKey]) -> Vec<Opened<'s>>,
    ) -> (Vec<OpenBlock<'a, 's>>, Vec<DamagedRead<'a>>) {
        let all: Vec<_> = all.iter().filter(|pending| !self.has_failed(pending)).collect();
        let keys: Vec<BlockKey> = all.iter().map(|pending| pending.key.clone()).collect();
        let (mut opened, mut damaged) = (Vec::new(), Vec::new());
        for (pending, block) in all.into_iter().zip(open(&keys)) {
            match block {
                Ok(Some(block)) => opened.push((*pending, block)),
                Ok(None) => self.fail(pending, RerankError::Absent(pending.key.clone())),
                Err(error) => damaged.push((*pending, error)),
            }
        }
        (opened, damaged)
    }

    /// Scores open blocks, and returns those that could not be read.
    pub(crate) fn score_open<'a>(
        &mut self,
        opened: Vec<OpenBlock<'a, '_>>,
    ) -> Result<Vec<DamagedRead<'a>>, RerankError> {
        let mut damaged = Vec::new();
        let pairs = opened.iter().map(|(w, block)| Pair { query: w.query, block: &**block });
        let scores = self.model.score_streamed(&pairs.collect::<Vec<_>>())?;
        for ((pending, block), score) in opened.into_iter().zip(scores) {
            let Some(ScoredBlocks { work, .. }) = self.scored(&pending) else { continue };
            work.failovers.extend(block.failovers());
            match score {
                Ok(score) => {
                    work.blocks_read += 1;
                    work.bytes_read += block.kv_shape().block_bytes(block.tokens()) as u64;
                    self.set(&pending, score);
                }
                Err(error) => damaged.push((pending, error)),
            }
        }
        Ok(damaged)
    }

    /// Scores blocks that are computed because that is sooner than loading them.
    pub(crate) fn compute(&mut self, all: &[PendingBlock<'_>]) -> Result<(), RerankError> {
        for pending in all {
            if let Some(ScoredBlocks { work, .. }) = self.scored(pending) {
                work.blocks_computed += 1;
            }
        }
        self.recompute(all.iter().map(|pending| (*pending, "not asked for")))
    }

    /// Treats damaged blocks as `on_damage` says.
    pub(crate) fn damaged(
        &mut self,
        mut damaged: Vec<DamagedRead<'_>>,
        on_damage: OnDamage,
    ) -> Result<(), RerankError> {
        damaged.sort_by_key(|(pending, _)| pending.place);
        let skipped = on_damage == OnDamage::Skip;
        let mut again = Vec::new();
        for (pending, source) in damaged {
            let (key, what) = (pending.key.clone(), source.to_string());
            if source.is_refusal() {
                self.fail(&pending, RerankError::Refused { key, source });
            } else if on_damage == OnDamage::Fail {
                self.fail(&pending, RerankError::Damaged { key, what });
            } else if let Some(scored) = self.scored(&pending) {
                scored.work.damages.push(DamagedBlock { key, what, skipped });
                again.push((pending, source));
            }
        }
        if skipped {
            return Ok(());
        }
        self.recompute(again.into_iter())
    }

    /// Scores blocks that are made from their token ids. Each comes with the fault of the stored block.
    fn recompute<'w>(
        &mut self,
        all: impl Iterator<Item = (PendingBlock<'w>, impl ToString)>,
    ) -> Result<(), RerankError> {
        let mut all = all.peekable();
        while all.peek().is_some() {
            let (mut batch, mut chunks) = (Vec::new(), Vec::new());
            for (pending, block) in all.by_ref().take(self.batch) {
                let chunks_of = self.chunks;
                let Some(ScoredBlocks { work, .. }) = self.scored(&pending) else { continue };
                match chunks_of.chunk(pending.key, &mut work.failovers) {
                    Ok(chunk) => {
                        work.tokens_computed += chunk.tokens.len() as u64;
                        batch.push(pending);
                        chunks.push(chunk);
                    }
                    Err(source) => {
                        let lost = RerankError::lost(pending.key, block.to_string(), source);
                        self.fail(&pending, lost);
                    }
                }
            }
            if batch.is_empty() {
                continue;
            }
            let blocks = self.model.prefill_resident(&chunks)?;
            let pairs = batch.iter().zip(&blocks);
            let pairs = pairs.map(|(pending, block)| Pair { query: pending.query, block });
            let scores = self.model.score_resident(&pairs.collect::<Vec<_>>())?;
            for (pending, score) in batch.iter().zip(scores) {
                self.set(pending, score);
            }
        }
        Ok(())
    }
}
