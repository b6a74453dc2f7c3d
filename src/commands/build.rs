//! `build`: corpus and model in, a store and its replicas out.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyperrag_core::{DocId, Fingerprint, KvDtype, LanguageModel, counted};
use hyperrag_corpus::{Chunker, ColumnsTaken, Corpus};
use hyperrag_engine::build::dry_run::dry_run;
use hyperrag_engine::build::memory_budget::TooLittleMemory;
use hyperrag_engine::build::plan::check_query_room;
use hyperrag_engine::build::read::calibration_chunks;
use hyperrag_engine::build::worker::{self, WorkerSettings};
use hyperrag_engine::maintain::replicate::replicate;
use hyperrag_engine::open::dtype_for;
use hyperrag_engine::shared::place::is_url;
use hyperrag_engine::{
    Add, BuildInput, BuildProgress, ByteProgress, EngineError, LoadedModel, Memory, ModelRequest,
};
use hyperrag_model::Model;
use hyperrag_store::{ColumnNotes, FORMAT_VERSION, Replica, Store, StoreError, StoreNotes};

use crate::cli::build::{BuildArgs, OnBadRow};
use crate::cli::partition::Partition;
use crate::exit::Status;
use crate::hint;
use crate::input;
use crate::input::corpus::columns_to_note;
use crate::input::judged::read_run;
use crate::input::language;
use crate::input::model::request;
use crate::input::partition::share;
use crate::input::store::build_place;
use crate::output::build as output;
use crate::output::store::note_replicas_behind;
use crate::output::{arithmetic, build_progress};
use crate::{report, signals};

/// Time without a sign of life after which a span is taken over.
const PATIENCE: Duration = Duration::from_secs(90);

/// Positions of a chunk, and rows of a shard.
const DEFAULT_SIZE: u32 = 256;

/// Builds a store, or says what it would take.
pub(crate) fn build(args: &BuildArgs, json: bool) -> Result<Status> {
    check_store(args)?;
    // What the place of a shared build has is looked at when the input is counted.
    let (found, noted) = match args.partition.partition {
        Some(_) => (None, StoreNotes::default()),
        None => (stored(args)?, notes(args)?),
    };
    let (corpus, named) = corpus(args, &noted.columns)?;
    let language = language::language(args, found.as_ref(), &corpus);
    let settings = Settings::of(args, found.as_ref(), language);
    let Settings { kv_dtype, chunk_tokens, .. } = settings;
    let is_new = found.is_none();
    let sealed = found.as_ref().map(|store| output::Sealed::of(store.manifest()));
    let loaded = load(args, kv_dtype, chunk_tokens, found, &noted)?;
    check_room(&loaded, chunk_tokens, is_new)?;
    if !json {
        report::note(&arithmetic::sentence(&loaded.model));
    }
    let taken = corpus.columns_taken();
    output::tell_columns(taken.as_ref(), args.columns.title_column.as_deref(), json);
    let loaded = calibrate(loaded, kv_dtype, chunk_tokens, &corpus, args.limit)?;
    let chunker = Chunker::new(&loaded.tokenizer, &loaded.profile, chunk_tokens as usize)?;
    let Settings { version, unit_rows, language, .. } = settings;
    let fingerprint = loaded.fingerprint(version, chunk_tokens, unit_rows, language)?;
    let columns = columns_to_note(&args.columns, noted.columns);
    let notes = StoreNotes { columns, ..loaded.notes.clone() };
    let progress = BuildProgress::default();
    let input = BuildInput {
        model: &loaded.model,
        corpus: &corpus,
        chunker: &chunker,
        fingerprint: &fingerprint,
        calibration: loaded.calibration.as_deref(),
        notes: Some(&notes),
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
            let status = plan(args, &input, taken.as_ref(), json)?;
            if let (Some(sealed), false) = (sealed, args.append) {
                output::say_what_is_there(&args.store, &sealed);
            }
            Ok(status)
        }
        false => match args.partition.partition {
            Some(partition) => work(args, partition, &input, json),
            None => run(args, &input, named, taken.as_ref(), json),
        },
    }
}

/// Refuses a URL where a folder is needed.
fn check_store(args: &BuildArgs) -> Result<()> {
    let store = args.store.display();
    match args.store.to_str().is_some_and(is_url) && args.partition.partition.is_none() {
        true => bail!(
            "{store}: a store is built in a folder: name one and send it there with `hyperrag export`, or \
             build it there with --partition"
        ),
        false => Ok(()),
    }
}

/// Builds what other processes leave, until all is built.
fn work(
    args: &BuildArgs,
    partition: Partition,
    input: &BuildInput<'_, Model>,
    json: bool,
) -> Result<Status> {
    let flags = &args.partition;
    let share = share(partition, |name| std::env::var(name).ok())?;
    let (place, scratch) = build_place(&args.store, flags.scratch.as_deref())?;
    let settings = WorkerSettings {
        share,
        wait: !flags.no_wait,
        patience: flags
            .takeover_after
            .map_or(PATIENCE, |seconds| Duration::from_secs(u64::from(seconds))),
        scratch: &scratch,
    };
    let built = build_progress::watch(input.progress, input.corpus.size(), args.limit, || {
        worker::work(input, &place, settings)
    });
    let done = match built {
        Err(EngineError::Interrupted) => {
            report::note(
                "interrupted: spans that are done are kept; any worker builds the one that was begun",
            );
            return Ok(Status::Interrupted);
        }
        built => built?,
    };
    output::warn_of_empty_rows(done.empty_rows);
    output::warn_of_faults(done.bad_rows, done.lossy_rows);
    match json {
        true => report::print_data(&serde_json::to_string(&done)?)?,
        false => report::note(&output::describe_work(&done, &args.store)),
    }
    Ok(if done.bad_rows > 0 { Status::Degraded } else { Status::Done })
}

