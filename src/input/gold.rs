//! Files of questions with their right answers: a path in, questions out. SQuAD's files, lists and lines
//! of JSON are told apart by their shape.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result};
use hyperrag_eval::metric::qa::normalize_answer;
use hyperrag_files::lines::BYTE_ORDER_MARK;
use serde::Deserialize;
use serde_json::Value;

use crate::input::rows::{Row, json_rows};
use crate::input::text;

/// Bytes of a first line that are looked at.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// A question with its right answers.
pub(crate) struct Question {
    /// Place in the file, for messages.
    pub(crate) place: String,
    /// Id, where it has one.
    pub(crate) id: Option<String>,
    /// Text, where it has one.
    pub(crate) text: Option<String>,
    /// Right answers, at least one. An empty one says that there is none.
    pub(crate) right: Vec<String>,
}

/// SQuAD's file, of which nothing but the questions is kept.
#[derive(Deserialize)]
struct Squad {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    #[serde(default)]
    qas: Vec<Row>,
}

/// Reads the questions of a file.
pub(crate) fn questions(path: &Path) -> Result<Vec<Question>> {
    let rows = if path.is_file() && is_squad(path)? { squad(path)? } else { json_rows(path)? };
    rows.into_iter().map(|(place, row)| question(place, &row)).collect()
}

/// Opens a file and reads its first line, or the start of a long one.
fn opened(path: &Path) -> Result<(Vec<u8>, impl Read)> {
    let name = path.display();
    let (mut reader, mut first) = (text::open(path, "the file")?, Vec::new());
    let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut first);
    read.with_context(|| format!("{name}: the file cannot be read"))?;
    if first.starts_with(BYTE_ORDER_MARK.as_bytes()) {
        first.drain(..BYTE_ORDER_MARK.len());
    }
    Ok((first, reader))
}

/// Whether a file is one JSON object, over several lines or with SQuAD's list.
fn is_squad(path: &Path) -> Result<bool> {
    let (first, _) = opened(path)?;
    let is_row = || {
        let row = serde_json::from_slice::<Row>(&first);
        row.is_ok_and(|row| !matches!(row.value("data"), Some(Value::Array(_))))
    };
    Ok(first.trim_ascii_start().starts_with(b"{") && !is_row())
}

/// Reads SQuAD's file.
fn squad(path: &Path) -> Result<Vec<(String, Row)>> {
    let (first, rest) = opened(path)?;
    let squad: serde_json::Result<Squad> =
        serde_json::from_reader(BufReader::new(first.chain(rest)));
    let name = path.display();
    let Squad { data } = squad.with_context(|| {
        format!(
            "{name}: neither JSON objects, one a line, nor a list of them, nor one in SQuAD's form \
             (data, paragraphs, qas)"
        )
    })?;
    let paragraphs = data.into_iter().flat_map(|article| article.paragraphs);
    let rows = paragraphs.flat_map(|paragraph| paragraph.qas);
    Ok((1..)
        .zip(rows)
        .map(|(number, row): (usize, _)| (format!("{name}: question {number}"), row))
        .collect())
}

fn question(place: String, row: &Row) -> Result<Question> {
    let right = right_answers(row);
    let right = right
        .with_context(|| format!("{place}: it has no `answers` (or `answer`), a list of texts"))?;
    Ok(Question { place, id: row.id(), text: row.text("question"), right })
}

/// Returns at least one answer; `None` where the row says nothing of answers.
fn right_answers(row: &Row) -> Option<Vec<String>> {
    let (texts, columns) = match row.value("answers").filter(|value| !value.is_null()) {
        Some(Value::Object(columns)) => (texts(columns.get("text")?)?, true),
        Some(value) => (texts(&value)?, false),
        None => match row.value("answer")? {
            Value::String(text) => (vec![text], false),
            value => (texts(&value)?, false),
        },
    };
    // SQuAD 2.0 asks some questions that have no answer, and then wants an empty one.
    let squad_2 = matches!(row.value("is_impossible"), Some(Value::Bool(_)));
    let mut right = texts;
    if squad_2 {
        right.retain(|text| !normalize_answer(text).is_empty());
    }
    if right.is_empty() && (squad_2 || columns) {
        right.push(String::new());
    }
    (!right.is_empty()).then_some(right)
}

/// Reads a list of texts, or of objects that have one.
fn texts(value: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| value.get("text").unwrap_or(value).as_str().map(str::to_owned);
    value.as_array()?.iter().map(text).collect()
}
