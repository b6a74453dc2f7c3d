use anyhow::Result;
use hyperrag_store::Store;

use crate::cli::InfoArgs;
use crate::exit::Status;
use crate::report;

/// Describes a store without loading its model.
pub(crate) fn info(args: &InfoArgs, json: bool) -> Result<Status> {
    let store = Store::open(&args.store)?;
    let manifest = store.manifest();
    if json {
        report::print(&serde_json::to_string(manifest)?)?;
        return Ok(Status::Done);
    }
    let sum = |part: fn(&hyperrag_store::ShardRecord) -> u64| {
        manifest.shards.iter().map(part).sum::<u64>()
    };
    let mut lines: Vec<(String, String)> = vec![
        ("state".into(), if manifest.complete { "complete" } else { "unfinished" }.into()),
        ("generation".into(), manifest.generation.to_string()),
        ("shards".into(), manifest.shards.len().to_string()),
        ("documents".into(), sum(|shard| shard.documents).to_string()),
        ("chunks".into(), sum(|shard| shard.chunks).to_string()),
        ("tokens".into(), sum(|shard| shard.tokens).to_string()),
        ("bytes".into(), report::bytes(sum(|shard| shard.kv.bytes))),
        ("bytes a token".into(), store.geometry().token_bytes().to_string()),
    ];
    lines.extend(
        manifest.fingerprint.fields().into_iter().map(|(name, value)| (name.to_owned(), value)),
    );
    lines.push((
        "exactness".into(),
        "the same bits as recompute with this kernel, on any machine".into(),
    ));
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<_> =
        lines.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect();
    report::print(&lines.join("\n"))?;
    Ok(Status::Done)
}
