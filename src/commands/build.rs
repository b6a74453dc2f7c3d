//! `build`: corpus and model in, a store and its replicas out.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result};
use hyperrag_core::{DocId, Fingerprint, KvDtype, LanguageModel, agreeing, counted};
use hyperrag_corpus::{Chunker, Corpus};
use hyperrag_engine::build::dry_run::{DryRun, dry_run};
use hyperrag_engine::build::memory_budget::TooLittleMemory;
use hyperrag_engine::build::plan::check_query_room;
use hyperrag_engine::build::read::calibration_chunks;
use hyperrag_engine::maintain::replicate::replicate;
use hyperrag_engine::open::dtype_for;
use hyperrag_engine::{
    Add, BuildInput, BuildProgress, BuildSummary, ByteProgress, EngineError, LoadedModel, Memory,
    ModelRequest,
};
use hyperrag_model::Model;
use hyperrag_retrieval::Analyzer;
use hyperrag_store::{FORMAT_VERSION, Manifest, Replica, Store, StoreError};
use serde::Serialize;

use crate::cli::build::BuildArgs;
use crate::exit::Status;
use crate::hint;
use crate::input::corpus::columns;
use crate::input::judged::read_run;
use crate::input::model::request;
use crate::output::store::note_replicas_behind;
use crate::output::table::fields;
use crate::output::{arithmetic, build_progress};
use crate::{report, signals};

/// Positions of a chunk, and rows of a shard.
const DEFAULT_SIZE: u32 = 256;

/// Builds a store, or says what it would take.
pub(crate) fn build(args: &BuildArgs, json: bool) -> Result<Status> {
    let (corpus, named) = corpus(args)?;
    let found = stored(args)?;
    let settings = Settings::of(args, found.as_ref());
    let Settings { kv_dtype, chunk_tokens, .. } = settings;
    let is_new = found.is_none();
    let sealed = found.as_ref().map(|store| Sealed::of(store.manifest()));
    let loaded = load(args, kv_dtype, chunk_tokens, found)?;
    check_room(&loaded, chunk_tokens, is_new)?;
    if !json {
        report::note(&arithmetic::sentence(&loaded.model));
    }
    let loaded = calibrate(loaded, kv_dtype, chunk_tokens, &corpus, args.limit)?;
    let chunker = Chunker::new(&loaded.tokenizer, &loaded.profile, chunk_tokens as usize)?;
    let Settings { version, unit_rows, language, .. } = settings;
    let fingerprint = loaded.fingerprint(version, chunk_tokens, unit_rows, language)?;
    let progress = BuildProgress::default();
    let input = BuildInput {
        model: &loaded.model,
        corpus: &corpus,
        chunker: &chunker,
        fingerprint: &fingerprint,
        calibration: loaded.calibration.as_deref(),
        add: args.append.then_some(if args.restart { Add::Restart } else { Add::Resume }),
        limit: args.limit,
        max_bytes: args.max_bytes,
        memory: memory(args)?,
        warn: hint::warn,
        progress: &progress,
        stop: signals::stop()?,
    };
    match args.dry_run {
        true => {
            plan(args, &input, json)?;
            say_what_is_there(args, sealed.as_ref());
            Ok(Status::Done)
        }
        false => run(args, &input, named, json),
    }
}

/// Says what the build would take.
fn plan(args: &BuildArgs, input: &BuildInput<'_, Model>, json: bool) -> Result<()> {
    let plan = build_progress::watch(input.progress, input.corpus.size(), args.limit, || {
        dry_run(input, &args.store)
    })?;
    match json {
        true => report::print_data(&with_device(&plan, input.model)?)?,
        false => report::print(&describe_plan(&plan))?,
    }
    Ok(())
}

/// Contents of the store before a build.
struct Sealed {
    complete: bool,
    shards: usize,
    documents: u64,
}

