//! Names of a cache's files. In: keys of blocks. Out: files of the folder, and keys of those that are there. No
//! other file spells these names. It knows no budget.

use std::fs::{self, DirEntry, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hyperrag_core::{BlobKey, Slot, TierError};

use crate::disk::{
    open_folder, open_in, remove_if_dead, remove_in, tier_error, unique_end, write_in,
};

/// Name of the file that says that a folder is a cache.
const MARKER: &str = "hyperrag-cache";

/// Words of the marker.
const MARKER_TEXT: &[u8] =
    b"This folder is a cache of hyperrag, which removes files from it. It can be deleted at any time.\n";

/// Part of the name of a file that is being written, between the block's key and a number of the process.
const TEMPORARY: &str = ".tmp-";

/// Bytes that a file's name takes in its folder.
const NAME_BYTES: u64 = 128;

/// Bytes of a block of a file system.
const PAGE_BYTES: u64 = 4096;

/// A file that was found.
pub(super) struct Found {
    pub(super) key: BlobKey,
    /// Bytes that it takes of the drive.
    pub(super) weight: u64,
    pub(super) written: Option<SystemTime>,
}

/// Returns the bytes that a file of this length is going to take.
pub(super) fn weight_of(length: u64) -> u64 {
    length.div_ceil(PAGE_BYTES).saturating_mul(PAGE_BYTES).saturating_add(NAME_BYTES)
}

/// Returns the bytes that a file takes. Some systems say so only after a while, hence no less than its length.
pub(super) fn weight(file: &fs::Metadata) -> u64 {
    weight_of(file.len()).max(file.blocks().saturating_mul(512).saturating_add(NAME_BYTES))
}

/// The folder of a cache.
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Opens a cache's folder, or makes an empty folder one.
    pub(super) fn open(root: &Path) -> Result<Self, TierError> {
        let failed = |error: io::Error| tier_error(root, &error);
        let marker = root.join(MARKER);
        let marked = || fs::symlink_metadata(&marker).is_ok_and(|found| found.is_file());
        if !marked() {
            fs::create_dir_all(root).map_err(failed)?;
            let foreign = |entry: io::Result<DirEntry>| match entry {
                // An empty file system has it.
                Ok(entry) if entry.file_name() == "lost+found" => None,
                entry => Some(entry),
            };
            let foreign = fs::read_dir(root).map_err(failed)?.find_map(foreign);
            // Another process may have marked it meanwhile.
            if let Some(name) = foreign.filter(|_| !marked()) {
                let name = name.map_err(failed)?.file_name();
                return Err(TierError::Refused(format!(
                    "{} holds {}, and no file {MARKER}: a cache removes files, and needs an empty \
                     folder",
                    root.display(),
                    name.display(),
                )));
            }
            match fs::write(&marker, MARKER_TEXT) {
                Err(_) if marked() => {}
                written => written.map_err(failed)?,
            }
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Lists the files of blocks. Half-written files of dead processes are removed, and others left alone.
    pub(super) fn list(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for first in 0..=u8::MAX {
            let path = self.root.join(folder_name(first));
            let Some(folder) = open_folder(&path)? else { continue };
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                let name = entry.file_name();
                let Some((key, temporary)) = name.to_str().and_then(parse) else { continue };
                if key.table[0] != first {
                    continue;
                }
                if temporary {
                    // Best effort: it is another user's, perhaps.
                    let _ = remove_if_dead(&folder, &name.to_string_lossy());
                    continue;
                }
                match entry.metadata() {
                    Ok(metadata) if metadata.is_file() => {
                        let written = metadata.modified().ok();
                        found.push(Found { key, weight: weight(&metadata), written });
                    }
                    // Another process removed it, or it is none of ours.
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    /// Opens a block's file. `None` if there is none.
    pub(super) fn open_file(&self, key: &BlobKey) -> io::Result<Option<File>> {
        match self.folder(key)? {
            Some(folder) => open_in(folder, &file_name(key)),
            None => Ok(None),
        }
    }

    /// Writes a block's file under another name and renames it. Returns the bytes that it takes.
    pub(super) fn write(&self, key: &BlobKey, bytes: &[u8]) -> io::Result<u64> {
        let folder = match self.folder(key)? {
            Some(folder) => folder,
            None => self.make_folder(key)?,
        };
        let name = file_name(key);
        let temporary = format!("{name}{TEMPORARY}{}", unique_end());
        let file = write_in(&folder, &temporary, bytes)?;
        let weight = weight(&file.metadata()?);
        rustix::fs::renameat(&folder, &temporary, &folder, &name).inspect_err(|_| {
            // Best effort: the next start removes it.
            let _ = remove_in(&folder, &temporary);
        })?;
        Ok(weight)
    }

    /// Removes a block's file, if it is there.
    pub(super) fn remove(&self, key: &BlobKey) -> io::Result<()> {
        match self.folder(key)? {
            Some(folder) => remove_in(folder, &file_name(key)),
            None => Ok(()),
        }
    }

    /// Returns the free bytes of the drive.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.root)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn folder(&self, key: &BlobKey) -> io::Result<Option<OwnedFd>> {
        open_folder(&self.root.join(folder_name(key.table[0])))
    }

    fn make_folder(&self, key: &BlobKey) -> io::Result<OwnedFd> {
        let path = self.root.join(folder_name(key.table[0]));
        match fs::DirBuilder::new().mode(0o755).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        open_folder(&path)?.ok_or_else(|| {
            let said = format!("{} is in the way of a folder", path.display());
            io::Error::new(io::ErrorKind::InvalidData, said)
        })
    }
}

fn folder_name(first: u8) -> String {
    format!("{first:02x}")
}

fn file_name(key: &BlobKey) -> String {
    key.to_string()
}

/// Returns the key in a name, and whether it is that of a file that is being written. `None` for other names.
fn parse(name: &str) -> Option<(BlobKey, bool)> {
    let (key, end) = match name.split_once(TEMPORARY) {
        Some((key, end)) => (key, Some(end)),
        None => (name, None),
    };
    let (table, slot) = key.split_once('.')?;
    let mut parsed = [0; 16];
    for (n, byte) in parsed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(table.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    let parsed = BlobKey { table: parsed, slot: Slot(slot.parse().ok()?) };
    let numbers = |end: &str| end.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let own = file_name(&parsed) == key && end.is_none_or(numbers);
    own.then_some((parsed, end.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_not() {
        let key = BlobKey { table: [0xab; 16], slot: Slot(486) };
        let name = file_name(&key);
        assert_eq!(name, format!("{}.486", "ab".repeat(16)));
        assert_eq!(parse(&name), Some((key, false)));
        assert_eq!(parse(&format!("{name}.tmp-12-0")), Some((key, true)));
        let upper = name.to_uppercase();
        for other in
            ["", "a", "notes.txt", &upper, &name[1..], &name[..32], &format!("{name}0000000")]
        {
            assert_eq!(parse(other), None, "{other:?}");
        }
        for end in ["x", ".bak", ".tmp-a", ".tmp", "/"] {
            assert_eq!(parse(&format!("{name}{end}")), None, "{end:?}");
        }
        assert_eq!(parse(&format!("{}.0486", "ab".repeat(16))), None);
        assert_eq!(parse(&format!("{}.+486", "ab".repeat(16))), None);
        assert_eq!(parse(&format!("{}é.1", "ab".repeat(15))), None);
    }
}
