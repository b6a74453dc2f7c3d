use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use hyperrag_pipeline::{ByteProgress, VerifyReport, VerifySettings};

use crate::cli::VerifyArgs;
use crate::exit::{Damaged, Status};
use crate::report;

/// Checks every byte of a store.
pub(crate) fn verify(args: &VerifyArgs, json: bool) -> Result<Status> {
    let settings = VerifySettings { deep: args.deep, threads: args.threads };
    let progress = ByteProgress::default();
    let found = report::watch_bytes(&progress, || {
        hyperrag_pipeline::verify(&args.store, settings, &progress)
    })?;
    report::print(&match json {
        true => serde_json::to_string(&found)?,
        false => describe(&found),
    })?;
    match found.damages.len() {
        0 => Ok(Status::Done),
        count => Err(Damaged(format!(
            "{}: {count} {}; mend the store with `hyperrag repair --store {}`",
            args.store.display(),
            if count == 1 { "damage was found" } else { "damages were found" },
            args.store.display()
        ))
        .into()),
    }
}

fn describe(found: &VerifyReport) -> String {
    let VerifyReport { shards, blocks, bytes, seconds, damages, .. } = found;
    let rate = report::bytes((*bytes as f64 / seconds.max(1e-9)) as u64);
    let read = report::bytes(*bytes);
    let summary =
        format!("{shards} shards, {blocks} blocks, {read} read in {seconds:.1} s ({rate}/s)");
    if damages.is_empty() {
        return format!("{summary}: no damage");
    }
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(["file", "block", "what"]);
    for damage in damages {
        table.add_row([
            damage.file.display().to_string(),
            damage.slot.map_or_else(String::new, |slot| slot.to_string()),
            damage.what.clone(),
        ]);
    }
    format!("{table}\n{summary}")
}
