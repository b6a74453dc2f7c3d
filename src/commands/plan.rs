//! `plan`: sizes, rates and prices in, what storing blocks costs and whether it pays out.

use std::fs;

use anyhow::{Context, Result};
use hyperrag_eval::experiment::trace::{
    BLOCKS_MAX, CandidateLists, DescribedTier, TraceError, TraceSettings, simulate,
};
use hyperrag_rerank::cost::{BlockWork, Costs, QueryLoad};

use crate::cli::plan::{PlanArgs, PlanCorpusArgs};
use crate::error::Usage;
use crate::exit::Status;
use crate::input::judged::read_run;
use crate::input::prices::{BUILT_IN, Prices, usual_storages};
use crate::input::shape::{ModelSizes, sizes};
use crate::output::plan::{Compute, PlanReport};
use crate::output::plan_chart;
use crate::output::plan_simulation::Simulation;
use crate::report;

/// Queries of a trace for each list, and at least.
const TRACE_QUERIES_A_LIST: u64 = 10;
const TRACE_QUERIES_MIN: u64 = 12;
/// Lists that a chunk is in, on average, of 300 queries over SciFact's 5,183 documents.
const LISTS_A_CHUNK: f64 = 300.0 * 100.0 / 5183.0;
/// Largest number of reads of a trace, and of candidates of its lists.
const READS_MAX: u64 = 1_000_000_000;
const CANDIDATES_MAX: u64 = 50_000_000;
/// Largest number of chunks.
const CHUNKS_MAX: f64 = 1e15;

