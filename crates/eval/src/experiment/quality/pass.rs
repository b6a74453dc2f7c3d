//! Scores of all pairs of query and candidate chunk, for several models at once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use hyperrag_core::{Chunk, DocId, KvBlock, LanguageModel, ModelError, Pair, QuerySuffix};
use hyperrag_corpus::{Chunker, Corpus};
use hyperrag_engine::EngineError;
use hyperrag_engine::build::prefill::batches;
use serde::Serialize;

use crate::experiment::quality::candidates::{JudgedQuery, candidate_ids, check, draw_key};

/// Positions whose blocks are in memory at once, about: enough for full passes of queries.
const BATCH_TOKENS: usize = 4096;

/// Pairs to score, and the models that do.
pub struct QualityInput<'a, M> {
    /// The documents.
    pub corpus: &'a Corpus,
    /// Cuts the documents into chunks.
    pub chunker: &'a Chunker<'a>,
    /// The queries with their candidates.
    pub judged: &'a [JudgedQuery],
    /// Part of the prompt that follows a document, for each query.
    pub parts: &'a [QuerySuffix],
    /// The models to compare: of the same weights, with different elements.
    pub variants: &'a [M],
    /// Without it each model prefills by itself, as in a build.
    pub rounding: Option<Rounding<'a, M>>,
    /// Number of queries that are scored a second time, from blocks that are computed again.
    pub recompute: usize,
    /// Draws these queries.
    pub seed: u64,
    /// Set to stop at the next batch.
    pub stop: &'a AtomicBool,
}

impl<M> QualityInput<'_, M> {
    /// Documents that are a candidate of some query.
    #[must_use]
    pub fn documents(&self) -> usize {
        candidate_ids(self.judged).len()
    }
}

/// Blocks that are rounded after one prefill for all models. A build's prefill reads K and V rounded
/// already, so what it stores is a little different.
pub struct Rounding<'a, M> {
    /// The model that prefills.
    pub exact: &'a M,
    /// Makes its block one of another model.
    pub round: fn(&M, &KvBlock) -> Result<KvBlock, ModelError>,
}

/// Scores that a model gave all pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PairScores {
    /// By query, candidate and chunk.
    pub scores: Vec<Vec<Vec<f32>>>,
    /// Seconds of scoring once the blocks were there.
    pub seconds: f64,
    /// Documents that were scored, each once.
    pub documents: usize,
    /// Positions of these documents, those of the profile's words in every chunk included.
    pub tokens: usize,
    /// Scores of blocks computed again.
    pub recomputed: Recomputed,
}

/// Scores that were computed a second time: query by query, from blocks computed for that query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recomputed {
    /// Queries.
    pub queries: usize,
    /// Scores of a chunk.
    pub scores: usize,
    /// Scores with the same bits as the first time.
    pub equal: usize,
}

/// Scores all pairs with every model, document by document: each block is computed once a model,
/// scored for all queries that have its document as a candidate, and dropped. `each` is told how many
/// documents one model has done.
///
/// # Errors
/// [`EngineError`].
pub fn score_variants<M: LanguageModel>(
    input: &QualityInput<'_, M>,
    each: &mut dyn FnMut(usize),
) -> Result<Vec<PairScores>, EngineError> {
    let wanted = wanted(input.judged);
    let again = drawn(input);
    let of_drawn = again.iter().flat_map(|query| &input.judged[*query].candidates);
    let kept_ids: HashSet<&DocId> = of_drawn.map(|(id, _)| id).collect();
    let empty = || input.judged.iter().map(|query| vec![Vec::new(); query.candidates.len()]);
    let mut scored: Vec<PairScores> = (0..input.variants.len())
        .map(|_| PairScores { scores: empty().collect(), ..PairScores::default() })
        .collect();
    let mut kept: HashMap<DocId, Vec<Chunk>> = HashMap::new();
    let (mut chunks, mut tokens, mut documents) = (Vec::new(), 0, 0);
    for row in input.corpus.clone().only(candidate_ids(input.judged)).rows() {
        let document = row?.document;
        let own = input.chunker.chunks(&document)?;
        if kept_ids.contains(&document.id) {
            kept.insert(document.id, own.clone());
        }
        for chunk in own {
            tokens += chunk.tokens.len();
            chunks.push(chunk);
            if tokens >= BATCH_TOKENS {
                score_batch(input, &wanted, &chunks, documents, &mut scored, each)?;
                (tokens, documents) = (0, 0);
                chunks.clear();
            }
        }
        documents += 1;
    }
    score_batch(input, &wanted, &chunks, documents, &mut scored, each)?;
    for (model, scored) in input.variants.iter().zip(&mut scored) {
        scored.recomputed = recompute(input, model, &again, &kept, &scored.scores)?;
    }
    Ok(scored)
}

