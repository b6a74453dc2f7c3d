//! Reads JSONL, one document a line: a file and column names come in, rows go out. Builds no value but id,
//! title and text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use hyperrag_core::{Document, DocumentField};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::columns::Columns;
use crate::error::CorpusError;
use crate::limits::Limits;
use crate::lines::LineReader;
use crate::place::Place;
use crate::row::{Row, check_length, document_id};
use crate::taken::ColumnsTaken;

/// Largest number of keys of an object. A key of two bytes takes a hundred in memory.
const KEYS_MAX: usize = 1 << 16;

/// Number of lines whose keys are told.
const LINES_LOOKED_AT: usize = 100;

/// Rows of a JSONL file, one object a line.
pub(crate) struct JsonlRows {
    lines: LineReader,
    columns: Columns,
    limits: Limits,
}

impl JsonlRows {
    pub(crate) fn open(
        file: &Arc<Path>,
        columns: &Columns,
        limits: &Limits,
    ) -> Result<Self, CorpusError> {
        let lines = LineReader::open(file, limits.line_bytes())?;
        Ok(Self { lines, columns: columns.clone(), limits: *limits })
    }

    /// Tells the columns of the first lines. Lines that cannot be read are passed over.
    pub(crate) fn columns_taken(mut self) -> Option<ColumnsTaken> {
        let mut keys = BTreeSet::new();
        for _ in 0..LINES_LOOKED_AT {
            let Ok(true) = self.lines.advance() else { break };
            let line = self.lines.text().unwrap_or_default();
            let Ok(Object(object)) = serde_json::from_str(line) else { continue };
            keys.extend(object.into_keys());
            if keys.len() > KEYS_MAX {
                break;
            }
        }
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let [id, title, text] = [DocumentField::Id, DocumentField::Title, DocumentField::Text]
            .map(|field| self.columns.find(field, &names));
        Some(ColumnsTaken::new(&names, id?, title, text?))
    }

    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, CorpusError> {
        if !self.lines.advance()? {
            return Ok(None);
        }
        let place = self.lines.place();
        let document = document(self.lines.text()?, &self.columns, &place)?;
        check_length(&document.title, &document.text, &place, &self.limits)?;
        Ok(Some(Row { document, place, bytes: self.lines.take_bytes() }))
    }
}

fn document(line: &str, columns: &Columns, place: &Place) -> Result<Document, CorpusError> {
    let Object(object) = serde_json::from_str(line)
        .map_err(|error| CorpusError::Json { place: place.clone(), message: message(&error) })?;
    let names: Vec<&str> = object.keys().map(String::as_str).collect();
    let values: Vec<&str> = object.values().map(|value| value.get()).collect();
    let id = columns.require(DocumentField::Id, &names, place)?;
    let text = columns.require(DocumentField::Text, &names, place)?;
    let title = columns.find(DocumentField::Title, &names);
    let title = title
        .filter(|at| columns.is_surely_title(names[*at]) || values[*at].starts_with(['"', 'n']));
    let id = document_id(&string(values[id], DocumentField::Id, place)?, place)?;
    let title = match title {
        Some(title) => string(values[title], DocumentField::Title, place)?,
        None => String::new(),
    };
    Ok(Document { id, title, text: string(values[text], DocumentField::Text, place)? })
}

/// Values of an object by key; of equal keys the last counts. Values stay raw, so those not needed, such as
/// an embedding, are skipped and not built.
struct Object<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Deserialize<'a> for Object<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'a> Visitor<'a> for Entries {
    type Value = Object<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut entries: A) -> Result<Object<'a>, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry()? {
            object.insert(key, value);
            if object.len() > KEYS_MAX {
                return Err(A::Error::custom(format_args!("more than {KEYS_MAX} keys")));
            }
        }
        Ok(Object(object))
    }
}

/// Returns the text of a JSON value: a string, the digits of an id, or "" for a title or text that is null.
fn string(value: &str, field: DocumentField, place: &Place) -> Result<String, CorpusError> {
    let found = match value.as_bytes().first() {
        Some(b'"') => {
            return serde_json::from_str(value).map_err(|error| CorpusError::Json {
                place: place.clone(),
                message: format!("the {field}: {}", message(&error)),
            });
        }
        Some(b'n') if field != DocumentField::Id => return Ok(String::new()),
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        _ if field != DocumentField::Id => "a number",
        _ if value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => {
            return Ok(value.to_owned());
        }
        _ => "a number with a fraction or an exponent",
    };
    Err(CorpusError::Value { place: place.clone(), field, found })
}

