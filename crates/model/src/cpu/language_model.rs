//! The decoder behind the trait: inputs checked, batches cut, blocks and scores out.

use hyperrag_kv::{Chunk, Geometry, KvBlock, LanguageModel, ModelError, Pair};

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
                let states = &x[..rows.len()];
                self.norm_rows(states, &self.weights.final_norm, &mut rows);
                logs = self.log_probabilities(&rows, &tokens[1..]);
            });
        });
        Ok(logs)
    }

    fn prefill_batch(&self, chunks: &[Chunk]) -> Vec<KvBlock> {
        let sequences: Vec<_> =
            chunks.iter().map(|c| Sequence { past: None, tokens: &c.tokens }).collect();
        let bytes = self.geometry.token_bytes();
        let mut kept: Vec<Vec<u8>> =
            chunks.iter().map(|c| KvBlock::memory(c.tokens.len() * bytes)).collect();
        let hidden = self.config.hidden;
        let mut last = Vec::with_capacity(chunks.len());
        self.forward(&sequences, Some(&mut kept), |x| {
            let mut end = 0;
            for chunk in chunks {
                end += chunk.tokens.len() * hidden;
                let mut state = vec![0.0; hidden];
                self.norm_rows(&x[end - hidden..end], &self.weights.final_norm, &mut state);
                last.push(state);
            }
        });
        let parts = chunks.iter().zip(kept).zip(last);
        parts
            .map(|((c, kv), hidden)| KvBlock::new(self.geometry, c.tokens.len(), kv, hidden))
            .collect()
    }

    fn score_batch(&self, pairs: &[Pair<'_, KvBlock>]) -> Vec<f32> {
        let all = pairs.iter().map(|pair| Sequence {
            past: Some(Past::Block(pair.block)),
            tokens: pair.query.computed(),
        });
        let sequences: Vec<_> = all.filter(|sequence| !sequence.tokens.is_empty()).collect();
        if sequences.is_empty() {
            return self.scores(pairs, &[]);
        }
        let mut scores = Vec::new();
        self.forward(&sequences, None, |x| scores = self.scores(pairs, x));
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
        for batch in batches(chunks, |chunk| chunk.tokens.len()) {
            blocks.extend(self.pool.install(|| self.prefill_batch(batch)));
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

    fn score_pairs(&self, pairs: &[Pair<'_, KvBlock>]) -> Result<Vec<f32>, ModelError> {
        for pair in pairs {
            self.config.check_query(pair.query, pair.block.tokens())?;
        }
        let mut scores = Vec::with_capacity(pairs.len());
        for batch in batches(pairs, |pair| pair.query.tokens.len()) {
            scores.extend(self.pool.install(|| self.score_batch(batch)));
        }
        match scores.iter().position(|score: &f32| !score.is_finite()) {
            Some(i) => Err(ModelError::NotANumber { what: format!("candidate {i}") }),
            None => Ok(scores),
        }
    }
}

/// Cuts `items` into runs that a pass takes at once: of at most [`ROWS_MAX`] rows, or one item.
fn batches<T>(items: &[T], rows: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut all = 0;
        let fits = rest.iter().take_while(|item| {
            all += rows(item);
            all <= ROWS_MAX
        });
        let (batch, later) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = later;
        (!batch.is_empty()).then_some(batch)
    })
}
