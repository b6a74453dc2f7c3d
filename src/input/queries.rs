//! Queries from the command line, from stdin, and from files.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use hyperrag_core::check_id;
use hyperrag_engine::Query;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::Usage;
use crate::input::stdin::{self, NamedQuery, lines};

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

/// Reads JSONL with `_id` and `text`, or TSV with id and text.
pub(crate) fn read(path: &Path) -> Result<Vec<Query>> {
    let name = path.display();
    let jsonl = path.extension().is_some_and(|e| e == "jsonl" || e == "json" || e == "ndjson");
    let mut queries = Vec::new();
    let mut seen = HashSet::new();
    for line in placed_lines(path, "the queries")? {
        let (place, line) = line?;
        let query = if jsonl { from_json(&line) } else { from_tsv(&line) };
        let query = query.with_context(|| place.clone())?;
        check_id(&query.id).map_err(|reason| {
            let reason = reason.to_string().replace("document id", "query id");
            anyhow!("{place}: {reason}; give it another one")
        })?;
        ensure!(seen.insert(query.id.clone()), "{place}: the query id {:?} comes twice", query.id);
        queries.push(query);
    }
    ensure!(!queries.is_empty(), "{name}: the file has no queries");
    Ok(queries)
}

/// The JSON objects of a file, one a line, each with its place.
pub(crate) fn objects(path: &Path) -> Result<Vec<(String, Value)>> {
    let mut objects = Vec::new();
    for line in placed_lines(path, "the file")? {
        let (place, line) = line?;
        let value: Value =
            serde_json::from_str(&line).with_context(|| format!("{place}: not a JSON object"))?;
        ensure!(value.is_object(), "{place}: not a JSON object");
        objects.push((place, value));
    }
    Ok(objects)
}

/// The lines of a file that are not blank, each with its place. `what` the file holds is for the
/// message where it cannot be opened.
fn placed_lines(path: &Path, what: &str) -> Result<impl Iterator<Item = Result<(String, String)>>> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("{name}: {what} cannot be opened"))?;
    let placed = (1..).zip(lines(BufReader::new(file))).map(move |(number, line): (usize, _)| {
        let place = format!("{name}:{number}");
        let line = line.with_context(|| format!("{place}: not readable as text"))?;
        Ok((place, line))
    });
    Ok(placed.filter(|line| !matches!(line, Ok((_, line)) if line.trim().is_empty())))
}

/// Id of a query as its line spells it, since a number may be larger than any integer.
#[derive(Deserialize)]
struct SpeltId<'a> {
    #[serde(borrow)]
    _id: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

fn from_json(line: &str) -> Result<Query> {
    let value: Value = serde_json::from_str(line).context("not a JSON object")?;
    let id = match value.get("_id").or_else(|| value.get("id")) {
        Some(Value::String(id)) if id.is_empty() => bail!("its `_id` is empty"),
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(_)) => {
            let SpeltId { _id, id } = serde_json::from_str(line).context("not a JSON object")?;
            _id.or(id).map_or_else(String::new, |id| id.get().to_owned())
        }
        _ => bail!("it has no `_id`; found {}", keys(&value)),
    };
    match value.get("text").and_then(Value::as_str) {
        Some(text) => Ok(Query { id, text: text.to_owned() }),
        None => bail!("it has no `text`; found {}", keys(&value)),
    }
}

/// Names the keys of an object.
fn keys(value: &Value) -> String {
    let keys = value.as_object().into_iter().flatten().map(|(key, _)| format!("`{key}`"));
    let keys: Vec<String> = keys.collect();
    if keys.is_empty() { "no keys".to_owned() } else { keys.join(", ") }
}

fn from_tsv(line: &str) -> Result<Query> {
    match line.split_once('\t') {
        Some((id, text)) if !id.is_empty() => {
            Ok(Query { id: id.to_owned(), text: text.to_owned() })
        }
        _ => bail!("expected an id, a tab and the query"),
    }
}
