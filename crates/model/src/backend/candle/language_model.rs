//! The decoder on a device behind the trait: checks inputs, cuts batches, moves blocks, returns scores.

use std::sync::mpsc::sync_channel;

use candle_core::{DType, Result, Tensor};
use hyperrag_core::{
    BlockError, Chunk, KvBlock, KvShape, LanguageModel, LayerSource, ModelError, Pair, QuerySuffix,
    Scorer,
};
use rayon::prelude::*;

use crate::arch::config::Config;
use crate::backend::candle::decoder::{DeviceBlock, DeviceKvOut, DeviceModel, DevicePastKv};
use crate::backend::candle::transfer::first_line;

/// Size of the blocks in one call of score, in bytes. The reader holds as many again in the host's
/// memory.
const BATCH_BYTES: usize = 512 << 20;
/// Number of positions in one call of prefill: several passes, so that chunks of similar length go
/// together.
const PREFILL_TOKENS: usize = 1 << 15;

impl DeviceModel {
    /// Computes K and V, `[layer and K or V][1][KV head][position][dim]`, and the final hidden state,
    /// `[1][hidden]`, of each chunk. Returns the results of `finish` for them.
    fn prefill_batch<R>(
        &self,
        chunks: &[&Chunk],
        finish: impl Fn(&Chunk, Tensor, Tensor) -> Result<R>,
    ) -> Result<Vec<R>> {
        let longest = chunks.iter().map(|chunk| chunk.tokens.len()).max().unwrap_or(0);
        // The padding of a shorter chunk follows its own positions, which cannot see it.
        let tokens = chunks.iter().flat_map(|chunk| {
            let padding = std::iter::repeat_n(0, longest - chunk.tokens.len());
            chunk.tokens.iter().copied().chain(padding)
        });
        let tokens: Vec<u32> = tokens.collect();
        let tokens = Tensor::from_vec(tokens, (chunks.len(), longest), &self.device)?;
        let Config { kv_heads, head_dim, layers, .. } = self.config;
        let length = chunks.len() * kv_heads * longest * head_dim;
        let kept = DeviceKvOut(Tensor::zeros((2 * layers, length), self.kv_dtype, &self.device)?);
        let rows = self.forward(&tokens, None, Some(&kept))?;
        let last = chunks.iter().enumerate().map(|(i, c)| i * longest + c.tokens.len() - 1);
        let last = Tensor::new(last.map(|row| row as u32).collect::<Vec<_>>(), &self.device)?;
        let hidden = self.final_norm(&rows.index_select(&last, 0)?)?;
        let shape = [2 * layers, chunks.len(), kv_heads, longest, head_dim];
        let kept = kept.0.reshape(&shape[..])?;
        let parts = chunks.iter().enumerate().map(|(i, chunk)| {
            let own = kept.narrow(1, i, 1)?.narrow(3, 0, chunk.tokens.len())?.contiguous()?;
            finish(chunk, own, hidden.narrow(0, i, 1)?.contiguous()?)
        });
        parts.collect()
    }

    /// Runs `finish` over all chunks, batched by length, and returns its results in the chunks' order.
    fn prefill_each<R>(
        &self,
        chunks: &[Chunk],
        finish: impl Fn(&Chunk, Tensor, Tensor) -> Result<R>,
    ) -> std::result::Result<Vec<R>, ModelError> {
        for chunk in chunks {
            self.config.check(&chunk.tokens, 0, || chunk.id.to_string())?;
        }
        // Longest first: batches of similar length have little padding, and the first is the largest.
        let mut order: Vec<(usize, &Chunk)> = chunks.iter().enumerate().collect();
        order.sort_by_key(|(_, chunk)| std::cmp::Reverse(chunk.tokens.len()));
        let shape = |(_, chunk): &(usize, &Chunk)| (chunk.tokens.len(), chunk.tokens.len(), 0);
        let made = self.batching.run(&order, shape, |batch| {
            self.prefill_batch(&batch.iter().map(|(_, chunk)| *chunk).collect::<Vec<_>>(), &finish)
        })?;
        let mut made: Vec<(usize, R)> = order.iter().map(|(i, _)| *i).zip(made).collect();
        made.sort_by_key(|(i, _)| *i);
        Ok(made.into_iter().map(|(_, result)| result).collect())
    }

