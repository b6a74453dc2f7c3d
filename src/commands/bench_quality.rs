//! `bench quality`: judged queries in, what each element type's rankings are worth out.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use hyperrag_core::{KvBlock, KvDtype, LanguageModel, ModelError};
use hyperrag_corpus::{Chunker, Corpus, Limits};
use hyperrag_engine::build::read::calibration_chunks;
use hyperrag_engine::search::session::query_tokens;
use hyperrag_engine::{LoadedModel, ModelRequest, Query};
use hyperrag_eval::Qrels;
use hyperrag_eval::experiment::quality::candidates::{
    JudgedQuery, draw_queries, listed_candidates, retrieve_candidates,
};
use hyperrag_eval::experiment::quality::cost::{Cost, cost_points, knee};
use hyperrag_eval::experiment::quality::pass::{
    PairScores, QualityInput, Recomputed, Rounding, score_variants,
};
use hyperrag_eval::experiment::quality::report::{quality_rows, scored_queries};
use hyperrag_eval::report::quality::{Figures, VariantFigures};
use hyperrag_eval::report::quality_chart;
use hyperrag_eval::report::quality_table::table;
use hyperrag_model::{ComputeDtype, DtypeChoice, Kernel, Model};

use crate::cli::bench::{QualityArgs, VariantName};
use crate::exit::Status;
use crate::input;
use crate::input::judged::{read_qrels, read_run};
use crate::input::model::request;
use crate::input::queries;
use crate::input::ranking::aggregate;
use crate::output::quality_runs::{ScoredQueries, ScoredVariant, write_runs};
use crate::{report, signals};