/// Computes what a store costs, and says when not to have one.
pub(crate) fn plan(args: &PlanArgs, json: bool) -> Result<Status> {
    if args.print_prices {
        report::print_data(BUILT_IN)?;
        return Ok(Status::Done);
    }
    let model = sizes(&args.model)?;
    let prices = Prices::read(args.prices.as_deref())?;
    let compute = compute(args, &model, &prices)?;
    let work = work(args, &model, &compute);
    let blocks = chunks(&args.corpus, work.bytes)?;
    let load = QueryLoad {
        blocks,
        depth: args.corpus.chunks_a_query().min(blocks as f64),
        queries_per_second: args.corpus.queries_per_second,
        changed_a_month: args.corpus.changed_a_month,
    };
    let storages = prices.storages(&args.storage)?;
    let costs = Costs::new(&work, &load, compute.dollars_per_hour, &storages);
    if let Some(path) = &args.chart {
        let svg = plan_chart::svg(&work, &load, compute.dollars_per_hour, &storages);
        fs::write(path, svg).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    let mut report = PlanReport::new(args, &model, compute, &prices.date, (&work, &load, &costs));
    if args.simulation.simulate {
        report.simulation = Some(simulation(args, &work, &load, &prices)?);
    }
    report::figures(&report, json, None, || report.text())?;
    Ok(Status::Done)
}

/// Runs a trace over the kinds of storage.
fn simulation(
    args: &PlanArgs,
    work: &BlockWork,
    load: &QueryLoad,
    prices: &Prices,
) -> Result<Simulation> {
    let flags = &args.simulation;
    let depth = args.corpus.depth as usize;
    let lists = match &flags.run {
        Some(path) => CandidateLists::of_run(&read_run(path)?, depth)
            .with_context(|| format!("{}: the run names no document", path.display()))?,
        None => drawn(args, load.blocks)?,
    };
    let usual = (TRACE_QUERIES_A_LIST * lists.queries() as u64).max(TRACE_QUERIES_MIN);
    let queries = flags.trace_queries.map_or(usual, u64::from);
    if queries.saturating_mul(depth as u64) > READS_MAX {
        return Err(Usage(format!(
            "the trace has {queries} queries of {depth} candidates; {READS_MAX} reads can be simulated: give \
             --trace-queries or a smaller --depth"
        ))
        .into());
    }
    // The documents of a run are all there are; drawn lists stand for the whole corpus.
    let bytes = match flags.run {
        Some(_) => f64::from(lists.blocks()) * work.bytes as f64,
        None => load.blocks as f64 * work.bytes as f64,
    };
    let storages = prices.storages(&args.storage)?;
    let usual = usual_storages();
    let named = if args.storage.is_empty() { &usual } else { &args.storage };
    let tiers: Vec<DescribedTier> = storages
        .iter()
        .zip(named)
        .map(|(storage, flag)| DescribedTier {
            name: storage.name.clone(),
            share: flag.size_bytes.map(|size| size / bytes),
            latency_seconds: storage.latency_seconds,
            bytes_per_second: storage.bytes_per_second,
        })
        .collect();
    let settings = TraceSettings {
        queries: usize::try_from(queries)?,
        query_skew: flags.query_skew,
        seed: flags.seed,
        block_bytes: work.bytes,
        query_seconds: work.query_seconds,
    };
    let trace = simulate(&lists, &tiers, settings).map_err(|error| match error {
        TraceError::NoHome | TraceError::TooFew => anyhow::Error::from(Usage(error.to_string())),
        error => error.into(),
    })?;
    Ok(Simulation::new(trace, &storages, named, bytes, load))
}

/// Draws lists of candidates.
fn drawn(args: &PlanArgs, chunks: u64) -> Result<CandidateLists> {
    let blocks = chunks.min(BLOCKS_MAX) as u32;
    let depth = (args.corpus.chunks_a_query() as u32).min(blocks);
    let usual = (f64::from(blocks) * LISTS_A_CHUNK / f64::from(depth)).ceil();
    let queries = args.simulation.distinct_queries.unwrap_or(usual as u32);
    if u64::from(queries) * u64::from(depth) > CANDIDATES_MAX {
        return Err(Usage(format!(
            "{queries} lists of {depth} candidates: {CANDIDATES_MAX} candidates can be drawn; give fewer \
             --distinct-queries or a smaller --depth"
        ))
        .into());
    }
    let seed = args.simulation.seed;
    Ok(CandidateLists::drawn(blocks, depth as usize, queries as usize, seed))
}

/// Returns the rates and the price of the hardware.
fn compute(args: &PlanArgs, model: &ModelSizes, prices: &Prices) -> Result<Compute> {
    let flags = &args.compute;
    let hardware = prices.hardware(&flags.hardware)?;
    let dollars_per_hour = flags.dollars_per_hour.unwrap_or(hardware.dollars_per_hour);
    let (tokens, query_tokens) = tokens(&args.corpus);
    let (name, devices) = (flags.hardware.clone(), flags.devices);
    Ok(match flags.tokens_per_second {
        Some(rate) => Compute {
            name,
            devices,
            dollars_per_hour,
            flops: None,
            efficiency: None,
            prefill_tokens_per_second: rate,
            query_tokens_per_second: flags.query_tokens_per_second.unwrap_or(rate),
        },
        None => {
            let flops = flags.flops.unwrap_or(hardware.flops);
            let efficiency = flags.efficiency.unwrap_or(hardware.efficiency);
            let rate = |tokens: f64, operations: f64| tokens * flops * efficiency / operations;
            Compute {
                name,
                devices,
                dollars_per_hour,
                flops: Some(flops),
                efficiency: Some(efficiency),
                prefill_tokens_per_second: rate(tokens, model.work.prefill_flops(tokens)),
                query_tokens_per_second: rate(
                    query_tokens,
                    model.work.query_flops(query_tokens, tokens),
                ),
            }
        }
    })
}

/// Returns the work of a device on one block.
fn work(args: &PlanArgs, model: &ModelSizes, compute: &Compute) -> BlockWork {
    let (tokens, query_tokens) = tokens(&args.corpus);
    BlockWork {
        bytes: model.kv_shape.block_bytes(tokens.ceil() as usize) as u64,
        prefill_seconds: tokens / compute.prefill_tokens_per_second,
        query_seconds: query_tokens / compute.query_tokens_per_second,
    }
}

fn tokens(corpus: &PlanCorpusArgs) -> (f64, f64) {
    (corpus.tokens_a_chunk(), corpus.query_tokens.into())
}

/// Returns the number of chunks that the flags name.
fn chunks(corpus: &PlanCorpusArgs, block_bytes: u64) -> Result<u64> {
    let of_documents = corpus.documents.map(|documents| documents * corpus.chunks_a_document());
    let of_bytes = corpus.bytes.map(|bytes| bytes / block_bytes as f64);
    let chunks = corpus.chunks.or(of_documents).or(of_bytes).ok_or_else(|| {
        Usage(
            "say how large the corpus is: --chunks, --documents and --tokens, or --bytes"
                .to_owned(),
        )
    })?;
    match (1.0..=CHUNKS_MAX).contains(&chunks) {
        // Within the range of whole numbers of an f64.
        true => Ok(chunks as u64),
        false => Err(Usage(format!(
            "the corpus has {chunks:.3e} chunks of {block_bytes} bytes: between 1 and {CHUNKS_MAX:e} \
             can be planned for"
        ))
        .into()),
    }
}
