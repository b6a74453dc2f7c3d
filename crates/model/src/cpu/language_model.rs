//! The decoder behind the trait: inputs checked, batches cut, blocks and scores out.

use hyperrag_kv::{Chunk, Geometry, KvBlock, LanguageModel, ModelError};

use super::decoder::{CpuModel, Sequence};
use super::past::Past;

/// Rows of one forward pass at most: enough to fill the tiles, few enough to keep buffers small.
pub(crate) const ROWS_MAX: usize = 1024;

impl CpuModel {
    /// `ln p(token | all tokens before)` of every token but the first, in one pass over the whole
    /// run: what the two-part scores are checked against.
    ///
    /// # Errors
    /// As [`LanguageModel::prefill`].
    pub fn log_probabilities_of_run(&self, tokens: &[u32]) -> Result<Vec<f64>, ModelError> {
        self.config.check(tokens, 0, || "the run".to_owned())?;
        if tokens.len() == 1 {
            return Ok(Vec::new());
        }
        let hidden = self.config.hidden;
        let mut logs = Vec::new();
        self.pool.install(|| {
            self.forward(&[Sequence { past: None, tokens }], None, |x| {
                let mut rows = vec![0.0; x.len() - hidden];
                for (row, x) in rows.chunks_exact_mut(hidden).zip(x.chunks_exact(hidden)) {
                    self.kernel.rms_norm(x, &self.weights.final_norm, self.config.norm_eps, row);
                }
                logs = self.log_probabilities(&rows, &tokens[1..]);
            });
        });
        Ok(logs)
    }

    fn prefill_batch(&self, chunks: &[&Chunk]) -> Vec<KvBlock> {
        let sequences: Vec<_> =
            chunks.iter().map(|c| Sequence { past: None, tokens: &c.tokens }).collect();
        let bytes = self.geometry.token_bytes();
        let mut kept: Vec<Vec<u8>> =
            chunks.iter().map(|c| vec![0; c.tokens.len() * bytes]).collect();
        let hidden = self.config.hidden;
        let mut last = Vec::with_capacity(chunks.len());
        self.forward(&sequences, Some(&mut kept), |x| {
            let mut end = 0;
            for chunk in chunks {
                end += chunk.tokens.len() * hidden;
                let mut state = vec![0.0; hidden];
                self.norm(&x[end - hidden..end], &self.weights.final_norm, &mut state);
                last.push(state);
            }
        });
        let parts = chunks.iter().zip(kept).zip(last);
        parts
            .map(|((c, kv), hidden)| KvBlock::new(self.geometry, c.tokens.len(), kv, hidden))
            .collect()
    }

    fn score_batch(&self, query: &[u32], blocks: &[&KvBlock]) -> Vec<f32> {
        let tokens = &query[..query.len() - 1];
        if tokens.is_empty() {
            return self.mean_log_probabilities(query, blocks, &[]);
        }
        let sequences: Vec<_> =
            blocks.iter().map(|b| Sequence { past: Some(Past::Block(b)), tokens }).collect();
        let mut scores = Vec::new();
        self.forward(&sequences, None, |x| scores = self.mean_log_probabilities(query, blocks, x));
        scores
    }
}

impl LanguageModel for CpuModel {
    type Resident = KvBlock;

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn context_tokens(&self) -> usize {
        self.config.context
    }

    fn prefill(&self, chunks: &[Chunk]) -> Result<Vec<KvBlock>, ModelError> {
        for chunk in chunks {
            self.config.check(&chunk.tokens, 0, || chunk.id.to_string())?;
        }
        let mut blocks = Vec::with_capacity(chunks.len());
        let mut rest = chunks;
        while !rest.is_empty() {
            let mut rows = 0;
            let fits = rest.iter().take_while(|chunk| {
                rows += chunk.tokens.len();
                rows <= ROWS_MAX
            });
            let (batch, later) = rest.split_at(fits.count().max(1));
            let batch: Vec<&Chunk> = batch.iter().collect();
            blocks.extend(self.pool.install(|| self.prefill_batch(&batch)));
            rest = later;
        }
        for (block, chunk) in blocks.iter().zip(chunks) {
            if block.hidden().iter().any(|value| !value.is_finite()) {
                return Err(ModelError::NotANumber { what: chunk.id.to_string() });
            }
        }
        Ok(blocks)
    }

    fn upload(&self, block: KvBlock) -> Result<KvBlock, ModelError> {
        if *block.geometry() != self.geometry {
            let (block, model) = (Box::new(*block.geometry()), Box::new(self.geometry));
            return Err(ModelError::Geometry { block, model });
        }
        Ok(block)
    }

    fn score(&self, query: &[u32], candidates: &[&KvBlock]) -> Result<Vec<f32>, ModelError> {
        let longest = candidates.iter().map(|block| block.tokens()).max().unwrap_or(0);
        self.config.check(query, longest, || "the query".to_owned())?;
        let batch = (ROWS_MAX / query.len()).max(1);
        let batches = candidates.chunks(batch);
        let scores: Vec<f32> =
            self.pool.install(|| batches.flat_map(|b| self.score_batch(query, b)).collect());
        match scores.iter().position(|score| !score.is_finite()) {
            Some(i) => Err(ModelError::NotANumber { what: format!("candidate {i}") }),
            None => Ok(scores),
        }
    }
}
