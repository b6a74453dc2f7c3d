//! Files of questions with their right answers: a path in, questions out. SQuAD's files, lists and lines
//! of JSON are told apart by their shape.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use hyperrag_eval::metric::qa::normalize_answer;
use serde::Deserialize;
use serde_json::Value;

use crate::input::rows::Row;

/// Longest row of JSONL.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Byte order mark in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

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
    let name = path.display().to_string();
    let rows = match opened(path, &name)? {
        (first, rest) if is_row(&first) => lines(&name, Cursor::new(first).chain(rest))?,
        (first, rest) => document(&name, &first, rest)?,
    };
    let questions = rows.into_iter().map(|(place, row)| question(place, &row));
    questions.collect()
}

/// Reads JSON objects, one a line, each with its place.
pub(crate) fn json_lines(path: &Path) -> Result<Vec<(String, Row)>> {
    let name = path.display().to_string();
    let (first, rest) = opened(path, &name)?;
    lines(&name, Cursor::new(first).chain(rest))
}

/// Opens a file, and reads its first line, or the start of a long one.
fn opened(path: &Path, name: &str) -> Result<(Vec<u8>, BufReader<File>)> {
    let file = File::open(path).with_context(|| format!("{name}: the file cannot be opened"))?;
    let (mut reader, mut first) = (BufReader::new(file), Vec::new());
    let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut first);
    read.with_context(|| format!("{name}: the file cannot be read"))?;
    if first.starts_with(BYTE_ORDER_MARK) {
        first.drain(..BYTE_ORDER_MARK.len());
    }
    Ok((first, reader))
}

/// Whether a first line says that each line is a row.
fn is_row(first: &[u8]) -> bool {
    let blank = first.trim_ascii().is_empty();
    let row = || serde_json::from_slice::<Row>(first);
    blank || row().is_ok_and(|row| !matches!(row.value("data"), Some(Value::Array(_))))
}

fn lines(name: &str, mut reader: impl BufRead) -> Result<Vec<(String, Row)>> {
    let (mut rows, mut text) = (Vec::new(), String::new());
    for number in 1.. {
        let place = format!("{name}:{number}");
        text.clear();
        let read = reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut text);
        let read = read.with_context(|| format!("{place}: not readable as text"))?;
        let whole = (read as u64) < LINE_BYTES_MAX || text.ends_with('\n');
        ensure!(whole, "{place}: the line is longer than {LINE_BYTES_MAX} bytes");
        if read == 0 {
            break;
        }
        if !text.trim().is_empty() {
            let row = serde_json::from_str(&text);
            rows.push((place.clone(), row.with_context(|| format!("{place}: not a JSON object"))?));
        }
    }
    Ok(rows)
}

/// Reads one JSON value over several lines, or a long one: a list of rows, or SQuAD's file.
fn document(name: &str, first: &[u8], rest: impl Read) -> Result<Vec<(String, Row)>> {
    let reader = BufReader::new(first.chain(rest));
    let rows: serde_json::Result<Vec<Row>> = match first.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_reader(reader),
        _ => serde_json::from_reader(reader).map(|squad: Squad| {
            let paragraphs = squad.data.into_iter().flat_map(|article| article.paragraphs);
            paragraphs.flat_map(|paragraph| paragraph.qas).collect()
        }),
    };
    let rows = rows.with_context(|| {
        format!(
            "{name}: neither JSON objects, one a line, nor a list of them, nor one in SQuAD's form \
             (data, paragraphs, qas)"
        )
    })?;
    let place = |number: usize| format!("{name}: question {number}");
    Ok((1..).zip(rows).map(|(number, row)| (place(number), row)).collect())
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
