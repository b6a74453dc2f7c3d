//! Rows of JSON files: a path or text in, objects out whose fields keep their digits. It does not know what
//! the fields mean.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use hyperrag_corpus::JsonObjects;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON object, whose values are read when they are asked for.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Row(BTreeMap<String, Box<RawValue>>);

impl Row {
    /// Returns the value of a field.
    pub(crate) fn value(&self, key: &str) -> Option<Value> {
        self.0.get(key).and_then(|raw| serde_json::from_str(raw.get()).ok())
    }

    /// Returns the text of a field; `None` where it is no text.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.0.get(key).and_then(|raw| serde_json::from_str(raw.get()).ok())
    }

    /// Returns the row's id. A number keeps its digits: `Value` would round those beyond 2^64.
    pub(crate) fn id(&self) -> Option<String> {
        ["query_id", "_id", "id"].iter().find_map(|key| {
            let raw = self.0.get(*key)?.get();
            let number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
            if number { Some(raw.to_owned()) } else { self.text(key) }
        })
    }
}

/// Reads the JSON objects of a file, one a line or in one array, each with its place. `T` takes objects alone.
pub(crate) fn json_rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<(String, T)>> {
    let mut rows = Vec::new();
    for object in JsonObjects::open(path)? {
        let (place, text) = object?;
        let row = serde_json::from_str(&text);
        let row = row.with_context(|| format!("{place}: not a JSON object"))?;
        rows.push((place.to_string(), row));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_digits() {
        let id = |json: &str| serde_json::from_str::<Row>(json).unwrap().id();
        let long = "36893488147419103233";
        assert_eq!(id(&format!("{{\"_id\": {long}}}")).unwrap(), long);
        assert_eq!(id("{\"query_id\": null, \"id\": -7}").unwrap(), "-7");
        assert_eq!(id("{\"query_id\": \"\\u00e9\", \"id\": 7}").unwrap(), "é");
        assert_eq!(id("{\"id\": [7]}"), None);
    }
}
