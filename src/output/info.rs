//! Output of `info`: a manifest, sizes and the state of replicas in, lines for people out.

use std::collections::BTreeSet;

use hyperrag_core::{Fingerprint, SCORE_TOLERANCE_MEAN_LOGPROB, counted};
use hyperrag_model::{
    DeviceInfo, KERNEL_ID, KERNEL_ID_BF16, KERNEL_ID_BF16_AMX, KERNEL_ID_BF16_PAIRS,
    KERNEL_ID_INT8, KERNEL_ID_INT8_AMX, KERNEL_ID_INT8_PAIRS,
};
use hyperrag_store::{Manifest, ReplicaState, ShardRecord, StoreNotes};
use serde::Serialize;

use crate::output::arithmetic;
use crate::output::sizes::{MILLION, full_heads, gqa_saving};
use crate::output::table;
use crate::report;

/// Bytes of blocks.
#[derive(Serialize)]
pub(crate) struct BlockSizes {
    kv_heads: u32,
    bytes_a_token: usize,
    /// With as many positions each as this store's have on average, the longest where it has none.
    bytes_of_a_million_chunks: u64,
    bytes_a_token_full_heads: Option<usize>,
    gqa_saving: Option<String>,
}

impl BlockSizes {
    /// Takes the sizes of a store; `heads` are the query heads of its model, if that was named.
    pub(crate) fn of(manifest: &Manifest, heads: Option<usize>) -> Self {
        let kv_shape = &manifest.fingerprint.kv_shape;
        let (chunks, tokens) = (sum(manifest, |s| s.chunks), sum(manifest, |s| s.tokens));
        let longest = MILLION * u64::from(manifest.fingerprint.chunk_tokens);
        let positions = (MILLION * tokens).checked_div(chunks).unwrap_or(longest);
        let hidden = MILLION * kv_shape.hidden_bytes() as u64;
        Self {
            kv_heads: kv_shape.kv_heads,
            bytes_a_token: kv_shape.token_bytes(),
            bytes_of_a_million_chunks: positions * kv_shape.token_bytes() as u64 + hidden,
            bytes_a_token_full_heads: heads.map(|heads| full_heads(kv_shape, heads)),
            gqa_saving: heads.map(|heads| gqa_saving(kv_shape, heads)),
        }
    }
}

fn sum(manifest: &Manifest, of: fn(&ShardRecord) -> u64) -> u64 {
    manifest.shards.iter().map(of).sum()
}

/// The description of a store, a line for each of its properties.
pub(crate) fn description(
    manifest: &Manifest,
    notes: &StoreNotes,
    sizes: &BlockSizes,
    replicas: &[ReplicaState],
    device: &DeviceInfo,
) -> String {
    let fingerprint = &manifest.fingerprint;
    let mut lines = contents(manifest, sizes);
    lines.extend(changes(manifest));
    lines.extend(noted(notes));
    let fields = fingerprint.fields().into_iter();
    lines.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    lines.extend(replicas.iter().map(|replica| {
        let generation = replica.generation.map(|generation| format!(", generation {generation}"));
        let (path, state) = (replica.path.display(), &replica.state);
        ("replica".to_owned(), format!("{path}: {state}{}", generation.unwrap_or_default()))
    }));
    lines.push(("exactness".into(), exactness(&fingerprint.kernel)));
    lines.push(("--device auto".into(), format!("{device} on this machine")));
    table::fields(&lines)
}

/// Lines on the contents of a store.
fn contents(manifest: &Manifest, sizes: &BlockSizes) -> Vec<(String, String)> {
    let state = if manifest.complete { "complete" } else { "unfinished" };
    let lines = [
        ("computed", computed(&manifest.fingerprint)),
        ("state", state.to_owned()),
        ("generation", manifest.generation.to_string()),
        ("shards", manifest.shards.len().to_string()),
        ("documents", (manifest.documents() - manifest.deleted_documents()).to_string()),
        ("chunks", sum(manifest, |shard| shard.chunks).to_string()),
        ("tokens", sum(manifest, |shard| shard.tokens).to_string()),
        ("bytes", report::bytes(sum(manifest, |shard| shard.kv.bytes))),
        ("bytes a token", sizes.bytes_a_token.to_string()),
        ("bytes of a million chunks", report::bytes(sizes.bytes_of_a_million_chunks)),
    ];
    let saving = sizes.gqa_saving.iter().map(|saving| ("saving by GQA", saving.clone()));
    lines.into_iter().chain(saving).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Lines on deleted documents and on shards that a repair computed again.
fn changes(manifest: &Manifest) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    if manifest.deleted_documents() > 0 {
        let deleted = format!("{} until `hyperrag compact`", manifest.deleted_documents());
        lines.push(("deleted or replaced".to_owned(), deleted));
    }
    let mended = manifest.shards.iter().filter_map(|shard| shard.repaired_by.as_deref());
    let kernels: BTreeSet<&str> = mended.clone().collect();
    if !kernels.is_empty() {
        let kernels = kernels.into_iter().collect::<Vec<_>>().join(", ");
        let shards = mended.count();
        lines.push((
            "mended".to_owned(),
            format!("{} by another kernel, {kernels}", counted(shards, "shard")),
        ));
    }
    lines
}

/// Lines on what the store notes of its build.
fn noted(notes: &StoreNotes) -> Vec<(String, String)> {
    let StoreNotes { model, tokenizer, profile, columns } = notes;
    let lines = [
        ("made with --model", model),
        ("made with --tokenizer", tokenizer),
        ("made with --profile", profile),
        ("id column", &columns.id),
        ("title column", &columns.title),
        ("text column", &columns.text),
    ];
    let lines = lines.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    lines.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Says in which type the blocks were computed, and what that costs.
fn computed(fingerprint: &Fingerprint) -> String {
    let Fingerprint { dtype, kernel, .. } = fingerprint;
    let how = format!("in {dtype} by {kernel}");
    arithmetic::cost(kernel).map_or_else(|| how.clone(), |cost| format!("{how}: {cost}"))
}

/// Says what a user may expect of scores over blocks of this kernel.
pub(crate) fn exactness(kernel: &str) -> String {
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
