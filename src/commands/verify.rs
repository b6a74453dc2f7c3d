//! `verify`: a store in, everything that is not as it was written out.

use std::path::Path;

use anyhow::Result;
use hyperrag_core::{agreeing, counted};
use hyperrag_engine::maintain::recompute::{Recomputation, Selection};
use hyperrag_engine::maintain::verify::{
    VerifiedReplica, VerifyReport, VerifySettings, verify_with_tier,
};
use hyperrag_engine::{ByteProgress, EngineError};
use hyperrag_store::{FileKind, ReplicaState, Store, StoreError, replica_states};

use crate::cli::keep::VerifyArgs;
use crate::error::{Damaged, Usage};
use crate::exit::Status;
use crate::hint;
use crate::input::model::open;
use crate::input::store::{NamedStore, named, open_place};
use crate::output::table::{Fit, Table, sentence};
use crate::{report, signals};

/// Checks every byte of a store, and computes blocks again where that is asked for.
pub(crate) fn verify(args: &VerifyArgs, json: bool) -> Result<Status> {
    let settings = VerifySettings { deep: args.deep, threads: args.model.threads };
    let NamedStore { root, place } = named(&args.store)?;
    if place.is_some() && args.recompute {
        let what = "--recompute compares blocks in a folder: give --store a folder";
        return Err(Usage(what.to_owned()).into());
    }
    let tier = args.tier.as_deref().map(open_place).transpose()?.or(place);
    let progress = ByteProgress::default();
    let mut found = report::watch_bytes(&progress, || {
        verify_with_tier(&root, settings, tier.as_ref(), &progress)
    })?;
    let damaged = found.damages.len();
    if args.recompute
        && let Ok(store) = Store::open_sealed(&root)
    {
        let Recomputation { blocks, damages } = recomputed(&store, args)?;
        found.recomputed = blocks;
        found.damages.extend(damages);
    }
    if args.replicas {
        found.replicas = replicas(&root, settings)?;
    }
    match json {
        true => report::print_data(&serde_json::to_string(&found)?)?,
        false => report::print(&describe_all(&found))?,
    }
    if found.damages.is_empty() {
        return replicas_status(&found.replicas);
    }
    let (count, store) = (found.damages.len(), args.store.display());
    let (count, were) = (counted(count, "damage"), agreeing(count, "was", "were"));
    let advice = advice(args, &root, &found, damaged);
    Err(Damaged(format!("{store}: {count} {were} found; {advice}")).into())
}

/// Says how what was found is mended. `damaged` counts what reading alone has shown.
fn advice(args: &VerifyArgs, root: &Path, found: &VerifyReport, damaged: usize) -> String {
    let store = args.store.display();
    if let Some(tier) = found.tier.as_ref().filter(|tier| tier.absent + tier.damaged > 0) {
        return format!(
            "send the blocks again with `hyperrag export --verify --to {}` from a store that has them",
            tier.name
        );
    }
    if root != args.store {
        return format!("remove {}, and these files are fetched again", root.display());
    }
    // Chunk files are what everything else is mended from.
    let only_replicas = found.damages.iter().any(|damage| damage.kind() == FileKind::ChunkFile);
    let alone = || hyperrag_store::replicas(root).is_ok_and(|listed| listed.is_empty());
    match damaged {
        0 => "build the store again".to_owned(),
        _ if only_replicas && alone() => {
            "there is no replica to mend it from: build the store again in another folder"
                .to_owned()
        }
        _ => format!("mend the store with `hyperrag repair --store {store}`"),
    }
}

/// Verifies each replica that the store remembers.
fn replicas(root: &Path, settings: VerifySettings) -> Result<Vec<VerifiedReplica>> {
    let store = Store::open(root)?;
    let verified = replica_states(root, store.manifest())?.into_iter().map(|mut state| {
        let progress = ByteProgress::default();
        let report = report::watch_bytes(&progress, || {
            hyperrag_engine::maintain::verify::verify(&state.path, settings, &progress)
        });
        let report = match report {
            Ok(report) => Some(report),
            Err(EngineError::Store(StoreError::Absent { .. })) => None,
            Err(error) => {
                state.state = hint::sentence(&anyhow::Error::new(error));
                None
            }
        };
        VerifiedReplica { state, report }
    });
    Ok(verified.collect())
}