/// Returns the message without a line number: serde_json counts lines within its input, which is one line.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("{what} at column {}", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, columns: &Columns) -> String {
        let place = Place { file: Path::new("c.jsonl").into(), row: 17 };
        match document(line, columns, &place) {
            Ok(document) => format!("{}|{}|{}", document.id, document.title, document.text),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_line_is_a_document() {
        let check = |line: &str, expected: &str| {
            assert_eq!(parse(line, &Columns::default()), expected, "{line}");
        };
        check(r#"{"_id":"1","title":"T","text":"a\nb","metadata":{"x":[1]}}"#, "1|T|a\nb");
        check(r#" {"docid" : 7 , "Contents" : "é\u00e9" } "#, "7||éé");
        check(r#"{"id":"1","title":null,"text":null}"#, "1||");
        check(r#"{"id":18446744073709551616,"text":""}"#, "18446744073709551616||");
        check(r#"{"id":"1","body":"b","text":"t"}"#, "1||t");
        check(r#"{"id":"1","text":"a","text":"b"}"#, "1||b");
        check(r#"{"id":"1","text":"a","Heading":"H","name":"N"}"#, "1|H|a");
        check(r#"{"id":"1","text":"a","name":{"first":"N"}}"#, "1||a");
    }

    #[test]
    fn columns_can_be_named() {
        let columns = Columns {
            id: Some("key".into()),
            title: Some("head".into()),
            text: Some("abstract".into()),
        };
        let full = r#"{"key":"k","id":"i","head":"h","title":"t","abstract":"a","text":"x"}"#;
        assert_eq!(parse(full, &columns), "k|h|a");
        assert_eq!(parse(r#"{"key":"k","title":"t","abstract":"a"}"#, &columns), "k||a");
        let error = "c.jsonl:17: no text column: looked for \"abstract\", found \"key\", \"text\"";
        assert_eq!(parse(r#"{"key":"k","text":"a"}"#, &columns), error);
    }

    #[test]
    fn bad_lines_are_named() {
        let check = |line: &str, expected: &str| {
            let error = parse(line, &Columns::default());
            assert!(error.starts_with("c.jsonl:17: ") && error.contains(expected), "{error}");
        };
        check(r#"{"id":"1","text":"a""#, "EOF while parsing an object at column 20");
        check(r#"{"id":"1"} x"#, "trailing characters at column 12");
        check("[1,2]", "expected a map at column");
        check("17", "expected a map at column");
        check(r#"{"id":"1","text":"\ud800"}"#, "not valid JSON");
        check(r#"{"id":"1","txt":"a"}"#, "no text column");
        check(
            r#"{"id":"1","txt":"a"}"#,
            r#"no text column: looked for "text", "contents", "body", "content", "passage", "passage_text", found "id", "txt""#,
        );
        check(
            r#"{"key":"1","text":"a"}"#,
            r#"no id column: looked for "_id", "id", "doc_id", "docid", "docno", "document_id", "pid", "passage_id", found "key", "text""#,
        );
        let keys: Vec<String> = (0..=KEYS_MAX).map(|key| format!("\"{key}\":0")).collect();
        check(&format!("{{{}}}", keys.join(",")), "more than 65536 keys at column");
        check(&format!("{{{}}}", keys[1..].join(",")), "\"1\", \"10\", \"100\", ");
        check(&format!("{{{}}}", keys[1..].join(",")), " and 65526 more");
        check("{}", "found none");
        check(r#"{"id":null,"text":"a"}"#, "the id is null, it must be a string or a whole number");
        check(r#"{"id":1.5,"text":"a"}"#, "the id is a number with a fraction");
        check(r#"{"id":1e3,"text":"a"}"#, "the id is a number with a fraction or an exponent");
        check(r#"{"id":true,"text":"a"}"#, "the id is a boolean");
        check(r#"{"id":"1","text":["a"]}"#, "the text is an array, it must be a string or null");
        check(r#"{"id":"1","text":{}}"#, "the text is an object");
        check(r#"{"id":"1","text":"a","title":3}"#, "the title is a number");
        check(r#"{"id":"","text":"a"}"#, "the document id is empty");
        check(r#"{"id":"a\tb","text":"a"}"#, "contains a control character");
    }
}
