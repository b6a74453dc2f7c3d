//! `bench-device`: sizes of models in, times of a device out.

use anyhow::{Context, Result};
use hyperrag_core::{Digest, Fingerprint, KvDtype, LanguageModel};
use hyperrag_eval::experiment::device::DeviceBenchSettings;
use hyperrag_model::{Config, DeviceInfo, DeviceModel, DeviceSettings};
use hyperrag_store::FORMAT_VERSION;

use crate::cli::bench::DeviceBenchArgs;
use crate::error::Usage;
use crate::exit::Status;
use crate::output::bench_device::Output;
use crate::{hint, report};

/// Rows and columns of the product that bounds everything else.
const PRODUCT: usize = 8192;

/// Times a device on random weights.
pub(crate) fn bench_device(args: &DeviceBenchArgs, json: bool) -> Result<Status> {
    let shapes = shapes(args)?;
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
        let (model, device) = DeviceModel::random(config, args.device, device_settings(args))?;
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
        output.add(shape, model.config(), figures);
    }
    bar.finish_and_clear();
    if let Some(output) = output {
        report::figures(&output, json, args.out.as_deref(), || output.table())?;
    }
    Ok(Status::Done)
}

/// The named sizes of models, or all of them but the tiny one.
fn shapes(args: &DeviceBenchArgs) -> Result<Vec<&str>> {
    let known = Config::SHAPES;
    let shapes: Vec<&str> = match args.shapes.as_slice() {
        [] => known.into_iter().filter(|name| *name != "tiny").collect(),
        shapes => shapes.iter().map(String::as_str).collect(),
    };
    if let Some(unknown) = shapes.iter().find(|shape| !known.contains(shape)) {
        let known = known.join(", ");
        return Err(Usage(format!("no model of that size: {unknown}; there are {known}")).into());
    }
    Ok(shapes)
}

fn device_settings(args: &DeviceBenchArgs) -> DeviceSettings {
    DeviceSettings {
        dtype: args.dtype,
        kv_dtype: KvDtype::Bf16,
        block_positions: args.chunk_tokens as usize,
        memory_bytes: None,
        warn: hint::warn,
    }
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