/// Compares rankings from blocks of several element types with each other and with BM25's.
pub(crate) fn bench_quality(args: &QualityArgs, json: bool) -> Result<Status> {
    let judged = read_qrels(&args.qrels, std::slice::from_ref(&args.measure))?;
    let all = queries::read(&args.queries)?;
    let left_out = left_out(&all, &judged);
    let drawn = draw_queries(all, &judged, args.query_count, args.seed);
    ensure!(
        !drawn.is_empty(),
        "{}: it judges none of the queries of {}",
        args.qrels.display(),
        args.queries.display()
    );
    let qrels = judged.only(drawn.iter().map(|query| query.id.as_str()));
    let corpus = input::corpus::open(&args.inputs, &args.columns, Limits::default())?;
    let taken = take(args, &corpus, drawn)?;
    if let Some(folder) = &args.runs_dir {
        write_runs(folder, &taken)?;
    }
    let figures = figures(args, taken, &qrels);
    if let Some(path) = &args.svg {
        let svg = quality_chart::svg(&figures);
        fs::write(path, svg).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    report::figures(&figures, json, args.out.as_deref(), || table(&figures))?;
    left_out.iter().for_each(|what| report::note(what));
    Ok(verdict(&figures))
}

/// Sentences on queries and judgements that have no counterpart.
fn left_out(queries: &[Query], judged: &Qrels) -> Vec<String> {
    let found = queries.iter().filter(|query| judged.grades(&query.id).is_some()).count();
    let missing = [
        (queries.len() - found, "queries are not judged"),
        (judged.queries().len() - found, "judged queries are not among the queries"),
    ];
    let missing = missing.into_iter().filter(|(count, _)| *count > 0);
    missing.map(|(count, what)| format!("{count} {what}: they were left out")).collect()
}

/// Scores the candidates of all queries with every variant, one type of arithmetic and length of chunks
/// after the other.
fn take(args: &QualityArgs, corpus: &Corpus, drawn: Vec<Query>) -> Result<ScoredQueries> {
    let stop = signals::stop()?;
    let mut ways: Vec<Way> = Vec::new();
    for way in args.variants.iter().map(|variant| Way::of(variant, args)) {
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    let (mut taken, mut drawn) = (ScoredQueries::default(), Some(drawn));
    for way in ways {
        let dtype = DtypeChoice::Named(way.dtype);
        let request = ModelRequest { dtype, ..request(&args.model) };
        let loaded = LoadedModel::load(&request, KvDtype::F32, way.chunk_tokens, None, None)?;
        let tokens = way.chunk_tokens as usize;
        let chunker = Chunker::new(&loaded.tokenizer, &loaded.profile, tokens)?;
        // The chunker, which tells documents without text, needs the tokenizer.
        if let Some(queries) = drawn.take() {
            taken.judged = candidates(args, corpus, &chunker, queries, stop)?;
        }
        let scored = score(args, way, &loaded, (corpus, &chunker), &taken.judged, stop)?;
        taken.variants.extend(scored);
        taken.backend_description = loaded.model.backend_description();
        taken.profile.clone_from(&loaded.profile.name);
    }
    // In the order in which they were asked for.
    let place =
        |scored: &ScoredVariant| args.variants.iter().position(|v| v.text == scored.figures.name);
    taken.variants.sort_by_key(place);
    Ok(taken)
}

fn figures(args: &QualityArgs, taken: ScoredQueries, qrels: &Qrels) -> Figures {
    let ScoredQueries { judged, variants: scored, backend_description, profile } = taken;
    let priced = scored.iter().map(|ScoredVariant { figures, queries }| {
        (figures.name.clone(), queries.clone(), figures.cost)
    });
    let costs = cost_points(&priced.collect::<Vec<_>>(), args.depth, qrels, &args.measure);
    let (variants, scores): (Vec<_>, Vec<_>) = scored
        .into_iter()
        .map(|ScoredVariant { figures, queries }| {
            let name = figures.name.clone();
            (figures, (name, queries))
        })
        .unzip();
    let retriever = match &args.candidates {
        Some(run) => run.display().to_string(),
        None => "BM25".to_owned(),
    };
    Figures {
        version: env!("CARGO_PKG_VERSION"),
        backend_description,
        profile,
        retriever,
        measure: args.measure.to_string(),
        queries: judged.len(),
        seed: args.seed,
        depth: args.depth,
        pairs: judged.iter().map(|query| query.candidates.len()).sum(),
        rounded: args.round,
        variants,
        rows: quality_rows(&scores, qrels, &args.measure),
        knee: knee(&costs).cloned(),
        costs,
    }
}

/// Recomputed scores with other bits are a fault of the program.
fn verdict(figures: &Figures) -> Status {
    let mut status = Status::Done;
    for VariantFigures { name, recomputed: Recomputed { scores, equal, .. }, .. } in
        &figures.variants
    {
        if equal < scores {
            report::warn(&format!(
                "{name}: {} of {scores} scores have other bits where their blocks are computed again",
                scores - equal
            ));
            status = Status::Failed;
        }
    }
    status
}

/// Type and length that one loaded model and one chunker are for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Way {
    dtype: ComputeDtype,
    chunk_tokens: u32,
}

impl Way {
    fn of(variant: &VariantName, args: &QualityArgs) -> Self {
        let dtype = || args.model.dtype.on_cpu(Kernel::best());
        Self {
            dtype: variant.dtype.unwrap_or_else(dtype),
            chunk_tokens: variant.chunk_tokens.unwrap_or(args.chunk_tokens),
        }
    }
}

/// The candidates of the run, or BM25's.
fn candidates(
    args: &QualityArgs,
    corpus: &Corpus,
    chunker: &Chunker<'_>,
    queries: Vec<Query>,
    stop: &AtomicBool,
) -> Result<Vec<JudgedQuery>> {
    let bar = report::bar(None, "{elapsed_precise} {spinner} finding candidates");
    let judged = match &args.candidates {
        Some(path) => listed_candidates(corpus, queries, &read_run(path)?, args.depth, stop)?,
        None => {
            let folder = tempfile::tempdir().context("no folder for an index")?;
            retrieve_candidates(
                corpus,
                chunker,
                (folder.path(), args.language),
                queries,
                args.depth,
                stop,
            )?
        }
    };
    bar.finish_and_clear();
    ensure!(
        judged.iter().any(|query| !query.candidates.is_empty()),
        "no query has a candidate: name others with --queries or --candidates"
    );
    Ok(judged)
}

/// Scores all pairs with the variants that `loaded` and the chunker are for.
fn score(
    args: &QualityArgs,
    way: Way,
    loaded: &LoadedModel,
    (corpus, chunker): (&Corpus, &Chunker<'_>),
    judged: &[JudgedQuery],
    stop: &AtomicBool,
) -> Result<Vec<ScoredVariant>> {
    let (names, models) = models(args, way, loaded, (corpus, chunker))?;
    let template = loaded.profile.query_template(&loaded.tokenizer)?;
    let part = |query: &JudgedQuery| {
        let tokens = query_tokens(&loaded.tokenizer, &template, &query.query);
        Ok(tokens.with_context(|| format!("query {}", query.query.id))?.suffix)
    };
    let parts = judged.iter().map(part).collect::<Result<Vec<_>>>()?;
    let round: fn(&Model, &KvBlock) -> Result<KvBlock, ModelError> = Model::requantise;
    let input = QualityInput {
        corpus,
        chunker,
        judged,
        parts: &parts,
        variants: &models,
        rounding: args.round.then_some(Rounding { exact: &loaded.model, round }),
        recompute: args.recompute_queries,
        seed: args.seed,
        stop,
    };
    let length = (input.documents() * models.len()) as u64;
    let bar = report::bar(
        Some(length),
        &format!(
            "{{elapsed_precise}} {{bar:24}} {{pos}}/{{len}} documents in {} ({}), ETA {{eta_precise}}",
            way.dtype,
            names.join(", ")
        ),
    );
    let scored = score_variants(&input, &mut |documents| bar.inc(documents as u64))?;
    bar.finish_and_clear();
    let variants = names.into_iter().zip(&models).zip(scored);
    Ok(variants
        .map(|((name, model), scores)| ScoredVariant {
            figures: variant_figures(name, model, way, &scores, judged.len()),
            queries: scored_queries(judged, &scores.scores, aggregate(args.aggregate)),
        })
        .collect())
}

/// Names the variants that `loaded` and the chunker are for, and makes a model of each.
fn models(
    args: &QualityArgs,
    way: Way,
    loaded: &LoadedModel,
    (corpus, chunker): (&Corpus, &Chunker<'_>),
) -> Result<(Vec<String>, Vec<Model>)> {
    let (mut names, mut models, mut calibration) = (Vec::new(), Vec::new(), None);
    for variant in args.variants.iter().filter(|variant| Way::of(variant, args) == way) {
        if variant.kv_dtype.is_calibrated() && calibration.is_none() {
            let chunks = calibration_chunks(corpus, chunker, None)?;
            calibration = Some(Arc::new(loaded.model.calibrate(&chunks, chunker.fixed())?));
        }
        models.push(loaded.model.with_kv_dtype(variant.kv_dtype, calibration.clone())?);
        names.push(variant.text.clone());
    }
    Ok((names, models))
}

fn variant_figures(
    name: String,
    model: &Model,
    way: Way,
    scores: &PairScores,
    queries: usize,
) -> VariantFigures {
    let bytes_a_token = model.kv_shape().token_bytes();
    let bytes = (scores.tokens * bytes_a_token) as f64;
    VariantFigures {
        name,
        kernel: model.kernel_id(),
        bytes_a_token,
        chunk_tokens: way.chunk_tokens,
        cost: Cost {
            seconds_a_query: scores.seconds / queries as f64,
            bytes_a_document: bytes / scores.documents.max(1) as f64,
        },
        recomputed: scores.recomputed,
    }
}
