//! The LM head: from the last residual rows to the score of a pair.
//!
//! In: pairs and residual rows. Out: mean log-probabilities, or scores by labels. It does not know
//! layers.

use std::ops::Range;

use hyperrag_core::{BlockError, LayerSource, Pair, Scorer};
use hyperrag_kernels::cpu::gemm::epilogue_log_softmax::LogSums;
use hyperrag_kernels::cpu::gemm::pack_rhs::PackedWeights;
use hyperrag_kernels::cpu::rows::log_sum::LogSum;
use hyperrag_kernels::lanes::{PANEL, panels_of};
use hyperrag_kernels::memory::aligned::Floats;
use rayon::prelude::*;

use crate::backend::cpu::micro_batches::MicroBatches;
use crate::backend::cpu::model::CpuModel;
use crate::backend::cpu::scratch::{Scratch, split};

/// A pair whose block is read while its micro-batch is computed.
pub(crate) type StreamedPair<'a> = Pair<'a, dyn LayerSource + 'a>;

/// Number of columns of the vocabulary computed at once, so that no matrix of logits is held.
pub(crate) const COLUMNS: usize = 1024;

impl CpuModel {
    /// Computes the score of each pair. `states` are the residual rows of its query's computed tokens,
    /// pair after pair. A pair whose hidden state cannot be read has that error.
    pub(crate) fn scores(
        &self,
        pairs: &[StreamedPair<'_>],
        states: &[f32],
        batches: &MicroBatches,
    ) -> Vec<Result<f32, BlockError>> {
        let (mut likely, mut last, mut rest) = (Vec::new(), Vec::new(), states);
        for (i, pair) in pairs.iter().enumerate() {
            let (own, later) = rest.split_at(pair.query.computed().len() * self.config.hidden);
            rest = later;
            match pair.query.scorer {
                Scorer::QueryLikelihood => likely.push((i, pair, own)),
                scorer => last.push((i, scorer, own)),
            }
        }
        let mut scores: Vec<_> = pairs.iter().map(|_| Ok(0.0)).collect();
        for (i, scorer, own) in last {
            scores[i] = Ok(self.label_score(scorer, own));
        }
        let runs: Vec<_> = likely.iter().map(|(_, pair, own)| (**pair, *own)).collect();
        for ((i, ..), score) in likely.iter().zip(self.mean_log_probabilities(&runs, batches)) {
            scores[*i] = score;
        }
        scores
    }

    /// Computes the mean log-probability of each pair's query. Residual rows come with each pair.
    fn mean_log_probabilities(
        &self,
        runs: &[(StreamedPair<'_>, &[f32])],
        batches: &MicroBatches,
    ) -> Vec<Result<f32, BlockError>> {
        if runs.is_empty() {
            return Vec::new();
        }
        let hidden = self.config.hidden;
        let targets = runs.iter().flat_map(|(pair, _)| pair.query.tokens.iter().copied());
        let targets: Vec<u32> = targets.collect();
        let mut rows = Floats::default();
        let rows = rows.take(targets.len() * hidden);
        let lengths = runs.iter().map(|(pair, _)| pair.query.tokens.len() * hidden);
        let read = |(rows, (pair, states)): (&mut [f32], &(StreamedPair<'_>, &[f32]))| {
            let (first, rest) = rows.split_at_mut(hidden);
            self.norm_rows(states, &self.weights.final_norm, rest);
            let read = pair.block.hidden();
            read.map(|state| first.copy_from_slice(state)).inspect_err(|_| first.fill(0.0))
        };
        let read: Vec<_> = split(rows, lengths).into_par_iter().zip(runs).map(read).collect();
        let mut logs = &self.log_probabilities(rows, &targets, batches)[..];
        let mean = |(pair, _): &(StreamedPair<'_>, &[f32])| {
            let (own, later) = logs.split_at(pair.query.tokens.len());
            logs = later;
            (own.iter().sum::<f64>() / own.len() as f64) as f32
        };
        let means: Vec<f32> = runs.iter().map(mean).collect();
        read.into_iter().zip(means).map(|(read, mean)| read.map(|()| mean)).collect()
    }

    /// Computes the score of labels at the last of these residual rows. The few products are summed in
    /// order, in f64.
    fn label_score(&self, scorer: Scorer, states: &[f32]) -> f32 {
        let hidden = self.config.hidden;
        let (mut state, mut weights) = (vec![0.0; hidden], vec![0.0; hidden]);
        self.norm_rows(&states[states.len() - hidden..], &self.weights.final_norm, &mut state);
        let logit = |label: u32| {
            self.head().copy_row(label as usize, &mut weights);
            let products = state.iter().zip(&weights).map(|(a, b)| f64::from(*a) * f64::from(*b));
            let logit = products.sum::<f64>();
            let cap = self.config.logit_cap.map(f64::from);
            cap.map_or(logit, |cap| cap * libm::tanh(logit / cap))
        };
        scorer.of_logits(&scorer.labels().into_iter().map(logit).collect::<Vec<_>>())
    }

    pub(crate) fn head(&self) -> &PackedWeights {
        self.weights.head.as_ref().unwrap_or(&self.weights.embedding)
    }

    pub(crate) fn cap_logits(&self, logits: &mut [f32]) {
        if let Some(cap) = self.config.logit_cap {
            self.kernel.soft_cap(logits, cap);
        }
    }

    /// Computes `ln p(target)` of each row, a final hidden state. `targets` has one token a row.
    pub(crate) fn log_probabilities(
        &self,
        rows: &[f32],
        targets: &[u32],
        batches: &MicroBatches,
    ) -> Vec<f64> {
        let hidden = self.config.hidden;
        let tasks = self.tasks(targets.len(), batches);
        let mut logs = vec![0.0; targets.len()];
        let places = split(&mut logs, tasks.iter().map(Range::len));
        tasks.par_iter().zip(places).with_max_len(1).for_each(|(task, logs)| {
            let rows = &rows[task.start * hidden..task.end * hidden];
            self.log_probabilities_of(rows, &targets[task.clone()], &mut self.scratch.get(), logs);
        });
        logs
    }

    fn log_probabilities_of(
        &self,
        rows: &[f32],
        targets: &[u32],
        scratch: &mut Scratch,
        logs: &mut [f64],
    ) {
        let (head, kernel, cap) = (self.head(), self.kernel, self.config.logit_cap);
        let Scratch { lhs, upcast, .. } = scratch;
        lhs.start(kernel, self.head_lhs_format(), targets.len(), self.config.hidden).set_all(rows);
        let mut sums: Vec<_> = targets.iter().copied().map(LogSum::new).collect();
        for first in (0..head.outputs()).step_by(COLUMNS) {
            let columns = COLUMNS.min(head.outputs() - first);
            let panels = first / PANEL..panels_of(first + columns);
            let out = LogSums { kernel, cap, first, columns, rows: &mut sums };
            head.product(kernel, lhs, panels, upcast, out);
            sums.iter_mut().for_each(LogSum::fold_into_f64);
        }
        for (log, sum) in logs.iter_mut().zip(sums) {
            *log = sum.log_probability();
        }
    }
}

const _: () = assert!(COLUMNS == panels_of(COLUMNS) * PANEL, "column groups are whole panels");
