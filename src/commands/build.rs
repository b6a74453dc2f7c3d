//! `build`: corpus and model in, a store and its replicas out.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hyperrag_core::{DocId, Document, Fingerprint, KvDtype};
use hyperrag_corpus::{Chunker, ColumnsTaken, Corpus, Limits, Row};
use hyperrag_engine::build::dry_run::{DryRun, dry_run};
use hyperrag_engine::build::memory_budget::TooLittleMemory;
use hyperrag_engine::build::read::calibration_chunks;
use hyperrag_engine::maintain::replicate::replicate;
use hyperrag_engine::open::dtype_for;
use hyperrag_engine::{
    Add, BuildInput, BuildProgress, BuildSummary, ByteProgress, EngineError, LoadedModel, Memory,
    ModelRequest,
};
use hyperrag_model::Model;
use hyperrag_retrieval::{Analyzer, detect_language};
use hyperrag_store::{ColumnNotes, FORMAT_VERSION, Replica, Store, StoreError, StoreNotes};
use serde::Serialize;

use crate::cli::build::{BuildArgs, ColumnArgs, LanguageChoice, OnBadRow};
use crate::exit::Status;
use crate::hint;
use crate::input;
use crate::input::judged::read_run;
use crate::input::model::request;
use crate::output::store::note_replicas_behind;
use crate::output::{arithmetic, build_progress};
use crate::{report, signals};

/// Positions of a chunk, and rows of a shard.
const DEFAULT_SIZE: u32 = 256;

/// Documents at the start of a corpus by which its language is guessed.
const LANGUAGE_DOCUMENTS: u64 = 64;

/// Characters of each of them that are looked at.
const LANGUAGE_CHARACTERS: usize = 2000;

/// Bytes of text from which on a guess of its language is worth a warning.
const LANGUAGE_BYTES: usize = 200;

/// Builds a store, or says what it would take.
pub(crate) fn build(args: &BuildArgs, json: bool) -> Result<Status> {
    let found = stored(args)?;
    let noted = notes(args)?;
    let (corpus, named) = corpus(args, &noted.columns)?;
    let language = language(args, found.as_ref(), &corpus);
    let settings = Settings::of(args, found.as_ref(), language);
    let Settings { kv_dtype, chunk_tokens, .. } = settings;
    let loaded = load(args, kv_dtype, chunk_tokens, found, &noted)?;
    if !json {
        report::note(&arithmetic::sentence(&loaded.model));
    }
    let taken = corpus.columns_taken();
    tell_columns(taken.as_ref(), json);
    let loaded = calibrate(loaded, kv_dtype, chunk_tokens, &corpus, args.limit)?;
    let chunker = Chunker::new(&loaded.tokenizer, &loaded.profile, chunk_tokens as usize)?;
    let Settings { version, unit_rows, language, .. } = settings;
    let fingerprint = loaded.fingerprint(version, chunk_tokens, unit_rows, language)?;
    let columns = columns_to_note(args, noted.columns);
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
        true => plan(args, &input, taken.as_ref(), json),
        false => run(args, &input, named, taken.as_ref(), json),
    }
}