/// For each document the queries that have it as a candidate, and as which.
fn wanted(judged: &[JudgedQuery]) -> HashMap<&DocId, Vec<(usize, usize)>> {
    let mut wanted: HashMap<&DocId, Vec<(usize, usize)>> = HashMap::new();
    for (query, judged) in judged.iter().enumerate() {
        for (candidate, (id, _)) in judged.candidates.iter().enumerate() {
            wanted.entry(id).or_default().push((query, candidate));
        }
    }
    wanted
}

/// The queries that are scored again.
fn drawn<M>(input: &QualityInput<'_, M>) -> Vec<usize> {
    let mut queries: Vec<usize> = (0..input.judged.len()).collect();
    queries.sort_by_key(|query| draw_key(input.seed, &input.judged[*query].query.id));
    queries.truncate(input.recompute);
    queries
}

fn score_batch<M: LanguageModel>(
    input: &QualityInput<'_, M>,
    wanted: &HashMap<&DocId, Vec<(usize, usize)>>,
    chunks: &[Chunk],
    documents: usize,
    scored: &mut [PairScores],
    each: &mut dyn FnMut(usize),
) -> Result<(), EngineError> {
    let exact = exact(input, chunks)?;
    for (model, scored) in input.variants.iter().zip(scored) {
        check(input.stop)?;
        let resident = resident(input, model, chunks, &exact)?;
        let (mut pairs, mut places) = (Vec::new(), Vec::new());
        for (chunk, block) in chunks.iter().zip(&resident) {
            for (query, candidate) in wanted.get(&chunk.id.document).into_iter().flatten() {
                pairs.push(Pair { query: &input.parts[*query], block });
                places.push((*query, *candidate));
            }
        }
        let start = Instant::now();
        let scores = model.score_resident(&pairs)?;
        scored.seconds += start.elapsed().as_secs_f64();
        scored.documents += documents;
        scored.tokens += chunks.iter().map(|chunk| chunk.tokens.len()).sum::<usize>();
        for ((query, candidate), score) in places.into_iter().zip(scores) {
            scored.scores[query][candidate].push(score);
        }
        each(documents);
    }
    Ok(())
}

/// Computes the blocks that all models round, where they do.
fn exact<M: LanguageModel>(
    input: &QualityInput<'_, M>,
    chunks: &[Chunk],
) -> Result<Vec<KvBlock>, ModelError> {
    match &input.rounding {
        Some(rounding) => rounding.exact.prefill(chunks),
        None => Ok(Vec::new()),
    }
}

/// The blocks of `chunks` in `model`, rounded from `exact` ones where that is asked for.
fn resident<M: LanguageModel>(
    input: &QualityInput<'_, M>,
    model: &M,
    chunks: &[Chunk],
    exact: &[KvBlock],
) -> Result<Vec<M::Resident>, ModelError> {
    let Some(Rounding { round, .. }) = &input.rounding else {
        return model.prefill_resident(chunks);
    };
    exact.iter().map(|block| model.upload(round(model, block)?)).collect()
}

/// Scores the queries `again` anew, each from blocks that are computed for it.
fn recompute<M: LanguageModel>(
    input: &QualityInput<'_, M>,
    model: &M,
    again: &[usize],
    chunks: &HashMap<DocId, Vec<Chunk>>,
    first: &[Vec<Vec<f32>>],
) -> Result<Recomputed, EngineError> {
    let mut found = Recomputed { queries: again.len(), ..Recomputed::default() };
    for query in again {
        let candidates = &input.judged[*query].candidates;
        let all = candidates.iter().filter_map(|(id, _)| chunks.get(id)).flatten();
        let all: Vec<Chunk> = all.cloned().collect();
        let mut expected = first[*query].iter().flatten();
        for batch in batches(&all, model.prefill_tokens()) {
            check(input.stop)?;
            let resident = resident(input, model, batch, &exact(input, batch)?)?;
            let pairs = resident.iter().map(|block| Pair { query: &input.parts[*query], block });
            for score in model.score_resident(&pairs.collect::<Vec<_>>())? {
                let same = expected.next().is_some_and(|first| first.to_bits() == score.to_bits());
                found.scores += 1;
                found.equal += usize::from(same);
            }
        }
    }
    Ok(found)
}
