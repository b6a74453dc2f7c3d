//! Shards of a span, which one of several builders has sealed: records come in, checksummed lines go out, and back.
//! The names of their objects. It opens no file and knows no place.

use std::ops::Range;

use hyperrag_core::{Digest, ShardId};

use crate::format::build_plan::PlanFault;
use crate::format::exported::{object_name, short};
use crate::format::journal::JournalLine;
use crate::format::paths::{chunk_object_path, shard_object, table_object};
use crate::format::records::ShardRecord;

/// Largest lines of a span, in bytes.
pub const SPAN_BYTES_MAX: u64 = 1 << 20;

impl ShardRecord {
    /// Returns the name of the object that holds the shard in a place of files.
    #[must_use]
    pub fn shard_object(&self) -> String {
        shard_object(self.shard, &short(&self.kv.digest))
    }

    /// Returns the name of the object that holds the chunk file.
    #[must_use]
    pub fn chunk_object(&self) -> String {
        object_name(&chunk_object_path(self.shard), &self.chunk_file.digest)
    }

    /// Returns the name of the object that holds header and block table alone, until a listing names them.
    #[must_use]
    pub fn table_object(&self) -> String {
        table_object(self.shard, &short(&self.kv.digest))
    }
}

/// Returns the name of the object that holds a calibration of this digest, until a listing names it.
#[must_use]
pub fn calibration_object(digest: &Digest) -> String {
    format!("calibration/{}", short(digest))
}

/// Returns the lines of a span, as a journal has them.
#[must_use]
pub fn encode_span(shards: &[ShardRecord]) -> Vec<u8> {
    let line = |record: &ShardRecord| {
        JournalLine { record: record.clone(), replaces: Vec::new() }.encode()
    };
    shards.iter().map(line).collect::<String>().into_bytes()
}

/// Parses the lines of a span with these units.
///
/// # Errors
/// [`PlanFault`] if a line is damaged, missing or another unit's.
pub fn parse_span(bytes: &[u8], units: Range<u32>) -> Result<Vec<ShardRecord>, PlanFault> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let mut shards = Vec::new();
    for unit in units {
        let fault = |what: &str| PlanFault(format!("the line of unit {unit} {what}"));
        let line = lines.next().ok_or_else(|| fault("is missing"))?;
        let line = line.strip_suffix(b"\n").and_then(JournalLine::parse);
        let line = line.ok_or_else(|| fault("does not fit its checksum"))?;
        if line.record.shard != ShardId(unit) || !line.replaces.is_empty() {
            return Err(fault("is another one's"));
        }
        shards.push(line.record);
    }
    match lines.next() {
        None => Ok(shards),
        Some(_) => Err(PlanFault("it has more lines than the span has units".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::records::FileRecord;

    fn record(shard: u32) -> ShardRecord {
        let file = |byte| FileRecord { bytes: 4096, digest: Digest([byte; 32]) };
        ShardRecord {
            shard: ShardId(shard),
            rows: 3,
            rows_digest: Digest([shard as u8; 32]),
            documents: 2,
            chunks: 4,
            tokens: 50,
            kv: file(4),
            chunk_file: file(5),
            repaired_by: None,
        }
    }

    #[test]
    fn a_span_comes_back_and_no_byte_may_change() {
        let shards: Vec<ShardRecord> = (3..6).map(record).collect();
        let bytes = encode_span(&shards);
        assert_eq!(parse_span(&bytes, 3..6), Ok(shards.clone()));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(parse_span(&changed, 3..6).is_err(), "byte {at}");
            assert!(parse_span(&bytes[..at], 3..6).is_err(), "{at} bytes");
        }
        for units in [2..5, 3..5, 3..7, 4..6] {
            assert!(parse_span(&bytes, units).is_err());
        }
        assert_eq!(parse_span(b"", 0..0), Ok(Vec::new()));
    }

    #[test]
    fn objects_have_the_names_that_an_export_gives_them() {
        let record = record(7);
        assert_eq!(record.shard_object(), format!("shards/000007.{}.kv", "04".repeat(16)));
        assert_eq!(record.chunk_object(), format!("chunks/000007.parquet.{}", "05".repeat(16)));
        assert_eq!(record.table_object(), format!("tables/000007.{}.kvt", "04".repeat(16)));
    }
}
