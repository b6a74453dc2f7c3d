//! The decoder behind the trait: checks inputs, cuts batches, returns blocks and scores.

use hyperrag_core::{BlockError, Chunk, KvBlock, KvShape, LanguageModel, ModelError, Pair};

use crate::backend::cpu::forward::{ResidualRows, Sequence};
use crate::backend::cpu::kv_cache::PastKv;
use crate::backend::cpu::lm_head::StreamedPair;
use crate::backend::cpu::micro_batches::{MicroBatches, in_micro_batches};
use crate::backend::cpu::model::CpuModel;

/// Best number of rows at once for few threads: the largest micro-batches for two, and little memory for the
/// blocks made of them.
const ROWS: usize = 2048;
/// Best number of rows at once for each of many threads.
const ROWS_OF_A_THREAD: usize = 256;

impl CpuModel {
    fn rows_at_once(&self) -> usize {
        ROWS.max(self.threads() * ROWS_OF_A_THREAD)
    }

    /// Computes `ln p(token | all tokens before)` of every token but the first, in one pass over the
    /// whole run. Scores computed in two parts are checked against it.
    ///
    /// # Errors
    /// The errors of [`LanguageModel::prefill`].
    pub fn log_probabilities_of_run(&self, tokens: &[u32]) -> Result<Vec<f64>, ModelError> {
        self.config.check(tokens, 0, || "the run".to_owned())?;
        if tokens.len() == 1 {
            return Ok(Vec::new());
        }
        let hidden = self.config.hidden;
        let mut logs = Vec::new();
        self.pool.install(|| {
            let (all, batches) =
                ([Sequence { past: None, tokens }], MicroBatches::new(self.threads(), 1));
            self.forward(&all, None, ResidualRows::All, &batches, |x| {
                let mut rows = vec![0.0; x.len() - hidden];
                let states = &x[..rows.len()];
                self.norm_rows(states, &self.weights.final_norm, &mut rows);
                logs = self.log_probabilities(&rows, &tokens[1..], &batches);
            });
        });
        Ok(logs)
    }

    fn prefill_micro_batch(&self, chunks: &[Chunk], batches: &MicroBatches) -> Vec<KvBlock> {
        let sequences: Vec<_> =
            chunks.iter().map(|c| Sequence { past: None, tokens: &c.tokens }).collect();
        let bytes = self.kv_shape.token_bytes();
        let mut kv_out: Vec<Vec<u8>> =
            chunks.iter().map(|c| KvBlock::memory(c.tokens.len() * bytes)).collect();
        let hidden = self.config.hidden;
        let mut last = vec![vec![0.0; hidden]; chunks.len()];
        self.forward(&sequences, Some(&mut kv_out), ResidualRows::LastOfEach, batches, |x| {
            for (x, state) in x.chunks_exact(hidden).zip(&mut last) {
                self.norm_rows(x, &self.weights.final_norm, state);
            }
        });
        let parts = chunks.iter().zip(kv_out).zip(last);
        parts
            .map(|((c, kv), hidden)| KvBlock::new(self.kv_shape, c.tokens.len(), kv, hidden))
            .collect()
    }

    /// Computes the score of each pair, or returns why its block could not be read.
    fn score_micro_batch(
        &self,
        pairs: &[StreamedPair<'_>],
        batches: &MicroBatches,
    ) -> Vec<Result<f32, BlockError>> {
        let sequences = sequences_of(pairs);
        if sequences.is_empty() {
            return self.scores(pairs, &[], batches);
        }
        let mut scores = Vec::new();
        let failed = self.forward(&sequences, None, ResidualRows::All, batches, |x| {
            scores = self.scores(pairs, x, batches);
        });
        // A query of one token has no sequence: its score comes from the hidden state alone.
        let mut failed = failed.into_iter();
        let mut read = |pair: &StreamedPair<'_>| match pair.query.computed() {
            [] => None,
            _ => failed.next().flatten(),
        };
        let scores = pairs.iter().zip(scores);
        scores.map(|(pair, score)| read(pair).map_or(score, Err)).collect()
    }
}

impl LanguageModel for CpuModel {
    type Resident = KvBlock;

    fn kv_shape(&self) -> &KvShape {
        &self.kv_shape
    }

    fn context_tokens(&self) -> usize {
        self.config.context
    }

    fn prefill_tokens(&self) -> usize {
        self.rows_at_once()
    }

    fn score_rows(&self) -> usize {
        self.rows_at_once()
    }

    fn prefill(&self, chunks: &[Chunk]) -> Result<Vec<KvBlock>, ModelError> {
        for chunk in chunks {
            self.config.check(&chunk.tokens, 0, || chunk.id.to_string())?;
        }
        let rows = |chunk: &Chunk| chunk.tokens.len();
        let compute =
            |batch: &[Chunk], batches: &MicroBatches| self.prefill_micro_batch(batch, batches);
        let blocks =
            in_micro_batches(&self.pool, self.kernel.tile_rows(), chunks, rows, |_| (), compute);
        for (block, chunk) in blocks.iter().zip(chunks) {
            if block.hidden().iter().any(|value| !value.is_finite()) {
                return Err(ModelError::NotANumber { what: chunk.id.to_string() });
            }
        }
        Ok(blocks)
    }

    fn upload(&self, block: KvBlock) -> Result<KvBlock, ModelError> {
        if *block.kv_shape() != self.kv_shape {
            let (block, model) = (Box::new(*block.kv_shape()), Box::new(self.kv_shape));
            return Err(ModelError::KvShape { block, model });
        }
        Ok(block)
    }

    fn score_resident(&self, pairs: &[Pair<'_, KvBlock>]) -> Result<Vec<f32>, ModelError> {
        let streamed = pairs.iter().map(|pair| Pair { query: pair.query, block: pair.block as _ });
        let scores = self.score_streamed(&streamed.collect::<Vec<_>>())?.into_iter();
        Ok(scores.map(|score| score.expect("a block in memory is read")).collect())
    }

    fn score_streamed(
        &self,
        pairs: &[StreamedPair<'_>],
    ) -> Result<Vec<Result<f32, BlockError>>, ModelError> {
        for pair in pairs {
            self.config.check_query(pair.query, pair.block.tokens())?;
            if *pair.block.kv_shape() != self.kv_shape {
                let (block, model) = (Box::new(*pair.block.kv_shape()), Box::new(self.kv_shape));
                return Err(ModelError::KvShape { block, model });
            }
        }
        let rows = |pair: &StreamedPair<'_>| pair.query.computed().len();
        let prefetch =
            |batch: &[StreamedPair<'_>]| self.prefetch_first_layers(&sequences_of(batch));
        let compute = |batch: &[StreamedPair<'_>], batches: &MicroBatches| {
            self.score_micro_batch(batch, batches)
        };
        let scores =
            in_micro_batches(&self.pool, self.kernel.tile_rows(), pairs, rows, prefetch, compute);
        match scores.iter().position(|score| matches!(score, Ok(score) if !score.is_finite())) {
            Some(i) => Err(ModelError::NotANumber { what: format!("candidate {i}") }),
            None => Ok(scores),
        }
    }
}

/// Returns the sequences of the pairs whose query has tokens for the decoder.
fn sequences_of<'a>(pairs: &[StreamedPair<'a>]) -> Vec<Sequence<'a>> {
    let all = pairs.iter().map(|pair| Sequence {
        past: Some(PastKv::Block(pair.block)),
        tokens: pair.query.computed(),
    });
    all.filter(|sequence| !sequence.tokens.is_empty()).collect()
}