    /// Pads a block of these positions, `[layer and K or V][1][KV head][position][dim]`.
    fn padded(&self, kv: &Tensor, hidden: Tensor, tokens: usize) -> Result<DeviceBlock> {
        let kv = kv.pad_with_zeros(3, 0, self.block_positions - tokens)?;
        let kv = kv.contiguous()?.flatten_from(2)?;
        Ok(DeviceBlock { kv, hidden, tokens })
    }

    fn place(&self, block: &KvBlock) -> Result<DeviceBlock> {
        let Config { kv_heads, head_dim, layers, .. } = self.config;
        let shape = [2 * layers, 1, kv_heads, block.tokens(), head_dim];
        let kv = self.transfer.upload(block.kv(), self.kv_dtype, &shape, &self.device)?;
        let hidden = Tensor::new(block.hidden(), &self.device)?.unsqueeze(0)?;
        self.padded(&kv, hidden, block.tokens())
    }

    fn check_positions(&self, tokens: usize) -> std::result::Result<(), ModelError> {
        let max = self.block_positions;
        match tokens > max {
            true => Err(ModelError::TooLong { what: "the block".to_owned(), tokens, max }),
            false => Ok(()),
        }
    }

    /// Scores blocks for one query.
    fn score_batch(&self, query: &QuerySuffix, blocks: &[&DeviceBlock]) -> Result<Vec<f32>> {
        let (count, own) = (blocks.len(), query.computed());
        let rows = match own {
            [] => None,
            own => {
                let tokens = Tensor::from_vec(own.repeat(count), (count, own.len()), &self.device)?;
                let rows = self.forward(&tokens, Some(&self.past(blocks)?), None)?;
                Some(rows.reshape((count, own.len(), self.config.hidden))?)
            }
        };
        match (query.scorer, rows) {
            (Scorer::QueryLikelihood, rows) => {
                self.mean_log_probabilities(&query.tokens, blocks, rows)
            }
            (scorer, Some(rows)) => self.label_scores(scorer, &rows.narrow(1, own.len() - 1, 1)?),
            (_, None) => candle_core::bail!("a query without tokens"),
        }
    }

    /// Computes scores from the residual rows of all tokens of the query but the last.
    fn mean_log_probabilities(
        &self,
        query: &[u32],
        blocks: &[&DeviceBlock],
        rows: Option<Tensor>,
    ) -> Result<Vec<f32>> {
        let first: Vec<&Tensor> = blocks.iter().map(|block| &block.hidden).collect();
        let mut states = Tensor::cat(&first, 0)?.unsqueeze(1)?;
        if let Some(rows) = rows {
            states = Tensor::cat(&[&states, &self.final_norm(&rows)?], 1)?;
        }
        let rows = states.reshape((blocks.len() * query.len(), self.config.hidden))?;
        let targets = Tensor::new(query.repeat(blocks.len()), &self.device)?;
        let logs = self.log_probabilities(&rows, &targets)?.to_vec1::<f32>()?;
        let mean = |logs: &[f32]| {
            let sum: f64 = logs.iter().map(|log| f64::from(*log)).sum();
            (sum / logs.len() as f64) as f32
        };
        Ok(logs.chunks_exact(query.len()).map(mean).collect())
    }

