//! Reads JSON, an object a line or one array of objects: an open text and column names come in, rows go out.
//! Builds no value but id, title and text. Reads what writers make beyond the standard: `NaN` and infinities,
//! and half a surrogate pair in a title or text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hyperrag_core::{Document, DocumentField};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::columns::{Columns, RowKind};
use crate::error::CorpusError;
use crate::lenient::{without_lone_surrogates, without_no_numbers};
use crate::limits::Limits;
use crate::objects::Objects;
use crate::place::Place;
use crate::row::{Row, check_length, document_id};
use crate::source::Text;
use crate::taken::ColumnsTaken;

/// Largest number of keys of an object. A key of two bytes takes a hundred in memory.
const KEYS_MAX: usize = 1 << 16;

/// Number of objects whose keys are told.
const OBJECTS_LOOKED_AT: usize = 100;

/// Rows of a JSON file.
pub(crate) struct JsonRows {
    objects: Objects,
    columns: Columns,
    limits: Limits,
    /// Number of rows in which half a surrogate pair was replaced.
    lossy: u64,
}

impl JsonRows {
    pub(crate) fn new(text: Text, columns: &Columns, limits: &Limits) -> Result<Self, CorpusError> {
        let objects = Objects::new(text, limits)?;
        Ok(Self { objects, columns: columns.clone(), limits: *limits, lossy: 0 })
    }

