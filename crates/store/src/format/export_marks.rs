//! Marks of the shards that an export has sent: names of block tables come in, checksummed bytes go out, and
//! back. It opens no file.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::format::envelope::{self, Envelope};

/// Largest file of marks, in bytes.
pub(crate) const BYTES_MAX: u64 = 1 << 30;

/// Name of the marks in their envelope.
const ENVELOPE: &str = "export";

/// Shards that a place has, by the first half of the digests of their headers and tables, so that a shard that
/// changes has no mark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExportMarks {
    /// Name of the place, for people.
    pub(crate) to: String,
    pub(crate) shards: BTreeSet<String>,
}

impl ExportMarks {
    /// Parses marks; `None` if they are not as they were written, which costs no more than sending again.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let envelope = Envelope::parse(ENVELOPE, bytes).ok()?;
        serde_json::from_str(envelope.checked().ok()?).ok()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let body = serde_json::to_string(self).expect("marks have only plain fields");
        envelope::encode(ENVELOPE, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_and_damaged_ones_are_none() {
        let marks = ExportMarks { to: "s3://b".to_owned(), shards: ["ab".to_owned()].into() };
        let bytes = marks.to_bytes();
        assert_eq!(ExportMarks::parse(&bytes), Some(marks));
        let text = String::from_utf8(bytes.clone()).unwrap().replace("ab", "ac");
        assert_eq!(ExportMarks::parse(text.as_bytes()), None);
        assert_eq!(ExportMarks::parse(&bytes[..bytes.len() - 3]), None);
    }
}
