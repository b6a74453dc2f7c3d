use std::ops::Range;

use hyperrag_kv::{KvLayers, Pair, Scorer};
use rayon::prelude::*;

use super::decoder::CpuModel;
use super::kernel::{PANEL, PackedMatrix, Rows, Then, panels_of};
use super::workspace::{Floats, Scratch, split};

/// A pair whose block is read meanwhile.
pub(crate) type KeptPair<'a> = Pair<'a, dyn KvLayers + 'a>;

/// Columns of the vocabulary computed at once: never a matrix of logits.
pub(crate) const COLUMNS: usize = 1024;

impl CpuModel {
    /// The score of each pair. `states` are the residual rows of what its query has computed, pair
    /// after pair.
    pub(crate) fn scores(&self, pairs: &[KeptPair<'_>], states: &[f32]) -> Vec<f32> {
        let (mut likely, mut last, mut rest) = (Vec::new(), Vec::new(), states);
        for (i, pair) in pairs.iter().enumerate() {
            let (own, later) = rest.split_at(pair.query.computed().len() * self.config.hidden);
            rest = later;
            match pair.query.scorer {
                Scorer::QueryLikelihood => likely.push((i, pair, own)),
                scorer => last.push((i, scorer, own)),
            }
        }
        let mut scores = vec![0.0; pairs.len()];
        for (i, scorer, own) in last {
            scores[i] = self.label_score(scorer, own);
        }
        let runs: Vec<_> = likely.iter().map(|(_, pair, own)| (**pair, *own)).collect();
        for ((i, ..), score) in likely.iter().zip(self.mean_log_probabilities(&runs)) {
            scores[*i] = score;
        }
        scores
    }

    /// Mean log-probability of each pair's query; with each its residual rows.
    fn mean_log_probabilities(&self, runs: &[(KeptPair<'_>, &[f32])]) -> Vec<f32> {
        if runs.is_empty() {
            return Vec::new();
        }
        let hidden = self.config.hidden;
        let targets = runs.iter().flat_map(|(pair, _)| pair.query.tokens.iter().copied());
        let targets: Vec<u32> = targets.collect();
        let mut rows = Floats::default();
        let rows = rows.take(targets.len() * hidden);
        let lengths = runs.iter().map(|(pair, _)| pair.query.tokens.len() * hidden);
        split(rows, lengths).into_par_iter().zip(runs).for_each(|(rows, (pair, states))| {
            let (first, rest) = rows.split_at_mut(hidden);
            first.copy_from_slice(pair.block.hidden());
            self.norm_rows(states, &self.weights.final_norm, rest);
        });
        let mut logs = &self.log_probabilities(rows, &targets)[..];
        let mean = |(pair, _): &(KeptPair<'_>, &[f32])| {
            let (own, later) = logs.split_at(pair.query.tokens.len());
            logs = later;
            (own.iter().sum::<f64>() / own.len() as f64) as f32
        };
        runs.iter().map(mean).collect()
    }

    /// The score that labels give at the last of these residual rows. The products are summed in
    /// order, in f64: there are few.
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

    pub(crate) fn head(&self) -> &PackedMatrix {
        self.weights.head.as_ref().unwrap_or(&self.weights.embedding)
    }

    pub(crate) fn cap_logits(&self, logits: &mut [f32]) {
        if let Some(cap) = self.config.logit_cap {
            self.kernel.soft_cap(logits, cap);
        }
    }

    /// `ln p(target)` of each row, a final hidden state.
    pub(crate) fn log_probabilities(&self, rows: &[f32], targets: &[u32]) -> Vec<f64> {
        let hidden = self.config.hidden;
        let tasks = self.tasks(targets.len());
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
        let head = self.head();
        let Scratch { operand, wide, widened, .. } = scratch;
        operand
            .start(self.kernel, self.head_form(), targets.len(), self.config.hidden)
            .set_all(rows);
        let logits = wide.take(targets.len() * COLUMNS);
        // For each row the largest logit so far, the sum of exp(logit - largest), the target's.
        let mut running = vec![(f32::NEG_INFINITY, 0.0_f64, f32::NAN); targets.len()];
        for first in (0..head.outputs()).step_by(COLUMNS) {
            let columns = COLUMNS.min(head.outputs() - first);
            let panels = first / PANEL..panels_of(first + columns);
            let kernel = self.kernel;
            let out =
                Rows { kernel, values: &mut *logits, stride: COLUMNS, columns, then: Then::Put };
            head.product(kernel, operand, panels, widened, out);
            let rows = logits.chunks_mut(COLUMNS).map(|row| &mut row[..columns]);
            for ((row, target), state) in rows.zip(targets).zip(&mut running) {
                self.cap_logits(row);
                let (max, sum) = self.kernel.max_and_sum_exp(row);
                let largest = state.0.max(max);
                let rescale = |max: f32| libm::exp(f64::from(max - largest));
                state.1 = state.1 * rescale(state.0) + f64::from(sum) * rescale(max);
                state.0 = largest;
                if let Some(logit) = (*target as usize).checked_sub(first).and_then(|i| row.get(i))
                {
                    state.2 = *logit;
                }
            }
        }
        for (log, (largest, sum, target)) in logs.iter_mut().zip(running) {
            *log = f64::from(target) - f64::from(largest) - libm::log(sum);
        }
    }
}

const _: () = assert!(COLUMNS == panels_of(COLUMNS) * PANEL, "column groups are whole panels");