/// Says which columns the documents are read from.
fn tell_columns(taken: Option<&ColumnsTaken>, json: bool) {
    let Some(taken) = taken else { return };
    if !json {
        report::note(&format!("columns: {taken}"));
    }
    if let Some(difference) = taken.difference() {
        report::warn(&difference);
    }
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
        true => report::print_data(&with_context(&plan, input, taken)?)?,
        false => report::print(&describe_plan(&plan))?,
    }
    warn_of_faults(plan.bad_rows, plan.lossy_rows);
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
    warn_of_rows(args, named, &summary);
    match json {
        true => report::print_data(&with_context(&summary, input, taken)?)?,
        false => report::note(&describe(&summary)),
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

/// Names that the store notes, where it is added to; else none.
fn notes(args: &BuildArgs) -> Result<StoreNotes> {
    if !args.append {
        return Ok(StoreNotes::default());
    }
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

/// Returns the language of the store: the one that is named, else that of the store that is there, else
/// English, which never changes by itself. Says which one `auto` stands for, and warns where English
/// does not fit the first documents.
fn language(args: &BuildArgs, found: Option<&Store>, corpus: &Corpus) -> String {
    let recorded = found.map(|store| store.manifest().fingerprint.language.clone());
    match (args.language, recorded) {
        (Some(LanguageChoice::Named(language)), _) => return language.to_string(),
        (Some(LanguageChoice::Auto), Some(recorded)) => return recorded,
        (None, Some(recorded)) if args.append => return recorded,
        (None, Some(_)) => return Analyzer::ENGLISH.to_string(),
        (_, None) => {}
    }
    let limit = args.limit.map_or(LANGUAGE_DOCUMENTS, |limit| limit.min(LANGUAGE_DOCUMENTS));
    let texts: Vec<String> = (0..limit)
        .zip(corpus.rows())
        .map_while(|(_, row)| row.ok())
        .map(|Row { document: Document { title, text, .. }, .. }| {
            title.chars().chain(['\n']).chain(text.chars()).take(LANGUAGE_CHARACTERS).collect()
        })
        .collect();
    let (guessed, is_sure) = detect_language(&texts);
    let first = match texts.len() {
        1 => "the first document".to_owned(),
        count => format!("the first {count} documents"),
    };
    if args.language.is_some() {
        let guessed = if is_sure { guessed } else { Analyzer::NONE };
        report::note(&format!("language: {guessed}, by {first}"));
        return guessed.to_string();
    }
    let is_long = texts.iter().map(String::len).sum::<usize>() >= LANGUAGE_BYTES;
    if is_sure && is_long && guessed != Analyzer::ENGLISH {
        let looks = match guessed {
            Analyzer::NONE => "do not look english".to_owned(),
            guessed => format!("look {guessed}, not english"),
        };
        report::warn(&format!(
            "{first} {looks}, and BM25 stems English words and leaves out English stop words: \
             `--language {guessed}` fits them, `--language english` is this without the warning"
        ));
    }
    Analyzer::ENGLISH.to_string()
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

/// Memory that the build may hold.
fn memory(args: &BuildArgs) -> Result<Memory, TooLittleMemory> {
    Memory::new(args.memory, args.max_document_bytes)
}

/// The input, and how many documents of it `--only` names.
fn corpus(args: &BuildArgs, noted: &ColumnNotes) -> Result<(Corpus, Option<usize>)> {
    let only = args.only.as_deref().map(documents_of).transpose()?;
    let limits = memory(args)?.limits();
    let corpus = opened(args, noted, limits)?;
    let corpus = match args.on_bad_row {
        OnBadRow::Fail => corpus,
        OnBadRow::Skip => corpus.skipping_bad_rows(),
    };
    Ok(match only {
        None => (corpus, None),
        Some(only) => {
            let named = only.len();
            (corpus.only(only), Some(named))
        }
    })
}

/// Opens the input with the columns that the flags name, and for others with the noted ones, where it has
/// these and its first row is not without the title that it has by the usual name.
fn opened(args: &BuildArgs, noted: &ColumnNotes, limits: Limits) -> Result<Corpus> {
    let open = |columns: &ColumnArgs| input::corpus::open(&args.inputs, columns, limits);
    let given = &args.columns;
    if noted.is_empty() {
        return open(given);
    }
    let as_noted = ColumnArgs {
        id_column: given.id_column.clone().or_else(|| noted.id.clone()),
        title_column: given.title_column.clone().or_else(|| noted.title.clone()),
        text_column: given.text_column.clone().or_else(|| noted.text.clone()),
        ..given.clone()
    };
    // A pipe is read once.
    let once = |input: &PathBuf| {
        let found = input.metadata();
        input.as_os_str() == "-" || found.is_ok_and(|found| !found.is_file() && !found.is_dir())
    };
    if args.inputs.iter().any(once) {
        return open(&as_noted);
    }
    let first = |corpus: &Corpus| corpus.rows().next().and_then(Result::ok);
    let titled = |row: &Row| !row.document.title.is_empty();
    let Ok(corpus) = open(&as_noted) else { return open(given) };
    let row = first(&corpus);
    if row.as_ref().is_some_and(titled) {
        return Ok(corpus);
    }
    match open(given) {
        Ok(other) if first(&other).is_some_and(|other| row.is_none() || titled(&other)) => {
            Ok(other)
        }
        _ => Ok(corpus),
    }
}

/// Columns to note: those of the flags, else those noted before.
fn columns_to_note(args: &BuildArgs, noted: ColumnNotes) -> ColumnNotes {
    let ColumnArgs { id_column, title_column, text_column, .. } = args.columns.clone();
    ColumnNotes {
        id: id_column.or(noted.id),
        title: title_column.or(noted.title),
        text: text_column.or(noted.text),
    }
}

/// Speaks of rows that were left out, and of documents that were `named` and not found.
fn warn_of_rows(args: &BuildArgs, named: Option<usize>, summary: &BuildSummary) {
    if summary.empty_rows > 0 {
        report::warn(&format!("{} rows have no text and were left out", summary.empty_rows));
    }
    warn_of_faults(summary.bad_rows, summary.lossy_rows);
    // Of what was there before, or lies beyond a limit, nothing can be said.
    if let (Some(named), None, false, 0) = (named, args.limit, args.append, summary.bad_rows) {
        let missing = (named as u64).saturating_sub(summary.documents + summary.empty_rows);
        if missing > 0 {
            report::warn(&format!("{missing} documents of the run are not in the input"));
        }
    }
}

/// Speaks of rows that cannot be read, and of those that were not read as they are.
fn warn_of_faults(bad_rows: u64, lossy_rows: u64) {
    if bad_rows > 0 {
        report::warn(&format!("{bad_rows} rows cannot be read and were left out"));
    }
    if lossy_rows > 0 {
        report::warn(&format!(
            "{lossy_rows} rows have half a surrogate pair in title or text, read as U+FFFD"
        ));
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
    report::note(&format!("calibrating {kv_dtype} on the first {} chunks", chunks.len()));
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

/// Returns the summary or plan of a build as JSON, with its language, where and how it computes, and the
/// columns that it reads.
fn with_context(
    summary: &impl Serialize,
    input: &BuildInput<'_, Model>,
    taken: Option<&ColumnsTaken>,
) -> Result<String> {
    let (mut value, model) = (serde_json::to_value(summary)?, input.model);
    value["language"] = input.fingerprint.language.as_str().into();
    value["device"] = serde_json::to_value(model.device())?;
    value["compute"] = model.dtype().into();
    value["kernel"] = model.kernel_id().into();
    value["columns"] = serde_json::to_value(taken)?;
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
            ", {dead} deleted or replaced documents among the chunks until `hyperrag compact`"
        ),
    };
    let dead = match unchanged {
        0 => dead,
        unchanged => format!("; {unchanged} documents were there as they are{dead}"),
    };
    let dead = match emptied {
        0 => dead,
        emptied => format!("; {emptied} documents have no text any more and count no longer{dead}"),
    };
    if shards == shards_before {
        return format!(
            "the store is up to date: {documents} documents, {chunks} chunks, {}{dead}",
            report::bytes(*bytes)
        );
    }
    let rate = *tokens_computed as f64 / seconds;
    format!(
        "stored {documents} documents, {chunks} chunks, {tokens} tokens, {} in {shards} shards \
         ({} of them now, {rate:.0} tokens/s, {}){dead}",
        report::bytes(*bytes),
        shards - shards_before,
        report::duration(*seconds)
    )
}

fn describe_plan(plan: &DryRun) -> String {
    let DryRun { documents, empty_rows, unchanged, chunks, tokens, bytes, .. } = plan;
    let DryRun { tokens_per_second, seconds, emptied, .. } = plan;
    let unchanged = match unchanged {
        0 => String::new(),
        unchanged => format!(", {unchanged} that the store has as they are"),
    };
    let unchanged = match emptied {
        0 => unchanged,
        emptied => format!("{unchanged}; {emptied} documents would have no text any more"),
    };
    format!(
        "documents  {documents}\nleft out   {empty_rows} rows without text{unchanged}\nchunks     {chunks}\ntokens     {tokens}\n\
         bytes      {} ({bytes})\ntime       {} at {tokens_per_second:.0} tokens/s, measured here",
        report::bytes(*bytes),
        report::duration(*seconds)
    )
}