impl Sealed {
    fn of(manifest: &Manifest) -> Self {
        let documents = manifest.documents() - manifest.deleted_documents();
        Self { complete: manifest.complete, shards: manifest.shards.len(), documents }
    }
}

/// Says that a plan counts all of the input, though some or all of it may be in the store.
fn say_what_is_there(args: &BuildArgs, sealed: Option<&Sealed>) {
    let Some(Sealed { complete, shards, documents }) = sealed.filter(|_| !args.append) else {
        return;
    };
    let store = args.store.display();
    report::note(&match complete {
        true => format!(
            "{store}: the store is complete, with {}: this counts all of the input, and the same input \
             would add nothing; --append adds what is new",
            counted(*documents, "document")
        ),
        false => format!(
            "{store}: {} {} sealed already: this counts all of the input",
            counted(*shards, "shard"),
            agreeing(*shards, "is", "are")
        ),
    });
}

/// Builds the store and brings its replicas up to it.
fn run(
    args: &BuildArgs,
    input: &BuildInput<'_, Model>,
    named: Option<usize>,
    json: bool,
) -> Result<Status> {
    for replica in &args.replicas {
        Replica::check(&args.store, replica, input.fingerprint)?;
    }
    let built = build_progress::watch(input.progress, input.corpus.size(), args.limit, || {
        hyperrag_engine::build(input, &args.store)
    });
    let summary = match built {
        Err(EngineError::Interrupted) => {
            replicate_all(args);
            report::note(
                "interrupted: sealed shards are kept; run the same command again to go on",
            );
            return Ok(Status::Interrupted);
        }
        built => built?,
    };
    warn_of_rows(args, named, &summary);
    match json {
        true => report::print_data(&with_device(&summary, input.model)?)?,
        false => report::note(&describe(&summary)),
    }
    let replicated = replicate_all(args);
    note_replicas_behind(&args.store);
    Ok(if replicated { Status::Done } else { Status::Degraded })
}

/// Settings of a store: the command line's, else those of the store that is added to, else the usual ones.
struct Settings {
    /// Version of the format, that of a store that is there.
    version: u32,
    kv_dtype: KvDtype,
    chunk_tokens: u32,
    unit_rows: u32,
    language: String,
}

impl Settings {
    fn of(args: &BuildArgs, found: Option<&Store>) -> Self {
        let made_with = found.map(|store| &store.manifest().fingerprint);
        let stored = made_with.filter(|_| args.append);
        let of = |field: fn(&Fingerprint) -> u32| stored.map_or(DEFAULT_SIZE, field);
        let kv_dtype = stored.map_or(KvDtype::Bf16, |stored| stored.kv_shape.kv_dtype);
        Self {
            version: made_with.map_or(FORMAT_VERSION, |made_with| made_with.format_version),
            kv_dtype: args.kv_dtype.unwrap_or(kv_dtype),
            chunk_tokens: args.chunk_tokens.unwrap_or_else(|| of(|stored| stored.chunk_tokens)),
            unit_rows: args.unit_rows.unwrap_or_else(|| of(|stored| stored.unit_rows)),
            language: match (args.language, stored) {
                (None, Some(stored)) => stored.language.clone(),
                (language, _) => language.unwrap_or(Analyzer::ENGLISH).to_string(),
            },
        }
    }
}

/// Loads the model: with the profile of the store that is added to, and with the arithmetic and the
/// calibration of the one that is there, be it unfinished.
fn load(
    args: &BuildArgs,
    kv_dtype: KvDtype,
    chunk_tokens: u32,
    found: Option<Store>,
) -> Result<LoadedModel> {
    let calibrated = found.as_ref().filter(|_| kv_dtype.is_calibrated());
    let calibration = calibrated.map(Store::calibration).transpose()?.flatten();
    let made_with = found.as_ref().map(|store| &store.manifest().fingerprint);
    let dtype = dtype_for(args.model.dtype, made_with);
    let request = ModelRequest { dtype, ..request(&args.model) };
    let stored = made_with.filter(|_| args.append);
    let loaded = LoadedModel::load(&request, kv_dtype, chunk_tokens, stored, calibration)?;
    match loaded.profile.lead {
        Some(_) => Err(EngineError::QueryFirst { profile: loaded.profile.name }.into()),
        None => Ok(loaded),
    }
}

