//! Files of `bench quality --runs-dir`: scored queries in, TREC runs and hits as JSON out.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use hyperrag_core::rank_order;
use hyperrag_eval::experiment::quality::candidates::JudgedQuery;
use hyperrag_eval::experiment::tune::ScoredQuery;
use hyperrag_eval::metric::run::{run_id, run_line};
use hyperrag_eval::report::quality::VariantFigures;
use serde_json::json;

/// A variant and its scores.
pub(crate) struct ScoredVariant {
    pub(crate) figures: VariantFigures,
    pub(crate) queries: Vec<ScoredQuery>,
}

/// Queries and their scores, and what computed them.
#[derive(Default)]
pub(crate) struct ScoredQueries {
    pub(crate) judged: Vec<JudgedQuery>,
    pub(crate) variants: Vec<ScoredVariant>,
    pub(crate) backend_description: String,
    pub(crate) profile: String,
}

/// Writes the retriever's run, and for each variant its run and what `tune` reads.
pub(crate) fn write_runs(folder: &Path, scored: &ScoredQueries) -> Result<()> {
    let ScoredQueries { judged, variants, .. } = scored;
    fs::create_dir_all(folder)
        .with_context(|| format!("{}: the folder cannot be made", folder.display()))?;
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))
    };
    if let Some(first) = variants.first() {
        let retriever = first.queries.iter().map(|query| (query, &query.retriever));
        write("retriever.run", run(retriever, "retriever")?)?;
    }
    for ScoredVariant { figures, queries } in variants {
        let name = figures.name.replace(['/', '@'], "-");
        let own = queries.iter().map(|query| (query, &query.model));
        write(&format!("{name}.run"), run(own, &name)?)?;
        write(&format!("{name}.jsonl"), hits(judged, queries))?;
    }
    Ok(())
}

/// A TREC run of these scores, best first.
fn run<'a>(
    queries: impl Iterator<Item = (&'a ScoredQuery, &'a Vec<f32>)>,
    tag: &str,
) -> Result<String> {
    let mut lines = String::new();
    for (query, scores) in queries {
        for (rank, candidate) in (1..).zip(best_first(query, scores)) {
            let (document, score) = (&query.documents[candidate], scores[candidate]);
            let (query, document) = (run_id(&query.id), run_id(document));
            lines.push_str(&run_line(&query, &document, rank, score, tag)?);
            lines.push('\n');
        }
    }
    Ok(lines)
}

/// Writes hits as `query --json` prints them.
fn hits(judged: &[JudgedQuery], queries: &[ScoredQuery]) -> String {
    let line = |(judged, scored): (&JudgedQuery, &ScoredQuery)| {
        let hit = |(rank, candidate): (usize, usize)| {
            let model = scored.model[candidate];
            json!({
                "rank": rank,
                "id": scored.documents[candidate],
                "score": model,
                "model_score": model,
                "retriever_score": scored.retriever[candidate],
            })
        };
        let hits: Vec<_> = (1..).zip(best_first(scored, &scored.model)).map(hit).collect();
        format!("{}\n", json!({"query_id": scored.id, "query": judged.query.text, "hits": hits}))
    };
    judged.iter().zip(queries).map(line).collect()
}

fn best_first(query: &ScoredQuery, scores: &[f32]) -> Vec<usize> {
    let place =
        |candidate: &usize| (f64::from(scores[*candidate]), query.documents[*candidate].as_str());
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| rank_order(place(a), place(b)));
    order
}
