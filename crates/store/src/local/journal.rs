//! The journal of units sealed since a snapshot, one checksummed line each: sealed units come in, whole lines
//! go out. Knows nothing of shard files.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::format::manifest::{MANIFEST_BYTES_MAX, ShardRecord, Tombstones};
use crate::local::open::{open_or_create, open_plain, read_bounded, read_plain};
use crate::local::paths::{Files, write_whole};
use crate::read_error::ReadError;

/// A line of the journal: a unit and the documents that it replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sealed {
    pub(crate) record: ShardRecord,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) replaces: Vec<Tombstones>,
}

/// Whole lines of a journal, and their bytes.
pub(crate) struct Lines {
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) bytes: Vec<u8>,
}

/// Reads the whole lines of the journal at `path`, if there is one. Only the last line can be cut short by a
/// crash; it was never acknowledged, and is ignored.
pub(crate) fn read_journal(path: &Path) -> Result<Option<Lines>, StoreError> {
    let mut bytes = match read_plain(path, MANIFEST_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(ReadError::Missing) => return Ok(None),
        Err(fault) => return Err(fault.of_file(path)),
    };
    let (mut lines, mut whole) = (Vec::new(), 0);
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let what =
            || StoreError::damaged(path, format!("line {} does not fit its checksum", number + 1));
        let Some(sealed) = line.strip_suffix(b"\n") else {
            // A crash leaves the start of a line. A whole record with another byte than its line end is an
            // acknowledged line that was damaged.
            if line.split_last().is_some_and(|(_, rest)| parse_line(rest).is_some()) {
                return Err(what());
            }
            break;
        };
        lines.push(parse_line(sealed).ok_or_else(what)?);
        whole += line.len();
    }
    bytes.truncate(whole);
    Ok(Some(Lines { sealed: lines, bytes }))
}

pub(crate) fn parse_line(line: &[u8]) -> Option<Sealed> {
    let (crc, sealed) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let expected = format!("{:08x}", crc32fast::hash(sealed.as_bytes()));
    (crc == expected).then(|| serde_json::from_str(sealed).ok())?
}

/// Writes a sealed unit as a line of the journal.
pub(crate) fn line(sealed: &Sealed) -> String {
    let sealed = serde_json::to_string(sealed).expect("a line has only plain fields");
    format!("{:08x} {sealed}\n", crc32fast::hash(sealed.as_bytes()))
}

/// Appends one line, durably. The line end is written when all before it is on the disk: a loss of power may
/// keep any sectors of unsynced bytes, and the line would pass for a damaged one. If that fails, the bytes
/// written are cut off, so that another try does not continue a broken line.
pub(crate) fn append(path: &Path, sealed: &Sealed) -> Result<(), StoreError> {
    let line = line(sealed);
    let file = open_or_create(path, File::options().append(true));
    let mut file = file.map_err(|fault| fault.of_file(path))?;
    let appended = (|| {
        let before = file.metadata()?.len();
        if before == 0 {
            let folder = path.parent().unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()?;
        }
        let (record, end) = line.as_bytes().split_at(line.len() - 1);
        let mut add = |bytes: &[u8]| file.write_all(bytes).and_then(|()| file.sync_data());
        add(record).and_then(|()| add(end)).inspect_err(|_| {
            // Best effort: opening the store also cuts an unfinished line.
            let _ = file.set_len(before);
        })
    })();
    appended.map_err(StoreError::io(path, "cannot be appended to"))
}

/// Removes all journals but that of the last snapshot, which is at `kept`. A crash between a snapshot and
/// this removal leaves one.
pub(crate) fn remove_other_journals(files: &Files, kept: Option<&Path>) -> Result<(), StoreError> {
    for entry in fs::read_dir(&files.root).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let journal = name.to_str().is_some_and(|n| n.starts_with("journal-"));
        if journal && Some(&*path) != kept {
            fs::remove_file(&path).map_err(StoreError::io(&path, "cannot be removed"))?;
        }
    }
    Ok(())
}

/// Cuts off the unfinished last line of a journal, if a crash left one, and makes the rest durable, because a
/// killed writer may not have synced it. A journal that has another name, in a copy of the store by hard
/// links, is replaced before lines are added.
pub(crate) fn settle(path: &Path) -> Result<(), StoreError> {
    let opened = open_plain(path)
        .and_then(|file| Ok((read_bounded(&file, MANIFEST_BYTES_MAX)?, file.metadata()?, file)));
    let (bytes, metadata, file) = match opened {
        Ok(opened) => opened,
        Err(ReadError::Missing) => return Ok(()),
        Err(fault) => return Err(fault.of_file(path)),
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < bytes.len() || metadata.nlink() > 1 {
        return write_whole(path, &bytes[..whole]);
    }
    file.sync_data().map_err(StoreError::io(path, "cannot be synced"))
}