/// Computes the blocks that `args` choose again, with the very model and kernel of the store.
fn recomputed(store: &Store, args: &VerifyArgs) -> Result<Recomputation> {
    let engine = open(&args.store, &args.model)?;
    engine.check_same_bits()?;
    let selection = match (args.sample, args.part) {
        (Some(count), _) => Selection::Sample(count),
        (None, Some((part, of))) => Selection::Part { part, of },
        (None, None) => Selection::All,
    };
    let (progress, stop) = (ByteProgress::default(), signals::stop()?);
    let done = report::watch_bytes(&progress, || {
        hyperrag_engine::maintain::recompute::recompute(
            store,
            &engine.loaded.model,
            selection,
            &progress,
            stop,
        )
    });
    Ok(done?)
}

/// Says what becomes of replicas that are not whole; the store's own damages come first.
fn replicas_status(replicas: &[VerifiedReplica]) -> Result<Status> {
    let damages = |replica: &&VerifiedReplica| {
        replica.report.as_ref().is_some_and(|report| !report.damages.is_empty())
    };
    if let Some(VerifiedReplica { state, report }) = replicas.iter().find(damages) {
        let path = state.path.display();
        // Without a manifest nobody can tell what the folder holds, and nothing else is read.
        let remedy = match report.as_ref().is_some_and(|report| report.shards == 0) {
            true => {
                format!("remove this folder and copy again with `hyperrag replicate --to {path}`")
            }
            false => format!("mend it with `hyperrag replicate --checksum --to {path}`"),
        };
        return Err(Damaged(format!("{path}: the replica is damaged; {remedy}")).into());
    }
    // One that is behind was whole once, and each change of the store says that it is.
    let others = replicas
        .iter()
        .filter(|replica| replica.report.is_none() || !replica.state.is_of_this_store());
    for VerifiedReplica { state, .. } in others.clone() {
        report::warn(&format!(
            "{}: the replica: {}; forget it with `hyperrag replicate --forget`, or bring it back",
            state.path.display(),
            state.state
        ));
    }
    Ok(if others.count() > 0 { Status::Degraded } else { Status::Done })
}

/// The store, and then each replica by its name.
fn describe_all(found: &VerifyReport) -> String {
    let replicas = found.replicas.iter().map(|replica| {
        let VerifiedReplica { state: ReplicaState { path, state, .. }, report } = replica;
        let report = report.as_ref().map(|report| format!("\n{}", describe(report)));
        let replica = sentence(&format!("replica {}: {state}", path.display()));
        format!("\n{replica}{}", report.unwrap_or_default())
    });
    std::iter::once(describe(found)).chain(replicas).collect()
}

fn describe(found: &VerifyReport) -> String {
    let VerifyReport { shards, blocks, bytes, seconds, damages, recomputed, .. } = found;
    let rate = report::bytes((*bytes as f64 / seconds.max(1e-9)) as u64);
    let read = report::bytes(*bytes);
    let again = match recomputed {
        0 => String::new(),
        count => format!(", {} computed again", counted(*count, "block")),
    };
    let summary = format!(
        "{}, {}, {read} read in {seconds:.1} s ({rate}/s){again}",
        counted(*shards, "shard"),
        counted(*blocks, "block")
    );
    if damages.is_empty() {
        return sentence(&format!("{summary}: no damage"));
    }
    let mut table = Table::new([("file", Fit::Wrap), ("block", Fit::Number), ("what", Fit::Wrap)]);
    for damage in damages {
        table.add([
            damage.file.display().to_string(),
            damage.slot.map_or_else(String::new, |slot| slot.to_string()),
            damage.what.clone(),
        ]);
    }
    format!("{}\n{}", table.text(), sentence(&summary))
}
