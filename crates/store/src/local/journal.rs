//! The file of the journal: sealed shards come in and are appended durably, whole lines go out. It knows
//! nothing of shard files.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::StoreError;
use crate::format::journal::{Journal, JournalLine};
use crate::format::manifest::MANIFEST_BYTES_MAX;
use crate::format::paths::{StorePaths, is_journal};
use crate::local::durable::write_whole;
use crate::local::open::{open_or_create, open_plain, read_bounded, read_plain};
use crate::read_error::ReadError;

/// Reads the whole lines of the journal at `path`, if there is one.
pub(crate) fn read_journal(path: &Path) -> Result<Option<Journal>, StoreError> {
    match read_plain(path, MANIFEST_BYTES_MAX) {
        Ok(bytes) => {
            Journal::parse(bytes).map(Some).map_err(|what| StoreError::damaged(path, what))
        }
        Err(ReadError::Missing) => Ok(None),
        Err(error) => Err(error.of_file(path)),
    }
}

/// Appends one line, durably. The line end is written when all before it is on the disk: a loss of power may
/// keep any sectors of unsynced bytes, and the line would pass for a damaged one. If that fails, the bytes
/// written are cut off, so that another try does not continue a broken line.
pub(crate) fn append(path: &Path, line: &JournalLine) -> Result<(), StoreError> {
    let line = line.encode();
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
pub(crate) fn remove_other_journals(
    paths: &StorePaths,
    kept: Option<&Path>,
) -> Result<(), StoreError> {
    for entry in fs::read_dir(&paths.root).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let journal = name.to_str().is_some_and(is_journal);
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
