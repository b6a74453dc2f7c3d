//! The notes of a store: what it was made with, by the names that its user gave, as checksummed bytes, and back.
//! They help to find the model again and decide on nothing else. It opens no file.

use serde::{Deserialize, Serialize};

use crate::format::envelope::{self, Envelope};

/// Largest notes, in bytes: a few names and paths.
pub(crate) const BYTES_MAX: u64 = 1 << 20;

/// Name of the notes in their envelope.
const ENVELOPE: &str = "notes";

/// Names by which a store was made. No fingerprint covers them, and readers may overrule each of them. Fields of
/// later versions are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreNotes {
    /// Model: a name of the catalogue, an absolute path, or an id of the hub with its commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Absolute path of a tokenizer that took the place of the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Profile: a built-in name, or the absolute path of its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Columns of the corpus.
    #[serde(skip_serializing_if = "ColumnNotes::is_empty")]
    pub columns: ColumnNotes,
}

/// Columns of the corpus from which documents were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ColumnNotes {
    /// Name of the id's column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name of the title's column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Name of the text's column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl ColumnNotes {
    /// Whether no column is noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Parses notes. Their checksum is checked first.
pub(crate) fn parse(bytes: &[u8]) -> Result<StoreNotes, String> {
    let no_notes = |error| format!("no notes of a store: {error}");
    let envelope = Envelope::parse(ENVELOPE, bytes).map_err(no_notes)?;
    serde_json::from_str(envelope.checked()?).map_err(no_notes)
}

/// Returns the bytes of notes.
pub(crate) fn encode(notes: &StoreNotes) -> Vec<u8> {
    envelope::encode(ENVELOPE, &serde_json::to_string(notes).expect("notes have only plain fields"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_and_those_of_later_versions_are_read() {
        let columns = ColumnNotes { title: Some("heading".to_owned()), ..ColumnNotes::default() };
        let model = Some("org/name@0123".to_owned());
        let notes = StoreNotes { model, columns, ..StoreNotes::default() };
        assert_eq!(parse(&encode(&notes)).unwrap(), notes);
        assert_eq!(parse(&encode(&StoreNotes::default())).unwrap(), StoreNotes::default());
        let body = r#"{"model":"org/name@0123","columns":{"title":"heading","rows":3},"mood":1}"#;
        assert_eq!(parse(&envelope::encode(ENVELOPE, body)).unwrap(), notes);
        assert!(parse(&envelope::encode(ENVELOPE, r#"{"model":3}"#)).is_err());
    }
}
