//! `delete`: ids in, a store without these documents out.

use std::path::Path;

use anyhow::Result;
use hyperrag_engine::maintain::delete::Deletion;

use crate::cli::keep::DeleteArgs;
use crate::exit::Status;
use crate::input::text;
use crate::output::store::note_replicas_behind;
use crate::report;

/// Bytes of all ids: of ten million.
const IDS_BYTES_MAX: u64 = 256 << 20;
/// Unknown ids that are named one by one.
const NAMED: usize = 5;

/// Removes documents from a store.
pub(crate) fn delete(args: &DeleteArgs, json: bool) -> Result<Status> {
    let text = text::read(&args.ids, "the ids", IDS_BYTES_MAX)?;
    let done = hyperrag_engine::maintain::delete::delete(&args.store, text.lines())?;
    if !done.unknown.is_empty() {
        let named = done.unknown.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>();
        let more = if done.unknown.len() > NAMED { ", ..." } else { "" };
        report::warn(&format!(
            "{} ids are not in the store: {}{more}",
            done.unknown.len(),
            named.join(", ")
        ));
    }
    match json {
        true => report::print_data(&serde_json::to_string(&done)?)?,
        false => report::note(&describe(&done, &args.store)),
    }
    note_replicas_behind(&args.store);
    Ok(Status::Done)
}

fn describe(done: &Deletion, store: &Path) -> String {
    let Deletion { deleted, documents, .. } = done;
    let then = match deleted {
        0 => String::new(),
        _ => format!("; free their bytes with `hyperrag compact --store {}`", store.display()),
    };
    format!("deleted {deleted} documents, {documents} are left{then}")
}
