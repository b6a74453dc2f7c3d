//! `bench-device`: sizes of models in, times of a device out.

use anyhow::{Context, Result};
use hyperrag_core::{Digest, Fingerprint, KvDtype, LanguageModel};
use hyperrag_eval::experiment::device::{DeviceBenchSettings, DeviceFigures};
use hyperrag_eval::metric::stats::Summary;
use hyperrag_model::{Config, DeviceInfo, DeviceModel, DeviceSettings};
use hyperrag_store::FORMAT_VERSION;
use serde::Serialize;

use crate::cli::DeviceBenchArgs;
use crate::error::Usage;
use crate::exit::Status;
use crate::report;

/// Rows and columns of the product that bounds everything else.
const PRODUCT: usize = 8192;

/// Figures of one model's sizes.
#[derive(Serialize)]
struct Row {
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
struct Output {
    version: &'static str,
    device: DeviceInfo,
    #[serde(rename = "compute")]
    dtype: &'static str,
    product_flops: f64,
    settings: DeviceBenchSettings,
    rows: Vec<Row>,
}

/// Times a device on random weights.
pub(crate) fn bench_device(args: &DeviceBenchArgs, json: bool) -> Result<Status> {
    let known = Config::SHAPES;
    let shapes: Vec<&str> = match args.shapes.as_slice() {
        [] => known.into_iter().filter(|name| *name != "tiny").collect(),
        shapes => shapes.iter().map(String::as_str).collect(),
    };
    if let Some(unknown) = shapes.iter().find(|shape| !known.contains(shape)) {
        let known = known.join(", ");
        return Err(Usage(format!("no model of that size: {unknown}; there are {known}")).into());
    }
    let mut settings = DeviceBenchSettings {
        depth: args.depth,
        chunk_tokens: args.chunk_tokens,
        query_tokens: args.query_tokens,
        runs: args.runs.max(1),
        vocabulary: 0,
    };
    let bar = report::bar(
        Some((5 * settings.runs * shapes.len()) as u64),
        "{elapsed_precise} {bar:24} {pos}/{len} runs, ETA {eta_precise}",
    );
    let mut output = None::<Output>;
    for shape in shapes {
        let config = Config::shape(shape).with_context(|| format!("the sizes of {shape}"))?;
        settings.vocabulary = config.vocabulary;
        let (model, device) = DeviceModel::random(
            config,
            args.device,
            DeviceSettings {
                dtype: args.dtype,
                kv_dtype: KvDtype::Bf16,
                block_positions: args.chunk_tokens as usize,
                memory_bytes: None,
                notice: report::warn,
            },
        )?;
        let output = match &mut output {
            Some(output) => output,
            none => none.insert(Output {
                version: env!("CARGO_PKG_VERSION"),
                product_flops: model.product_flops(product_size(&device))?,
                device,
                dtype: model.dtype().name(),
                settings,
                rows: Vec::new(),
            }),
        };
        let folder = tempfile::tempdir().context("no folder for a store to read from")?;
        let fingerprint = fingerprint(shape, &model, settings);
        let figures = hyperrag_eval::experiment::device::bench_device(
            &model,
            settings,
            &fingerprint,
            folder.path(),
            &mut || bar.inc(1),
        )?;
        output.rows.push(row(shape, model.config(), settings, output.product_flops, figures));
    }
    bar.finish_and_clear();
    if let Some(output) = output {
        report::figures(&output, json, args.out.as_deref(), || table(&output))?;
    }
    Ok(Status::Done)
}

/// On a CPU a product of the full size would take minutes.
fn product_size(device: &DeviceInfo) -> usize {
    if device.device == "cpu" { PRODUCT / 16 } else { PRODUCT }
}

fn fingerprint(shape: &str, model: &DeviceModel, settings: DeviceBenchSettings) -> Fingerprint {
    let random = Digest::of(b"random");
    Fingerprint {
        format_version: FORMAT_VERSION,
        model: shape.to_owned(),
        weights: random,
        tokenizer: random,
        profile: "plain".to_owned(),
        profile_digest: random,
        chunk_tokens: settings.chunk_tokens,
        unit_rows: 256,
        language: "english".into(),
        kv_shape: *model.kv_shape(),
        calibration: None,
        rope: model.config().rope(),
        dtype: model.dtype().name().to_owned(),
        kernel: model.dtype().kernel_id().to_owned(),
    }
}

fn median(seconds: &[f64]) -> f64 {
    Summary::of(seconds).map_or(f64::NAN, |summary| summary.p50)
}

fn row(
    shape: &str,
    config: &Config,
    settings: DeviceBenchSettings,
    product_flops: f64,
    figures: DeviceFigures,
) -> Row {
    let (depth, positions) = (settings.depth as f64, settings.chunk_tokens as usize);
    let flops = depth
        * (config.flops_a_position() * positions as f64 + config.flops_of_attention(positions));
    let prefill = median(&figures.prefill);
    let speedup = |reuse: &[f64]| median(&figures.recompute) / median(reuse);
    Row {
        shape: shape.to_owned(),
        prefill_tokens_per_second: depth * positions as f64 / prefill,
        share_of_product: flops / prefill / product_flops,
        reuse_speedup_device: speedup(&figures.device),
        reuse_speedup_host: speedup(&figures.host),
        reuse_speedup_disk: speedup(&figures.disk),
        figures,
    }
}

fn table(output: &Output) -> String {
    let Output { version, device, dtype, product_flops, settings, rows } = output;
    let DeviceBenchSettings { depth, chunk_tokens, query_tokens, runs, .. } = settings;
    let mut lines = vec![
        format!(
            "| {depth} candidates of {chunk_tokens}, {query_tokens} query tokens | prefill tokens/s | share of peak | recompute | reuse, device | host | disk |"
        ),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(rows.iter().map(|row| {
        let Row { shape, prefill_tokens_per_second, share_of_product, figures, .. } = row;
        let timed = |seconds: &[f64], speedup: f64| {
            format!("{:.1} ms, {speedup:.1}x", 1e3 * median(seconds))
        };
        format!(
            "| {shape} | {prefill_tokens_per_second:.0} | {:.0} % | {:.1} ms | {} | {} | {} |",
            100.0 * share_of_product,
            1e3 * median(&figures.recompute),
            timed(&figures.device, row.reuse_speedup_device),
            timed(&figures.host, row.reuse_speedup_host),
            timed(&figures.disk, row.reuse_speedup_disk),
        )
    }));
    let driver =
        device.driver.as_ref().map_or_else(String::new, |d| format!(", driver for CUDA {d}"));
    let largest = rows.iter().map(|row| row.figures.score_difference_max).fold(0.0, f64::max);
    lines.push(String::new());
    lines.push(format!(
        "hyperrag {version}, {device}{driver}, {dtype}; peak: a product of large matrices, {:.1} TFLOP/s; medians of {runs} runs; \
         random weights; reuse and recompute differ by at most {largest:.1e}.",
        product_flops / 1e12
    ));
    lines.join("\n")
}
