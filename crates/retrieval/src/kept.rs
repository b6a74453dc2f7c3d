//! The `.pages` files of an index: one beside each segment, with the checksums of its files' pages.
//!
//! A segment may have none, because an older version wrote it or a writer was killed. It is then read
//! as a whole when it is opened, and the next writer adds the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use tantivy::index::IndexMeta;

use crate::checked::OpenFile;
use crate::error::RetrievalError;
use crate::files::{open_existing, replace};
use crate::pages::{Pages, decode, encode};

/// Extension of the file with the pages of a segment.
const EXTENSION: &str = "pages";

/// Largest size of such a file, in bytes: that of a segment of 256 GiB.
const BYTES_MAX: u64 = 64 << 20;

/// Returns the name of the file that keeps the pages of a segment's files.
pub(crate) fn kept_in(segment: &str) -> PathBuf {
    format!("{segment}.{EXTENSION}").into()
}

/// Returns the segment to which the file `name` belongs.
pub(crate) fn segment_of(name: &Path) -> &str {
    let name = name.to_str().unwrap_or_default();
    name.split_once('.').map_or(name, |(segment, _)| segment)
}

/// Returns the names that files of the commit's segments may have, by segment. Not every segment has
/// all files.
pub(crate) fn names_by_segment(metas: &IndexMeta) -> BTreeMap<String, Vec<PathBuf>> {
    let mut segments: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for name in metas.list_segment_files() {
        segments.entry(segment_of(&name).to_owned()).or_default().push(name);
    }
    segments
}

/// Reads the pages kept beside a segment, by file; `None` if there are none.
pub(crate) fn read_pages(
    dir: &Path,
    segment: &str,
) -> Result<Option<BTreeMap<PathBuf, Pages>>, RetrievalError> {
    let name = kept_in(segment);
    let damage = |what: &str| io::Error::new(ErrorKind::InvalidData, what);
    let read = || {
        let Some(file) = open_existing(&dir.join(&name))? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(damage("it is too long"));
        }
        let pages = decode(&bytes);
        pages.map(Some).ok_or_else(|| damage("the checksum is not that of the bytes"))
    };
    read().map_err(|error| RetrievalError::read(dir, &name, error))
}

/// Keeps the pages of each segment of a commit that has none yet, and removes those of other segments.
/// Only a writer calls it. It does not sync the folder.
pub(crate) fn keep_pages(dir: &Path, metas: &IndexMeta) -> Result<(), RetrievalError> {
    let segments = names_by_segment(metas);
    let known = sweep(dir, &segments).map_err(|error| RetrievalError::io(dir, error))?;
    for (segment, names) in segments {
        let name = kept_in(&segment);
        if known.contains(&name) {
            continue;
        }
        let mut files = BTreeMap::new();
        for name in names {
            if let Some(file) = OpenFile::open(dir, &name, None)? {
                files.insert(name, file.into_pages()?);
            }
        }
        let bytes = encode(files.iter().map(|(name, pages)| (name.as_path(), pages)));
        let path = dir.join(&name);
        replace(&path, &bytes).map_err(|error| RetrievalError::io(&path, error))?;
    }
    Ok(())
}

/// Removes the pages of segments that are not among these. Returns the names of the others.
fn sweep(dir: &Path, segments: &BTreeMap<String, Vec<PathBuf>>) -> io::Result<BTreeSet<PathBuf>> {
    let mut known = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let name = PathBuf::from(entry?.file_name());
        if name.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        match segments.contains_key(segment_of(&name)) {
            true => drop(known.insert(name)),
            false => fs::remove_file(dir.join(&name))?,
        }
    }
    Ok(known)
}
