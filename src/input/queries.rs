//! Queries from the command line, from stdin, and from files.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use hyperrag_core::{Classified, Document};
use hyperrag_corpus::{Columns, Corpus, CorpusError, Limits, ReadOptions, RowKind};
use hyperrag_engine::Query;

use crate::error::Usage;
use crate::input::stdin::{self, NamedQuery};
use crate::report;

/// Longest query of a file, in bytes.
const QUERY_BYTES_MAX: u64 = 1 << 20;

/// The queries that a command line names, as they come.
pub(crate) struct QueryBatch {
    queries: Box<dyn Iterator<Item = NamedQuery>>,
    /// Their number, where it is known.
    pub(crate) count: Option<u64>,
    /// Whether it is the one query of a command line.
    pub(crate) single: bool,
}

impl QueryBatch {
    /// The query `text`, where `-` stands for stdin, else those of `file`, which the settings may name.
    pub(crate) fn new(text: Option<&str>, file: Option<&Path>) -> Result<Self> {
        Ok(match (text, file) {
            (Some("-"), _) => {
                Self { queries: Box::new(stdin::queries()), count: None, single: false }
            }
            (Some(text), _) => {
                let query = Query { id: "1".to_owned(), text: text.to_owned() };
                let queries = Box::new([named(query)].into_iter());
                Self { queries, count: Some(1), single: true }
            }
            (None, Some(path)) => {
                let queries = read(path)?;
                let count = Some(queries.len() as u64);
                Self { queries: Box::new(queries.into_iter().map(named)), count, single: false }
            }
            (None, None) => {
                let what =
                    "no query: give its TEXT, `-` to read one a line from stdin, or --queries FILE";
                return Err(Usage(what.to_owned()).into());
            }
        })
    }
}

impl Iterator for QueryBatch {
    type Item = NamedQuery;

    fn next(&mut self) -> Option<Self::Item> {
        self.queries.next()
    }
}

fn named(query: Query) -> NamedQuery {
    (query.id.clone(), Ok(query))
}

/// Reads the queries of a file, or of stdin where `path` is `-`: a corpus whose columns have other usual
/// names.
pub(crate) fn read(path: &Path) -> Result<Vec<Query>> {
    let columns = Columns { rows: RowKind::Queries, ..Columns::default() };
    let limits = Limits { document_bytes: QUERY_BYTES_MAX, ..Limits::default() };
    let options = ReadOptions { limits, tsv_by_default: true, ..ReadOptions::default() };
    let corpus = Corpus::open_with(&[path], columns, options).map_err(refused)?;
    for warning in corpus.warnings() {
        report::warn(&format!("{}; write them as CSV, or without quotes", warning.what));
    }
    let mut queries = Vec::new();
    for row in corpus.rows() {
        let Document { id, text, .. } = row.map_err(refused)?.document;
        queries.push(Query { id: id.as_str().to_owned(), text });
    }
    ensure!(!queries.is_empty(), "{}: the file has no queries", path.display());
    Ok(queries)
}

/// Returns the error in the words of queries, without remedies for a corpus.
fn refused(error: CorpusError) -> anyhow::Error {
    match error {
        CorpusError::Id { place, reason } => anyhow!("{place}: {reason}"),
        CorpusError::DuplicateId { id, second, .. } => {
            anyhow!("{second}: the query id {:?} comes twice", id.as_str())
        }
        CorpusError::DocumentTooLong { place, bytes, max } => {
            anyhow!("{place}: the query has {bytes} bytes, {max} are allowed")
        }
        CorpusError::Copy { .. } => error.into(),
        error if error.hint().is_some() => anyhow!(hyperrag_core::sentence(&error)),
        error => error.into(),
    }
}