/// Refuses chunks that leave no room for queries. A store that has such chunks already is gone on with, and
/// the user is told.
fn check_room(loaded: &LoadedModel, chunk_tokens: u32, is_new: bool) -> Result<()> {
    let template = loaded.profile.query_template(&loaded.tokenizer)?;
    let context = loaded.model.context_tokens();
    match check_query_room(context, chunk_tokens as usize, &template) {
        Err(error) if !is_new => {
            report::warn(&format!("{} for another store", hint::sentence(&error.into())));
            Ok(())
        }
        checked => Ok(checked?),
    }
}

/// Memory that the build may hold.
fn memory(args: &BuildArgs) -> Result<Memory, TooLittleMemory> {
    Memory::new(args.memory, args.max_document_bytes)
}

/// The input, and how many documents of it `--only` names.
fn corpus(args: &BuildArgs) -> Result<(Corpus, Option<usize>)> {
    let only = args.only.as_deref().map(documents_of).transpose()?;
    let limits = memory(args)?.limits();
    let corpus = Corpus::open_within(&args.inputs, columns(&args.columns), limits)?;
    Ok(match only {
        None => (corpus, None),
        Some(only) => {
            let named = only.len();
            (corpus.only(only), Some(named))
        }
    })
}

/// Speaks of rows that were left out, and of documents that were `named` and not found.
fn warn_of_rows(args: &BuildArgs, named: Option<usize>, summary: &BuildSummary) {
    if summary.empty_rows > 0 {
        report::warn(&format!(
            "{} {} no text and {} left out",
            counted(summary.empty_rows, "row"),
            agreeing(summary.empty_rows, "has", "have"),
            agreeing(summary.empty_rows, "was", "were")
        ));
    }
    // Of what was there before, or lies beyond a limit, nothing can be said.
    if let (Some(named), None, false) = (named, args.limit, args.append) {
        let missing = (named as u64).saturating_sub(summary.documents + summary.empty_rows);
        if missing > 0 {
            report::warn(&format!(
                "{} of the run {} not in the input",
                counted(missing, "document"),
                agreeing(missing, "is", "are")
            ));
        }
    }
}

/// The documents that a run names.
fn documents_of(path: &Path) -> Result<HashSet<DocId>> {
    let run = read_run(path)?;
    let named = run.queries().flat_map(|(_, hits)| hits);
    named
        .map(|hit| DocId::new(&hit.document).with_context(|| format!("{}", path.display())))
        .collect()
}

/// The model with the calibration that its elements need: made from the corpus where there is none.
fn calibrate(
    loaded: LoadedModel,
    kv_dtype: KvDtype,
    chunk_tokens: u32,
    corpus: &Corpus,
    limit: Option<u64>,
) -> Result<LoadedModel> {
    if !kv_dtype.is_calibrated() || loaded.calibration.is_some() {
        return Ok(loaded);
    }
    let chunker = Chunker::new(&loaded.tokenizer, &loaded.profile, chunk_tokens as usize)?;
    let (chunks, fixed) = (calibration_chunks(corpus, &chunker, limit)?, chunker.fixed());
    report::note(&format!(
        "calibrating {kv_dtype} on the first {}",
        counted(chunks.len(), "chunk")
    ));
    let calibration = loaded.model.calibrate(&chunks, fixed)?;
    Ok(loaded.calibrated(kv_dtype, calibration)?)
}

