//! Times reuse against recompute over the same candidates, and compares their scores.

use std::time::Instant;

use hyperrag_core::{BlockKey, LanguageModel, Tokenize};
use hyperrag_engine::search::request::keys;
use hyperrag_engine::search::session::BlockPolicy;
use hyperrag_engine::{EngineError, Query, Session};
use hyperrag_rerank::{ScoredBlocks, Work};
use serde::Serialize;

use crate::experiment::machine::{peak_memory_bytes, reset_peak_memory};
use crate::metric::agreement::{Agreement, agreement};
use crate::metric::stats::Summary;

/// Blocks that recompute warms up with.
const WARM_UP_BLOCKS: usize = 8;

/// Settings of a bench.
#[derive(Clone, Copy, Debug)]
pub struct BenchSettings {
    /// Candidates a query.
    pub depth: usize,
    /// Timed runs of every query in every mode.
    pub runs: usize,
    /// Whether the first query is run before anything is timed: all of reuse, some of recompute.
    pub warm_up: bool,
}

/// Source of the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// From the store.
    Reuse,
    /// Computed again from the token ids.
    Recompute,
}

impl Mode {
    fn policy(self) -> BlockPolicy {
        match self {
            Self::Reuse => BlockPolicy::Load,
            Self::Recompute => BlockPolicy::Recompute,
        }
    }
}

/// One timed run of one query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// The query.
    pub query_id: String,
    /// Source of the blocks.
    pub mode: Mode,
    /// Blocks scored.
    pub blocks: usize,
    /// Seconds taken.
    pub seconds: f64,
    /// Positions that went through the decoder.
    pub tokens_computed: u64,
    /// Bytes read from the store.
    pub bytes_read: u64,
    /// Most memory held meanwhile, the weights included.
    pub peak_memory_bytes: Option<u64>,
}

/// Agreement of a query's scores between the modes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The query.
    pub query_id: String,
    /// Whether all scores have the same bits.
    pub bit_equal: bool,
    /// Difference, overlap and tau.
    #[serde(flatten)]
    pub agreement: Agreement,
}

/// Work of a bench for a query, as token ids, for programs that are to be compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Workload {
    /// The query's, what the profile puts around it included.
    pub query: Vec<u32>,
    /// The candidates' chunks, in the order of a bench; nothing comes between one and the query.
    pub documents: Vec<Vec<u32>>,
    /// The document of each chunk.
    pub ids: Vec<String>,
    /// The score of each from the stored blocks, by the profile's scorer.
    pub scores: Vec<f32>,
}

/// Everything a bench saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BenchReport {
    /// Every timed run.
    pub samples: Vec<Sample>,
    /// Every query's agreement.
    pub comparisons: Vec<Comparison>,
    /// Blocks that were damaged and computed again.
    pub damaged_blocks: usize,
    /// Blocks and files that were read from a replica.
    pub failovers: usize,
}

impl BenchReport {
    /// Seconds a query in one mode.
    #[must_use]
    pub fn seconds(&self, mode: Mode) -> Option<Summary> {
        Summary::of(&self.of(mode).map(|sample| sample.seconds).collect::<Vec<_>>())
    }

    /// Blocks a second in one mode, over all its runs.
    #[must_use]
    pub fn blocks_per_second(&self, mode: Mode) -> f64 {
        let blocks: usize = self.of(mode).map(|sample| sample.blocks).sum();
        blocks as f64 / self.of(mode).map(|sample| sample.seconds).sum::<f64>()
    }

    /// The samples of one mode.
    pub fn of(&self, mode: Mode) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.mode == mode)
    }
}

/// Runs every query with reuse and with recompute on the same candidates, in turn, and compares
/// their scores. `each` is called after every timed run.
///
/// # Errors
/// [`EngineError`].
pub fn bench<M: LanguageModel, T: Tokenize>(
    session: &Session<'_, M, T>,
    queries: &[Query],
    settings: BenchSettings,
    each: &mut dyn FnMut(),
) -> Result<BenchReport, EngineError> {
    let mut report = BenchReport::default();
    let mut warm_up = settings.warm_up;
    for query in queries {
        let keys = keys(&session.retrieve(query, settings.depth)?.hits).0;
        if keys.is_empty() {
            continue;
        }
        if std::mem::take(&mut warm_up) {
            session.score(query, &keys, BlockPolicy::Load)?;
            // Recompute needs its buffers only; all of it would take as long as what is timed.
            session.score(
                query,
                &keys[..keys.len().min(WARM_UP_BLOCKS)],
                BlockPolicy::Recompute,
            )?;
        }
        for _ in 0..settings.runs.max(1) {
            let (reused, work) = timed(session, query, &keys, Mode::Reuse, &mut report)?;
            each();
            let (recomputed, again) = timed(session, query, &keys, Mode::Recompute, &mut report)?;
            each();
            report.damaged_blocks += work.damages.len();
            report.failovers += work.failovers.len() + again.failovers.len();
            let equal = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
            report.comparisons.push(Comparison {
                query_id: query.id.clone(),
                bit_equal: reused.iter().zip(&recomputed).all(equal),
                agreement: agreement(&reused, &recomputed),
            });
        }
    }
    report.failovers += session.take_failovers().len();
    Ok(report)
}

/// The token ids of a query and of its candidates, with their scores.
///
/// # Errors
/// [`EngineError`].
pub fn workload<M: LanguageModel, T: Tokenize>(
    session: &Session<'_, M, T>,
    query: &Query,
    depth: usize,
) -> Result<Workload, EngineError> {
    let keys = keys(&session.retrieve(query, depth)?.hits).0;
    let mut workload =
        Workload { query: session.query_tokens(query)?.suffix.tokens, ..Workload::default() };
    for key in &keys {
        let chunk = session.chunk(key)?;
        workload.documents.push(chunk.tokens);
        workload.ids.push(chunk.id.document.as_str().to_owned());
    }
    let scores = session.score(query, &keys, BlockPolicy::Load)?.scores;
    workload.scores = scores.into_iter().flatten().collect();
    Ok(workload)
}

fn timed<M: LanguageModel, T: Tokenize>(
    session: &Session<'_, M, T>,
    query: &Query,
    keys: &[BlockKey],
    mode: Mode,
    report: &mut BenchReport,
) -> Result<(Vec<f32>, Work), EngineError> {
    reset_peak_memory();
    let start = Instant::now();
    let ScoredBlocks { scores, work } = session.score(query, keys, mode.policy())?;
    report.samples.push(Sample {
        query_id: query.id.clone(),
        mode,
        blocks: keys.len(),
        seconds: start.elapsed().as_secs_f64(),
        tokens_computed: work.tokens_computed,
        bytes_read: work.bytes_read,
        peak_memory_bytes: peak_memory_bytes(),
    });
    // No block is left out: the session computes damaged ones again.
    Ok((scores.into_iter().flatten().collect(), work))
}