    /// Tells the columns of the first objects. Those that cannot be read are passed over.
    pub(crate) fn columns_taken(mut self) -> Option<ColumnsTaken> {
        let mut keys = BTreeSet::new();
        for _ in 0..OBJECTS_LOOKED_AT {
            match self.objects.advance() {
                Ok(true) => {}
                Err(error) if error.is_of_row() => continue,
                Ok(false) | Err(_) => break,
            }
            let json = self.objects.text().unwrap_or_default();
            let mended = without_no_numbers(json);
            let json = mended.as_deref().unwrap_or(json);
            let Ok(Object(object)) = serde_json::from_str(json) else { continue };
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
        if !self.objects.advance()? {
            return Ok(None);
        }
        let (text, place) = (self.objects.text()?, self.objects.place());
        let mut lossy = false;
        let document = document(text, &self.columns, &place, &mut lossy)?;
        check_length(&document.title, &document.text, &place, &self.limits)?;
        self.lossy += u64::from(lossy);
        Ok(Some(Row { document, place, bytes: self.objects.take_bytes() }))
    }

    /// Returns the number of rows in which half a surrogate pair was replaced.
    pub(crate) fn lossy(&self) -> u64 {
        self.lossy
    }
}

/// Reads an object. Sets `lossy` if half a surrogate pair was replaced.
fn document(
    json: &str,
    columns: &Columns,
    place: &Place,
    lossy: &mut bool,
) -> Result<Document, CorpusError> {
    let numbers;
    let Object(object) = match serde_json::from_str(json) {
        Ok(object) => object,
        Err(error) => {
            let failed = |error: serde_json::Error| CorpusError::Json {
                place: place.clone(),
                message: message(&error),
            };
            let Some(other) = without_no_numbers(json) else { return Err(failed(error)) };
            numbers = other;
            serde_json::from_str(&numbers).map_err(failed)?
        }
    };
    let names: Vec<&str> = object.keys().map(String::as_str).collect();
    let values: Vec<&str> = object.values().map(|value| value.get()).collect();
    let find = |field| match columns.require(field, &names, place) {
        Err(CorpusError::MissingColumn { field, wanted, found, .. }) => {
            Err(CorpusError::MissingKey { place: place.clone(), field, wanted, found })
        }
        found => found,
    };
    let (id, text) = (find(DocumentField::Id)?, find(DocumentField::Text)?);
    let title = columns.find(DocumentField::Title, &names);
    let title = title
        .filter(|at| columns.is_surely_title(names[*at]) || values[*at].starts_with(['"', 'n']));
    let id = document_id(&self::id(values[id], columns.rows, place)?, place)?;
    let mut read = |value, field| string(value, field, place, lossy);
    let title = match title {
        Some(title) => read(values[title], DocumentField::Title)?,
        None => String::new(),
    };
    Ok(Document { id, title, text: read(values[text], DocumentField::Text)? })
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

/// Returns an id: a string, or the digits of a number. That of a document is whole.
fn id(value: &str, rows: RowKind, place: &Place) -> Result<String, CorpusError> {
    let field = DocumentField::Id;
    let found = match value.as_bytes().first() {
        // Half a surrogate pair is refused: two ids could become one.
        Some(b'"') => {
            return serde_json::from_str(value).map_err(|error| in_string(&error, field, place));
        }
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        _ if rows == RowKind::Queries => return Ok(value.to_owned()),
        _ if value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => {
            return Ok(value.to_owned());
        }
        _ => "a number with a fraction or an exponent",
    };
    Err(CorpusError::Value { place: place.clone(), field, found })
}

/// Returns a title or text: a string, the spelling of a number or boolean, or "" for null.
fn string(
    value: &str,
    field: DocumentField,
    place: &Place,
    lossy: &mut bool,
) -> Result<String, CorpusError> {
    let found = match value.as_bytes().first() {
        Some(b'"') => {
            let read = serde_json::from_str(value);
            let read = read.or_else(|error| match without_lone_surrogates(value) {
                Some(whole) => {
                    *lossy = true;
                    serde_json::from_str(&whole)
                }
                None => Err(error),
            });
            return read.map_err(|error| in_string(&error, field, place));
        }
        Some(b'n') => return Ok(String::new()),
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        _ => return Ok(value.to_owned()),
    };
    Err(CorpusError::Value { place: place.clone(), field, found })
}

fn in_string(error: &serde_json::Error, field: DocumentField, place: &Place) -> CorpusError {
    CorpusError::Json { place: place.clone(), message: format!("the {field}: {}", message(error)) }
}

/// Returns the message without the line number, which is that in a row, if the row has one line.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    match error.line() {
        0 | 1 => format!("{what} at column {}", error.column()),
        line => format!("{what} at column {} of its line {line}", error.column()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(line: &str, columns: &Columns) -> String {
        let (place, mut lossy) = (Place::line(&Path::new("c.jsonl").into(), 17), false);
        match document(line, columns, &place, &mut lossy) {
            Ok(Document { id, title, text }) => {
                format!("{id}|{title}|{text}{}", if lossy { " lossy" } else { "" })
            }
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
    fn what_writers_make_beyond_the_standard_is_read() {
        let check = |line: &str, expected: &str| {
            assert_eq!(parse(line, &Columns::default()), expected, "{line}");
        };
        check(r#"{"id":1,"title":2001,"text":true}"#, "1|2001|true");
        check(r#"{"id":1,"title":-1.50e3,"text":"a"}"#, "1|-1.50e3|a");
        check(r#"{"id":1,"price":NaN,"text":"NaN","v":[-Infinity,Infinity]}"#, "1||NaN");
        check(r#"{"id":1,"title":NaN,"text":"a"}"#, "1||a");
        check(r#"{"id":1,"text":"a\ud83d b \ud83d\udc1d"}"#, "1||a\u{fffd} b \u{1f41d} lossy");
        check(r#"{"id":1,"text":"a","other":"\udc1d"}"#, "1||a");
        let queries = Columns { rows: RowKind::Queries, ..Columns::default() };
        let query = |line: &str| parse(line, &queries);
        assert_eq!(query(r#"{"qid":98765432109876543210,"query":"a"}"#), "98765432109876543210||a");
        assert_eq!(query(r#"{"query-id":1.50,"question":"a"}"#), "1.50||a");
        assert_eq!(query(r#"{"query_id":"1","title":"T","text":"a"}"#), "1||a");
    }

    #[test]
    fn columns_can_be_named() {
        let columns = Columns {
            id: Some("key".into()),
            title: Some("head".into()),
            text: Some("abstract".into()),
            ..Columns::default()
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
        check(r#"{"id":"\ud800","text":"a"}"#, "not valid JSON: the id: ");
        check(r#"{"id":NaN,"text":"a"}"#, "the id is empty");
        check(r#"{"id":1,"text":NaN1}"#, "not valid JSON");
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
        check(r#"{"id":"","text":"a"}"#, "the id is empty");
        check(r#"{"id":"a\tb","text":"a"}"#, "contains a control character");
    }
}