    /// Computes scores from the residual rows of the last position, `[block][1][hidden]`.
    fn label_scores(&self, scorer: Scorer, last: &Tensor) -> Result<Vec<f32>> {
        let labels = scorer.labels();
        let logits =
            self.logits(&self.final_norm(last)?, &Tensor::new(&labels[..], &self.device)?)?;
        let logits = logits.to_vec2::<f32>()?.into_iter();
        let wide = logits.map(|row| row.into_iter().map(f64::from).collect::<Vec<_>>());
        Ok(wide.map(|row| scorer.of_logits(&row)).collect())
    }

    /// Copies the blocks side by side, one copy each.
    fn past(&self, blocks: &[&DeviceBlock]) -> Result<DevicePastKv> {
        let (planes, _, length) = blocks[0].kv.dims3()?;
        let kv = Tensor::zeros((planes, blocks.len(), length), self.kv_dtype, &self.device)?;
        for (i, block) in blocks.iter().enumerate() {
            kv.slice_set(&block.kv, 1, i)?;
        }
        Ok(DevicePastKv { kv, tokens: blocks.iter().map(|block| block.tokens).collect() })
    }

    fn padded_bytes(&self) -> usize {
        self.kv_shape.block_bytes(self.block_positions)
    }

    /// Uploads the blocks that were read and scores them; passes on the errors of the others.
    fn score_read(
        &self,
        pairs: &[Pair<'_, dyn LayerSource + '_>],
        blocks: Vec<std::result::Result<KvBlock, BlockError>>,
    ) -> std::result::Result<Vec<std::result::Result<f32, BlockError>>, ModelError> {
        let upload = |block: std::result::Result<_, _>| match block {
            Ok(block) => self.upload(block).map(Ok),
            Err(error) => Ok(Err(error)),
        };
        let resident = blocks.into_iter().map(upload);
        let resident = resident.collect::<std::result::Result<Vec<_>, ModelError>>()?;
        let present = pairs.iter().zip(&resident).filter_map(|(pair, block)| {
            Some(Pair { query: pair.query, block: block.as_ref().ok()? })
        });
        let mut scores = self.score_resident(&present.collect::<Vec<_>>())?.into_iter();
        let mut score = |_| scores.next().expect("a score for each block");
        Ok(resident.into_iter().map(|block| block.map(&mut score)).collect())
    }
}

impl LanguageModel for DeviceModel {
    type Resident = DeviceBlock;

    fn kv_shape(&self) -> &KvShape {
        &self.kv_shape
    }

    fn context_tokens(&self) -> usize {
        self.config.context
    }

    fn prefill_tokens(&self) -> usize {
        PREFILL_TOKENS
    }

    fn batch_bytes(&self) -> usize {
        BATCH_BYTES
    }

    fn prefill(&self, chunks: &[Chunk]) -> std::result::Result<Vec<KvBlock>, ModelError> {
        let blocks = self.prefill_each(chunks, |chunk, kv, hidden| {
            let (kv, hidden) = (self.transfer.download(&kv)?, hidden.flatten_all()?.to_vec1()?);
            Ok(KvBlock::new(self.kv_shape, chunk.tokens.len(), kv, hidden))
        })?;
        for (block, chunk) in blocks.iter().zip(chunks) {
            if block.hidden().iter().any(|value| !value.is_finite()) {
                return Err(ModelError::NotANumber { what: chunk.id.to_string() });
            }
        }
        Ok(blocks)
    }

    fn prefill_resident(
        &self,
        chunks: &[Chunk],
    ) -> std::result::Result<Vec<DeviceBlock>, ModelError> {
        for chunk in chunks {
            self.check_positions(chunk.tokens.len())?;
        }
        self.prefill_each(chunks, |chunk, kv, hidden| self.padded(&kv, hidden, chunk.tokens.len()))
    }