/// The store that is there, with what is sealed of it.
fn stored(args: &BuildArgs) -> Result<Option<Store>> {
    // What an append sealed does not count where it is to be forgotten.
    let open = if args.restart { Store::open } else { Store::open_sealed };
    match open(&args.store) {
        Ok(store) => Ok(Some(store)),
        Err(StoreError::Absent { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Brings every replica up to what is sealed, and tells whether all are.
fn replicate_all(args: &BuildArgs) -> bool {
    let mut all = true;
    for replica in &args.replicas {
        let progress = ByteProgress::default();
        let done =
            report::watch_bytes(&progress, || replicate(&args.store, replica, false, &progress));
        if let Err(error) = done {
            all = false;
            let (store, replica) = (args.store.display(), replica.display());
            report::warn(&format!(
                "{}; the store is built, bring the replica up to it with \
                 `hyperrag replicate --store {store} --to {replica}`",
                hint::sentence(&anyhow::Error::new(error))
            ));
        }
    }
    all
}

/// Returns the summary or plan of a build as JSON, with where and how it computes.
fn with_device(summary: &impl Serialize, model: &Model) -> Result<String> {
    let mut value = serde_json::to_value(summary)?;
    value["device"] = serde_json::to_value(model.device())?;
    value["compute"] = model.dtype().into();
    value["kernel"] = model.kernel_id().into();
    Ok(value.to_string())
}

fn describe(summary: &BuildSummary) -> String {
    let BuildSummary {
        documents,
        chunks,
        tokens,
        bytes,
        shards,
        shards_before,
        tokens_computed,
        seconds,
        unchanged,
        emptied,
        dead,
        ..
    } = summary;
    let dead = match dead {
        0 => String::new(),
        dead => format!(
            ", {} among the chunks until `hyperrag compact`",
            counted(*dead, "deleted or replaced document")
        ),
    };
    let dead = match unchanged {
        0 => dead,
        unchanged => format!(
            "; {} {} there unchanged{dead}",
            counted(*unchanged, "document"),
            agreeing(*unchanged, "was", "were")
        ),
    };
    let dead = match emptied {
        0 => dead,
        emptied => format!(
            "; {} no text any more and no longer {}{dead}",
            counted(*emptied, "document") + agreeing(*emptied, " has", " have"),
            agreeing(*emptied, "counts", "count")
        ),
    };
    let contents = format!("{}, {}", counted(*documents, "document"), counted(*chunks, "chunk"));
    if shards == shards_before {
        return format!("the store is up to date: {contents}, {}{dead}", report::bytes(*bytes));
    }
    let rate = *tokens_computed as f64 / seconds;
    format!(
        "stored {contents}, {}, {} in {} ({} of them now, {rate:.0} tokens/s, {}){dead}",
        counted(*tokens, "token"),
        report::bytes(*bytes),
        counted(*shards, "shard"),
        shards - shards_before,
        report::duration(*seconds)
    )
}

fn describe_plan(plan: &DryRun) -> String {
    let DryRun { documents, empty_rows, unchanged, chunks, tokens, bytes, .. } = plan;
    let DryRun { tokens_per_second, seconds, emptied, .. } = plan;
    let unchanged = match unchanged {
        0 => String::new(),
        unchanged => {
            format!(", {} that the store has unchanged", counted(*unchanged, "document"))
        }
    };
    let unchanged = match emptied {
        0 => unchanged,
        emptied => {
            format!("{unchanged}; {} would have no text any more", counted(*emptied, "document"))
        }
    };
    let left_out = format!("{} without text{unchanged}", counted(*empty_rows, "row"));
    let time = report::duration(*seconds);
    let lines = [
        ("documents", documents.to_string()),
        ("left out", left_out),
        ("chunks", chunks.to_string()),
        ("tokens", tokens.to_string()),
        ("bytes", format!("{} ({bytes})", report::bytes(*bytes))),
        ("time", format!("{time} at {tokens_per_second:.0} tokens/s, measured here")),
    ];
    fields(&lines.map(|(name, value)| (name.to_owned(), value)))
}
