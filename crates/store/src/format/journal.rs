//! The journal of shards sealed since a snapshot, one checksummed line each: lines come in, bytes go out, and
//! back. It opens no file.

use serde::{Deserialize, Serialize};

use crate::format::records::{ShardRecord, Tombstones};

/// A line of the journal: a sealed shard and the documents that it replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JournalLine {
    pub(crate) record: ShardRecord,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) replaces: Vec<Tombstones>,
}

impl JournalLine {
    /// Parses a line without its end; `None` if it does not fit its checksum.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let (crc, text) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let expected = format!("{:08x}", crc32fast::hash(text.as_bytes()));
        (crc == expected).then(|| serde_json::from_str(text).ok())?
    }

    /// Returns the line with its end.
    pub(crate) fn encode(&self) -> String {
        let text = serde_json::to_string(self).expect("a line has only plain fields");
        format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes()))
    }
}

/// Whole lines of a journal, and their bytes.
pub(crate) struct Journal {
    pub(crate) lines: Vec<JournalLine>,
    pub(crate) bytes: Vec<u8>,
}

impl Journal {
    /// Parses the whole lines of a journal. Only the last line can be cut short by a crash; it was never
    /// acknowledged, and is ignored.
    pub(crate) fn parse(mut bytes: Vec<u8>) -> Result<Self, String> {
        let (mut lines, mut whole) = (Vec::new(), 0);
        for (number, line) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
            let damaged = || format!("line {number} does not fit its checksum");
            let Some(text) = line.strip_suffix(b"\n") else {
                // A crash leaves the start of a line. A whole line with another byte than its end is an
                // acknowledged line that was damaged.
                let acknowledged =
                    line.split_last().is_some_and(|(_, rest)| JournalLine::parse(rest).is_some());
                if acknowledged {
                    return Err(damaged());
                }
                break;
            };
            lines.push(JournalLine::parse(text).ok_or_else(damaged)?);
            whole += line.len();
        }
        bytes.truncate(whole);
        Ok(Self { lines, bytes })
    }
}