    fn upload(&self, block: KvBlock) -> std::result::Result<DeviceBlock, ModelError> {
        if *block.kv_shape() != self.kv_shape {
            let (block, model) = (Box::new(*block.kv_shape()), Box::new(self.kv_shape));
            return Err(ModelError::KvShape { block, model });
        }
        self.check_positions(block.tokens())?;
        let placed = self.batching.run(
            &[&block],
            |block| (0, 0, block.kv().len()),
            |blocks| blocks.iter().map(|block| self.place(block)).collect(),
        )?;
        placed.into_iter().next().ok_or_else(|| ModelError::Device("no block came back".into()))
    }

    fn score_resident(
        &self,
        pairs: &[Pair<'_, DeviceBlock>],
    ) -> std::result::Result<Vec<f32>, ModelError> {
        for pair in pairs {
            self.config.check_query(pair.query, pair.block.tokens)?;
        }
        // K and V of a batch are copied side by side, and one layer of them is converted to f32.
        let held = 2 * self.padded_bytes();
        let mut scores = Vec::with_capacity(pairs.len());
        for run in pairs.chunk_by(|a, b| a.query == b.query) {
            let query = run[0].query;
            let positions = self.block_positions + query.tokens.len();
            let blocks: Vec<&DeviceBlock> = run.iter().map(|pair| pair.block).collect();
            scores.extend(self.batching.run(
                &blocks,
                |_| (query.tokens.len(), positions, held),
                |batch| self.score_batch(query, batch),
            )?);
        }
        match scores.iter().position(|score: &f32| !score.is_finite()) {
            Some(i) => Err(ModelError::NotANumber { what: format!("candidate {i}") }),
            None => Ok(scores),
        }
    }

    /// Scores one batch while the blocks of the next are read.
    fn score_streamed(
        &self,
        pairs: &[Pair<'_, dyn LayerSource + '_>],
    ) -> std::result::Result<Vec<std::result::Result<f32, BlockError>>, ModelError> {
        let size = (BATCH_BYTES / self.padded_bytes()).max(1);
        // The remainder comes first: nothing is computed until the first batch is read.
        let (first, rest) = pairs.split_at(pairs.len() % size);
        let batches = std::iter::once(first).filter(|batch| !batch.is_empty());
        let batches = batches.chain(rest.chunks(size));
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(0);
            let read = move || {
                for batch in batches {
                    let blocks = batch.par_iter().map(|pair| pair.block.read()).collect::<Vec<_>>();
                    if sender.send((batch, blocks)).is_err() {
                        break; // The other side has failed and says why.
                    }
                }
            };
            let started = std::thread::Builder::new().spawn_scoped(scope, read);
            started.map_err(|error| ModelError::Device(format!("no thread: {error}")))?;
            let mut scores = Vec::with_capacity(pairs.len());
            for (batch, blocks) in receiver {
                scores.extend(self.score_read(batch, blocks)?);
            }
            Ok(scores)
        })
    }
}

/// The rate of a large product, as a bound for everything else.
impl DeviceModel {
    /// Measures the rate of products of `size` by `size` matrices, in floating-point operations a
    /// second.
    ///
    /// # Errors
    /// [`ModelError::Device`].
    pub fn product_flops(&self, size: usize) -> std::result::Result<f64, ModelError> {
        let failed = |error: candle_core::Error| ModelError::Device(first_line(&error));
        let rounds = 20;
        let timed = || -> Result<f64> {
            let a = Tensor::randn(0_f32, 1.0, (size, size), &self.device)?
                .to_dtype(self.weights.embedding.dtype())?;
            let b = a.t()?.contiguous()?;
            let read = |c: &Tensor| c.get(0)?.get(0)?.to_dtype(DType::F32)?.to_scalar::<f32>();
            read(&a.matmul(&b)?)?;
            let start = std::time::Instant::now();
            let mut last = a.matmul(&b)?;
            for _ in 1..rounds {
                last = a.matmul(&b)?;
            }
            read(&last)?;
            Ok(start.elapsed().as_secs_f64())
        };
        Ok(2.0 * (size as f64).powi(3) * f64::from(rounds) / timed().map_err(failed)?)
    }
}
