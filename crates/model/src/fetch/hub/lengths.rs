//! Lengths of files in the hub's cache, as the hub stated them.
//!
//! In: the folder of a model in the cache, a commit, names and lengths. Out: whether the files still have
//! them. It asks no hub.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::error::LoadError;

/// Name of the file with the lengths, beside `snapshots/`.
const FILE: &str = "hyperrag-lengths.json";

/// Lengths of files in bytes, by commit and by name.
type Lengths = BTreeMap<String, BTreeMap<String, u64>>;

/// Lengths that the hub states of a commit's files.
pub(super) type FileLengths = BTreeMap<String, u64>;

fn read(place: &Path) -> Lengths {
    let text = fs::read(place.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Writes down the lengths of the files of a commit that are there.
pub(super) fn remember(place: &Path, commit: &str, stated: &FileLengths) -> Result<(), LoadError> {
    if stated.is_empty() {
        return Ok(());
    }
    let snapshot = place.join("snapshots").join(commit);
    let mut lengths = read(place);
    let there = stated.iter().filter(|(name, _)| snapshot.join(name).exists());
    lengths.insert(commit.to_owned(), there.map(|(name, bytes)| (name.clone(), *bytes)).collect());
    let path = place.join(FILE);
    let text = serde_json::to_vec(&lengths).unwrap_or_default();
    // A reader meets the former file or the new one.
    let new = place.join(format!("{FILE}.new"));
    fs::write(&new, text).map_err(LoadError::io(&new, "cannot be written"))?;
    fs::rename(&new, &path).map_err(LoadError::io(&path, "cannot be put in place"))
}

/// Whether the files of a commit have the lengths that were written down. Files without one are taken as
/// they are.
pub(super) fn hold(place: &Path, commit: &str) -> bool {
    let snapshot = place.join("snapshots").join(commit);
    let lengths = read(place).remove(commit).unwrap_or_default();
    lengths.iter().all(|(name, bytes)| length(&snapshot.join(name)).is_none_or(|is| is == *bytes))
}

/// Returns the length of a file; `None` if there is none.
pub(super) fn length(path: &Path) -> Option<u64> {
    path.metadata().ok().map(|file| file.len())
}
