//! `info`: a store in, its description out. No weights are loaded.

use std::collections::BTreeSet;

use anyhow::Result;
use hyperrag_core::{Fingerprint, SCORE_TOLERANCE_MEAN_LOGPROB};
use hyperrag_model::{
    DeviceChoice, DeviceInfo, KERNEL_ID, KERNEL_ID_BF16, KERNEL_ID_BF16_AMX, KERNEL_ID_BF16_PAIRS,
    KERNEL_ID_INT8, KERNEL_ID_INT8_AMX, KERNEL_ID_INT8_PAIRS, ModelCache,
};
use hyperrag_store::{Store, replica_states};
use serde::Serialize;

use crate::cli::InfoArgs;
use crate::exit::Status;
use crate::output::arithmetic;
use crate::output::sizes::{MILLION, full_heads, gqa_saving};
use crate::report;

/// Describes a store without loading its model.
pub(crate) fn info(args: &InfoArgs, json: bool) -> Result<Status> {
    let store = Store::open(&args.store)?;
    let manifest = store.manifest();
    let sizes = Sizes::of(&store, args.model.as_deref())?;
    let replicas = replica_states(&args.store, manifest).unwrap_or_else(|error| {
        report::warn(&error.to_string());
        Vec::new()
    });
    if json {
        let mut value = serde_json::to_value(manifest)?;
        value["replicas"] = serde_json::to_value(&replicas)?;
        value["sizes"] = serde_json::to_value(&sizes)?;
        value["exactness"] = exactness(&manifest.fingerprint.kernel).into();
        value["auto_device"] = serde_json::to_value(DeviceInfo::of(DeviceChoice::Auto)?)?;
        report::print_data(&value.to_string())?;
        return Ok(Status::Done);
    }
    let sum = |part: fn(&hyperrag_store::ShardRecord) -> u64| {
        manifest.shards.iter().map(part).sum::<u64>()
    };
    let mut lines: Vec<(String, String)> = vec![
        ("computed".into(), computed(&manifest.fingerprint)),
        ("state".into(), if manifest.complete { "complete" } else { "unfinished" }.into()),
        ("generation".into(), manifest.generation.to_string()),
        ("shards".into(), manifest.shards.len().to_string()),
        ("documents".into(), (manifest.documents() - manifest.deleted_documents()).to_string()),
        ("chunks".into(), sum(|shard| shard.chunks).to_string()),
        ("tokens".into(), sum(|shard| shard.tokens).to_string()),
        ("bytes".into(), report::bytes(sum(|shard| shard.kv.bytes))),
        ("bytes a token".into(), sizes.bytes_a_token.to_string()),
        ("bytes of a million chunks".into(), report::bytes(sizes.bytes_of_a_million_chunks)),
    ];
    lines.extend(sizes.gqa_saving.map(|saving| ("saving by GQA".into(), saving)));
    if manifest.deleted_documents() > 0 {
        let dead = format!("{} until `hyperrag compact`", manifest.deleted_documents());
        lines.push(("deleted or replaced".into(), dead));
    }
    let mended = manifest.shards.iter().filter_map(|shard| shard.repaired_by.as_deref());
    let kernels: BTreeSet<&str> = mended.clone().collect();
    if !kernels.is_empty() {
        let kernels = kernels.into_iter().collect::<Vec<_>>().join(", ");
        let shards = mended.count();
        lines.push(("mended".into(), format!("{shards} shards by another kernel, {kernels}")));
    }
    lines.extend(
        manifest.fingerprint.fields().into_iter().map(|(name, value)| (name.to_owned(), value)),
    );
    lines.extend(replicas.iter().map(|replica| {
        let generation = replica.generation.map(|generation| format!(", generation {generation}"));
        let (path, state) = (replica.path.display(), &replica.state);
        ("replica".to_owned(), format!("{path}: {state}{}", generation.unwrap_or_default()))
    }));
    lines.push(("exactness".into(), exactness(&manifest.fingerprint.kernel)));
    let device = DeviceInfo::of(DeviceChoice::Auto)?;
    lines.push(("--device auto".into(), format!("{device} on this machine")));
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<_> =
        lines.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect();
    report::print(&lines.join("\n"))?;
    Ok(Status::Done)
}

/// Bytes of blocks.
#[derive(Serialize)]
struct Sizes {
    kv_heads: u32,
    bytes_a_token: usize,
    /// With as many positions each as this store's have on average, the longest where it has none.
    bytes_of_a_million_chunks: u64,
    bytes_a_token_full_heads: Option<usize>,
    gqa_saving: Option<String>,
}

impl Sizes {
    fn of(store: &Store, model: Option<&str>) -> Result<Self> {
        let (manifest, kv_shape) = (store.manifest(), store.kv_shape());
        let sum = |part: fn(&hyperrag_store::ShardRecord) -> u64| {
            manifest.shards.iter().map(part).sum::<u64>()
        };
        let (chunks, tokens) = (sum(|shard| shard.chunks), sum(|shard| shard.tokens));
        let longest = MILLION * u64::from(manifest.fingerprint.chunk_tokens);
        let positions = (MILLION * tokens).checked_div(chunks).unwrap_or(longest);
        let hidden = MILLION * kv_shape.hidden_bytes() as u64;
        let heads = model.map(|model| query_heads(store, model)).transpose()?;
        Ok(Self {
            kv_heads: kv_shape.kv_heads,
            bytes_a_token: kv_shape.token_bytes(),
            bytes_of_a_million_chunks: positions * kv_shape.token_bytes() as u64 + hidden,
            bytes_a_token_full_heads: heads.map(|heads| full_heads(kv_shape, heads)),
            gqa_saving: heads.map(|heads| gqa_saving(kv_shape, heads)),
        })
    }
}

/// Query heads of the model that must be the store's.
fn query_heads(store: &Store, model: &str) -> Result<usize> {
    let file = ModelCache::from_environment()?.open(model)?;
    let stored = &store.manifest().fingerprint;
    if file.digest(stored.coverage())? != stored.weights {
        anyhow::bail!("{model} is not the model of this store: leave --model out, or name it");
    }
    Ok(file.config().heads)
}

/// Says in which type the blocks were computed, and what that costs.
fn computed(fingerprint: &Fingerprint) -> String {
    let Fingerprint { dtype, kernel, .. } = fingerprint;
    let how = format!("in {dtype} by {kernel}");
    arithmetic::cost(kernel).map_or_else(|| how.clone(), |cost| format!("{how}: {cost}"))
}

/// Says what a user may expect of scores over blocks of this kernel.
fn exactness(kernel: &str) -> String {
    let same = match kernel {
        KERNEL_ID => "the same bits as recompute on any CPU",
        KERNEL_ID_BF16 | KERNEL_ID_INT8 => {
            "the same bits as recompute on CPUs without instructions for bf16"
        }
        KERNEL_ID_BF16_PAIRS | KERNEL_ID_INT8_PAIRS => {
            "the same bits as recompute on CPUs with AVX-512's instruction for bf16"
        }
        KERNEL_ID_BF16_AMX | KERNEL_ID_INT8_AMX => "the same bits as recompute on CPUs with AMX",
        _ => "as recompute on a GPU, but for the order of its sums",
    };
    match kernel {
        KERNEL_ID_INT8 | KERNEL_ID_INT8_PAIRS | KERNEL_ID_INT8_AMX => {
            format!("{same}; nearly the scores of other kernels")
        }
        _ => format!("{same}; within {SCORE_TOLERANCE_MEAN_LOGPROB} between kernels"),
    }
}
