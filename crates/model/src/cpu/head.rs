use hyperrag_kv::KvBlock;
use rayon::prelude::*;

use super::decoder::{CpuModel, rows_of_a_task};
use super::kernel::{PANEL, panels_of};
use super::workspace::{Scratch, take};

/// Columns of the vocabulary computed at once: never a matrix of logits.
pub(crate) const COLUMNS: usize = 1024;

impl CpuModel {
    /// Mean log-probability of `query` after each block. `states` are the residual rows of the
    /// query's tokens but the last, block after block.
    pub(crate) fn mean_log_probabilities(
        &self,
        query: &[u32],
        blocks: &[&KvBlock],
        states: &[f32],
    ) -> Vec<f32> {
        let hidden = self.config.hidden;
        let mut rows = vec![0.0; blocks.len() * query.len() * hidden];
        let (candidate, own) = (query.len() * hidden, (query.len() - 1) * hidden);
        rows.par_chunks_mut(candidate).zip(blocks).enumerate().for_each(|(c, (rows, block))| {
            let (first, rest) = rows.split_at_mut(hidden);
            first.copy_from_slice(block.hidden());
            let states = states[c * own..(c + 1) * own].chunks_exact(hidden);
            for (row, state) in rest.chunks_exact_mut(hidden).zip(states) {
                self.kernel.rms_norm(state, &self.weights.final_norm, self.config.norm_eps, row);
            }
        });
        let targets: Vec<u32> = blocks.iter().flat_map(|_| query.iter().copied()).collect();
        let logs = self.log_probabilities(&rows, &targets);
        let mean = |logs: &[f64]| (logs.iter().sum::<f64>() / logs.len() as f64) as f32;
        logs.chunks_exact(query.len()).map(mean).collect()
    }

    /// `ln p(target)` of each row, a final hidden state.
    pub(crate) fn log_probabilities(&self, rows: &[f32], targets: &[u32]) -> Vec<f64> {
        let hidden = self.config.hidden;
        let task = rows_of_a_task(targets.len(), self.pool.current_num_threads());
        let mut logs = vec![0.0; targets.len()];
        logs.par_chunks_mut(task)
            .zip(targets.par_chunks(task))
            .zip(rows.par_chunks(task * hidden))
            .for_each(|((logs, targets), rows)| {
                self.log_probabilities_of(rows, targets, &mut self.scratch.get(), logs);
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
        let head = self.weights.head.as_ref().unwrap_or(&self.weights.embedding);
        let logits = take(&mut scratch.wide, targets.len() * COLUMNS);
        // For each row the largest logit so far, the sum of exp(logit - largest), the target's.
        let mut running = vec![(f32::NEG_INFINITY, 0.0_f64, f32::NAN); targets.len()];
        for first in (0..head.outputs()).step_by(COLUMNS) {
            let columns = COLUMNS.min(head.outputs() - first);
            let group = first..first + columns;
            head.product(self.kernel, rows, group, logits, COLUMNS, &mut scratch.rounded);
            for ((row, target), state) in logits.chunks(COLUMNS).zip(targets).zip(&mut running) {
                let (max, sum) = self.kernel.max_and_sum_exp(&row[..columns]);
                let largest = state.0.max(max);
                let rescale = |max: f32| libm::exp(f64::from(max - largest));
                state.1 = state.1 * rescale(state.0) + f64::from(sum) * rescale(max);
                state.0 = largest;
                if let Some(logit) =
                    (*target as usize).checked_sub(first).and_then(|i| row[..columns].get(i))
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
