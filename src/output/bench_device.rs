//! Output of `bench-device`: times of a device in, rates and a table out.

use hyperrag_core::counted;
use hyperrag_eval::experiment::device::{DeviceBenchSettings, DeviceFigures};
use hyperrag_eval::metric::stats::Summary;
use hyperrag_model::{Config, DeviceInfo};
use serde::Serialize;

use crate::output::table::{Fit, Table, with_sentences};

/// Figures of one model's sizes.
#[derive(Serialize)]
pub(crate) struct ShapeRow {
    shape: String,
    prefill_tokens_per_second: f64,
    /// Share of the large product's rate that prefill reaches.
    share_of_product: f64,
    reuse_speedup_device: f64,
    reuse_speedup_host: f64,
    reuse_speedup_disk: f64,
    figures: DeviceFigures,
}

#[derive(Serialize)]
pub(crate) struct Output {
    pub(crate) version: &'static str,
    pub(crate) device: DeviceInfo,
    #[serde(rename = "compute")]
    pub(crate) dtype: &'static str,
    pub(crate) product_flops: f64,
    pub(crate) settings: DeviceBenchSettings,
    pub(crate) rows: Vec<ShapeRow>,
}

impl Output {
    /// Adds a model's figures, `config` being its sizes.
    pub(crate) fn add(&mut self, shape: &str, config: &Config, figures: DeviceFigures) {
        let settings = self.settings;
        let (depth, positions) = (settings.depth as f64, settings.chunk_tokens as usize);
        let flops = depth
            * (config.flops_a_position() * positions as f64 + config.flops_of_attention(positions));
        let prefill = median(&figures.prefill);
        let speedup = |reuse: &[f64]| median(&figures.recompute) / median(reuse);
        self.rows.push(ShapeRow {
            shape: shape.to_owned(),
            prefill_tokens_per_second: depth * positions as f64 / prefill,
            share_of_product: flops / prefill / self.product_flops,
            reuse_speedup_device: speedup(&figures.device),
            reuse_speedup_host: speedup(&figures.host),
            reuse_speedup_disk: speedup(&figures.disk),
            figures,
        });
    }

    /// The figures as a table, with a sentence on the conditions.
    pub(crate) fn table(&self) -> String {
        let Self { version, device, dtype, product_flops, settings, rows } = self;
        let DeviceBenchSettings { depth, chunk_tokens, query_tokens, runs, .. } = settings;
        let (candidates, tokens) =
            (counted(*depth, "candidate"), counted(*query_tokens, "query token"));
        let head = format!("{candidates} of {chunk_tokens}, {tokens}");
        let mut table = Table::new([
            (head.as_str(), Fit::Wrap),
            ("prefill tokens/s", Fit::Wrap),
            ("share of peak", Fit::Wrap),
            ("recompute", Fit::Wrap),
            ("reuse, device", Fit::Wrap),
            ("host", Fit::Wrap),
            ("disk", Fit::Wrap),
        ]);
        for row in rows {
            let ShapeRow { shape, prefill_tokens_per_second, share_of_product, figures, .. } = row;
            let timed = |seconds: &[f64], speedup: f64| {
                format!("{:.1} ms, {speedup:.1}x", 1e3 * median(seconds))
            };
            table.add([
                shape.clone(),
                format!("{prefill_tokens_per_second:.0}"),
                format!("{:.0} %", 100.0 * share_of_product),
                format!("{:.1} ms", 1e3 * median(&figures.recompute)),
                timed(&figures.device, row.reuse_speedup_device),
                timed(&figures.host, row.reuse_speedup_host),
                timed(&figures.disk, row.reuse_speedup_disk),
            ]);
        }
        let driver =
            device.driver.as_ref().map_or_else(String::new, |d| format!(", driver for CUDA {d}"));
        let largest = rows.iter().map(|row| row.figures.score_difference_max).fold(0.0, f64::max);
        let sentence = format!(
            "hyperrag {version}, {device}{driver}, {dtype}; peak: a product of large matrices, \
             {:.1} TFLOP/s; medians of {}; random weights; reuse and recompute differ by at most \
             {largest:.1e}.",
            product_flops / 1e12,
            counted(*runs, "run")
        );
        with_sentences(&table, &[sentence])
    }
}

fn median(seconds: &[f64]) -> f64 {
    Summary::of(seconds).map_or(f64::NAN, |summary| summary.p50)
}
