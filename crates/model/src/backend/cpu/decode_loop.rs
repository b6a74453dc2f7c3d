//! Generates token after token after a prompt.
//!
//! In: token ids of a prompt. Out: token ids, one by one. It does not know text.

use std::ops::ControlFlow;

use hyperrag_core::{Generation, KvDtype, ModelError, Sampling, Stop};
use hyperrag_kernels::cpu::gemm::epilogue::OutputRows;
use hyperrag_kernels::lanes::{PANEL, panels_of};
use hyperrag_kernels::memory::aligned::take;
use rayon::prelude::*;

use crate::backend::cpu::forward::{ResidualRows, Sequence};
use crate::backend::cpu::kv_cache::{AppendKv, PastKv};
use crate::backend::cpu::lm_head::COLUMNS;
use crate::backend::cpu::micro_batches::{MICRO_BATCH_ROWS, MicroBatches};
use crate::backend::cpu::model::CpuModel;
use crate::backend::cpu::scratch::Scratch;
use crate::generate::sample::Sampler;

/// The state of one generation.
struct GenerationState {
    kv: AppendKv,
    /// K and V of the latest tokens, before they are appended.
    fresh: Vec<u8>,
    /// Hidden state of the last position, after the final norm.
    hidden: Vec<f32>,
    logits: Vec<f32>,
}

impl CpuModel {
    /// Continues `prompt` until one of `stops`, which `each` does not get, or until `each` or
    /// `sampling` ends it. The logits equal, to the bit, those of one pass over all tokens so far.
    ///
    /// # Errors
    /// The errors of [`hyperrag_core::Generate::generate`].
    ///
    /// # Panics
    /// If the element type of this model is not f32, see [`CpuModel::with_kv_dtype`].
    pub(crate) fn generate(
        &self,
        prompt: &[u32],
        stops: &[u32],
        sampling: &Sampling,
        each: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Generation, ModelError> {
        assert_eq!(self.kv_shape.kv_dtype, KvDtype::F32, "what is generated is not rounded");
        let room = prompt.len() + sampling.tokens_max;
        self.config
            .check(prompt, sampling.tokens_max, || "the prompt with its answer".to_owned())?;
        let mut run = GenerationState {
            kv: AppendKv::with_room(&self.config, &self.codec, room),
            fresh: Vec::new(),
            hidden: vec![0.0; self.config.hidden],
            logits: Vec::new(),
        };
        let mut sampler = Sampler::new(sampling);
        prompt.chunks(MICRO_BATCH_ROWS).for_each(|tokens| self.extend(&mut run, tokens));
        for tokens in 0..sampling.tokens_max {
            let logits = self.logits(&mut run);
            if logits.iter().any(|logit| !logit.is_finite()) {
                return Err(ModelError::NotANumber { what: "the prompt".to_owned() });
            }
            let token = sampler.pick(logits);
            if stops.contains(&token) {
                return Ok(Generation { tokens, stop: Stop::Eos });
            }
            if each(token).is_break() {
                return Ok(Generation { tokens: tokens + 1, stop: Stop::Line });
            }
            if tokens + 1 < sampling.tokens_max {
                self.extend(&mut run, &[token]);
            }
        }
        Ok(Generation { tokens: sampling.tokens_max, stop: Stop::Length })
    }

    /// Runs `tokens` through the decoder and appends their K and V.
    fn extend(&self, run: &mut GenerationState, tokens: &[u32]) {
        let GenerationState { kv, fresh, hidden, .. } = run;
        let past = Some(PastKv::Grown(kv)).filter(|past| past.tokens() > 0);
        fresh.resize(tokens.len() * self.kv_shape.token_bytes(), 0);
        self.pool.install(|| {
            let kv_out = std::slice::from_mut(fresh);
            let (all, batches) =
                ([Sequence { past, tokens }], MicroBatches::new(self.threads(), 1));
            self.forward(&all, Some(kv_out), ResidualRows::LastOfEach, &batches, |x| {
                self.norm_rows(x, &self.weights.final_norm, hidden);
            });
        });
        kv.append(tokens.len(), fresh);
    }

    /// Computes the logits of the token after the run.
    fn logits<'r>(&self, run: &'r mut GenerationState) -> &'r [f32] {
        let head = self.head();
        let (hidden, logits) = (&run.hidden, take(&mut run.logits, head.outputs()));
        self.pool.install(|| {
            logits.par_chunks_mut(COLUMNS).enumerate().for_each(|(group, logits)| {
                let Scratch { lhs, upcast, .. } = &mut *self.scratch.get();
                lhs.start(self.kernel, self.head_lhs_format(), 1, self.config.hidden)
                    .set_all(hidden);
                let (kernel, columns) = (self.kernel, logits.len());
                let panels = group * COLUMNS / PANEL..panels_of(group * COLUMNS + columns);
                let out = OutputRows::put(kernel, logits, columns);
                head.product(kernel, lhs, panels, upcast, out);
                self.cap_logits(logits);
            });
        });
        logits
    }
}
