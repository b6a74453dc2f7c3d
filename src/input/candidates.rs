//! Candidates of queries by the flags of the command line: a run and flags come in, requests to rerank go out,
//! and sentences on queries that have no candidate.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use hyperrag_core::rank_order;
use hyperrag_engine::open::OpenSession;
use hyperrag_engine::search::candidates::OnMissing;
use hyperrag_engine::search::request::RerankRequest;
use hyperrag_engine::{EngineError, Query, SearchResult};
use hyperrag_eval::Run;
use hyperrag_eval::metric::run::RunHit;

use crate::cli::query::{self as cli, QueryArgs};
use crate::input::judged::read_run;

/// Source of the candidates: a run, or else BM25.
pub(crate) struct CandidateSource {
    run: Option<(PathBuf, Run)>,
    depth: usize,
    exclude_self: bool,
    on_missing: OnMissing,
}

/// Reason why a query has no candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NoCandidate {
    /// The run does not name the query.
    NotInRun,
    /// The store has none of the documents that the run names.
    NotInStore,
    /// None is left, such as the query's own document where that is left out.
    NoneLeft,
    /// No document has a word of the query.
    NoHit,
}

impl NoCandidate {
    /// Says it of more than one query.
    pub(crate) fn of_queries(self) -> &'static str {
        match self {
            Self::NotInRun => "are not named by the run of candidates",
            Self::NotInStore => "have no candidate in the store",
            Self::NoneLeft => "have no candidate left",
            Self::NoHit => "have no word that a document has",
        }
    }

    /// Says it of one query.
    pub(crate) fn of_query(self) -> &'static str {
        match self {
            Self::NotInRun => "the run of candidates does not name it",
            Self::NotInStore => "the store has none of the documents that the run names for it",
            Self::NoneLeft => "no candidate is left for it",
            Self::NoHit => "no document has any of its words",
        }
    }
}

impl CandidateSource {
    /// Reads the run that `args` name.
    pub(crate) fn new(args: &QueryArgs) -> Result<Self> {
        // A run that the settings name is for the queries of a file.
        let path = args.candidates.as_ref().filter(|_| args.text.is_none());
        let run = path.map(|path| Ok::<_, anyhow::Error>((path.clone(), read_run(path)?)));
        let on_missing = match args.on_missing {
            cli::OnMissing::Skip => OnMissing::Skip,
            cli::OnMissing::Fail => OnMissing::Fail,
        };
        let (depth, exclude_self) = (args.search.depth, args.exclude_self);
        Ok(Self { run: run.transpose()?, depth, exclude_self, on_missing })
    }

    /// The query with its candidates: the best by BM25, or those that the run lists.
    pub(crate) fn request(
        &self,
        session: &OpenSession<'_>,
        query: &Query,
    ) -> Result<RerankRequest> {
        let excluded = self.exclude_self.then_some(query.id.as_str());
        let request = match &self.run {
            None => session.request(query, self.depth, excluded),
            Some((_, run)) => {
                let mut listed: Vec<&RunHit> =
                    run.hits(&query.id).unwrap_or_default().iter().collect();
                listed.retain(|hit| Some(hit.document.as_str()) != excluded);
                listed.sort_by(|a, b| rank_order((a.score, &a.document), (b.score, &b.document)));
                let named = listed.iter().map(|hit| (hit.document.as_str(), hit.score));
                let found = session.candidates(query, named, self.depth, self.on_missing);
                session.request_for(query, found.map_err(|error| self.at_line(error, &listed))?)
            }
        };
        request.with_context(|| format!("query {}", query.id))
    }

    /// Says which line of the run names a candidate that the store does not have.
    fn at_line(&self, error: EngineError, listed: &[&RunHit]) -> anyhow::Error {
        let line = match (&error, &self.run) {
            (EngineError::UnknownDocument { document, .. }, Some((path, _))) => {
                let named = listed.iter().find(|hit| hit.document == *document);
                named.map(|hit| format!("{}:{}", path.display(), hit.line))
            }
            _ => None,
        };
        match line {
            Some(line) => anyhow::Error::from(error).context(line),
            None => error.into(),
        }
    }

    /// Returns why a result has no candidate; `None` if it has some.
    pub(crate) fn no_candidate(&self, result: &SearchResult) -> Option<NoCandidate> {
        if result.stats.candidates > 0 {
            return None;
        }
        Some(match &self.run {
            None if self.exclude_self || self.depth == 0 => NoCandidate::NoneLeft,
            None => NoCandidate::NoHit,
            Some((_, run)) if run.hits(&result.query_id).is_none() => NoCandidate::NotInRun,
            Some(_) if !result.missing.is_empty() => NoCandidate::NotInStore,
            Some(_) => NoCandidate::NoneLeft,
        })
    }

    /// Says that the run gives none of `queries` a candidate, for these reasons. `None` for BM25, which may find
    /// nothing.
    pub(crate) fn nothing(
        &self,
        queries: usize,
        reasons: &BTreeSet<NoCandidate>,
    ) -> Option<String> {
        let (path, run) = self.run.as_ref()?;
        let path = path.display();
        let has = |reason| reasons.contains(&reason);
        Some(match run.queries().next() {
            None => format!("{path}: the run is empty"),
            Some(_) if has(NoCandidate::NoneLeft) => {
                format!("{path}: no candidate is left for any query")
            }
            Some(_) if has(NoCandidate::NotInStore) => format!(
                "{path}: the store has none of the documents that the run names for the {queries} \
                 queries"
            ),
            Some((first, _)) => format!(
                "{path}: the run names none of the {queries} queries; the first that it names is \
                 {first:?}"
            ),
        })
    }
}