/// Says what the build would take.
fn plan(
    args: &BuildArgs,
    input: &BuildInput<'_, Model>,
    taken: Option<&ColumnsTaken>,
    json: bool,
) -> Result<Status> {
    let plan = build_progress::watch(input.progress, input.corpus.size(), args.limit, || {
        dry_run(input, &args.store)
    })?;
    match json {
        true => report::print_data(&output::with_context(&plan, input, taken)?)?,
        false => report::print(&output::describe_plan(&plan))?,
    }
    output::warn_of_faults(plan.bad_rows, plan.lossy_rows);
    Ok(if plan.bad_rows > 0 { Status::Degraded } else { Status::Done })
}

/// Builds the store and brings its replicas up to it.
fn run(
    args: &BuildArgs,
    input: &BuildInput<'_, Model>,
    named: Option<usize>,
    taken: Option<&ColumnsTaken>,
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
    output::warn_of_rows(args, named, &summary);
    match json {
        true => report::print_data(&output::with_context(&summary, input, taken)?)?,
        false => report::note(&output::describe(&summary)),
    }
    let replicated = replicate_all(args);
    note_replicas_behind(&args.store);
    Ok(if replicated && summary.bad_rows == 0 { Status::Done } else { Status::Degraded })
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
    fn of(args: &BuildArgs, found: Option<&Store>, language: String) -> Self {
        let made_with = found.map(|store| &store.manifest().fingerprint);
        let stored = made_with.filter(|_| args.append);
        let of = |field: fn(&Fingerprint) -> u32| stored.map_or(DEFAULT_SIZE, field);
        let kv_dtype = stored.map_or(KvDtype::Bf16, |stored| stored.kv_shape.kv_dtype);
        Self {
            version: made_with.map_or(FORMAT_VERSION, |made_with| made_with.format_version),
            kv_dtype: args.kv_dtype.unwrap_or(kv_dtype),
            chunk_tokens: args.chunk_tokens.unwrap_or_else(|| of(|stored| stored.chunk_tokens)),
            unit_rows: args.unit_rows.unwrap_or_else(|| of(|stored| stored.unit_rows)),
            language,
        }
    }
}

/// Names that the store notes; none where there is no store.
fn notes(args: &BuildArgs) -> Result<StoreNotes> {
    let noted = hyperrag_store::notes(&args.store);
    match noted {
        Err(error @ StoreError::Damaged { .. }) => {
            report::warn(&format!(
                "{}; the build writes new ones",
                hyperrag_core::sentence(&error)
            ));
            Ok(StoreNotes::default())
        }
        noted => Ok(noted?.unwrap_or_default()),
    }
}

/// Loads the model: with the profile of the store that is added to, and with the arithmetic and the
/// calibration of the one that is there, be it unfinished.
fn load(
    args: &BuildArgs,
    kv_dtype: KvDtype,
    chunk_tokens: u32,
    found: Option<Store>,
    noted: &StoreNotes,
) -> Result<LoadedModel> {
    let calibrated = found.as_ref().filter(|_| kv_dtype.is_calibrated());
    let calibration = calibrated.map(Store::calibration).transpose()?.flatten();
    let made_with = found.as_ref().map(|store| &store.manifest().fingerprint);
    let dtype = dtype_for(args.model.dtype, made_with);
    let request = ModelRequest { dtype, notes: Some(noted), ..request(&args.model) };
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
fn corpus(args: &BuildArgs, noted: &ColumnNotes) -> Result<(Corpus, Option<usize>)> {
    let only = args.only.as_deref().map(Named::read).transpose()?;
    let limits = memory(args)?.limits();
    let corpus = input::corpus::open_as_noted(&args.inputs, &args.columns, noted, limits)?;
    let corpus = match args.on_bad_row {
        OnBadRow::Fail => corpus,
        OnBadRow::Skip => corpus.skipping_bad_rows(),
    };
    Ok(match only {
        None => (corpus, None),
        Some(only) => {
            let (named, corpus) = (only.documents.len(), corpus.only(only.documents));
            // Of an append's inputs not each need have some of them.
            if !args.append && corpus.rows().next().is_none() {
                bail!("{}", none_named(only.run, only.first, &corpus.with_all())?);
            }
            (corpus, Some(named))
        }
    })
}

/// Documents that a run names.
struct Named<'a> {
    run: &'a Path,
    first: Option<DocId>,
    documents: HashSet<DocId>,
}

impl<'a> Named<'a> {
    fn read(run: &'a Path) -> Result<Self> {
        let read = read_run(run)?;
        let mut named = Self { run, first: None, documents: HashSet::new() };
        for hit in read.queries().flat_map(|(_, hits)| hits) {
            let id = DocId::new(&hit.document).with_context(|| format!("{}", run.display()))?;
            named.first.get_or_insert_with(|| id.clone());
            named.documents.insert(id);
        }
        Ok(named)
    }
}

/// Says that a run names no document of the corpus, with an id of each.
fn none_named(run: &Path, first: Option<DocId>, corpus: &Corpus) -> Result<String> {
    let run = run.display();
    let Some(first) = first else {
        return Ok(format!("{run}: the run names no document; nothing was built"));
    };
    let input = match corpus.rows().next().transpose()? {
        Some(row) => format!("the input's first is {:?}", row.document.id.as_str()),
        None => "the input has none".to_owned(),
    };
    Ok(format!(
        "{run}: the run names no document of the input: its first is {:?}, {input}; nothing was built",
        first.as_str()
    ))
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
