//! The list of a store's replicas: folders come in, folders and the state of each go out. Copies nothing.

use std::error::Error;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::StoreError;
use crate::format::manifest::Manifest;
use crate::format::paths::StorePaths;
use crate::format::replica_list;
use crate::local::durable::write_whole;
use crate::local::notes::notes;
use crate::local::open::read_plain;
use crate::local::state::State;
use crate::read_error::ReadError;

/// Lists the folders with copies of the store at `root`, as it remembers them.
///
/// # Errors
/// [`StoreError::Damaged`] if the list is not what was written.
pub fn replicas(root: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let path = StorePaths::new(root).replicas();
    let text = match read_plain(&path, replica_list::BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(ReadError::Missing) => return Ok(Vec::new()),
        Err(fault) => return Err(fault.of_file(&path)),
    };
    replica_list::parse(&text).map_err(|what| StoreError::damaged(&path, what))
}

/// Adds `replica` to the list of the store at `root`, by its full path. A damaged list is replaced by a new
/// one.
///
/// # Errors
/// [`StoreError`] if the folder does not exist or the list cannot be written.
pub fn remember_replica(root: &Path, replica: &Path) -> Result<(), StoreError> {
    let full = fs::canonicalize(replica);
    let full = full.map_err(StoreError::io(replica, "the replica cannot be reached"))?;
    if full.to_str().is_none() {
        let what = "the path is not UTF-8, so that it cannot be noted as a replica";
        let source = std::io::Error::from(ErrorKind::InvalidInput);
        return Err(StoreError::Io { path: full, action: what, source });
    }
    let _alone = alone(root);
    let mut all = match replicas(root) {
        // The list may be intact.
        Err(error) if error.is_refusal() => return Err(error),
        listed => listed.unwrap_or_default(),
    };
    if all.contains(&full) {
        return Ok(());
    }
    all.push(full);
    write(root, &all)
}

/// Removes `replica` from the list of the store at `root`, whether its folder exists or not.
///
/// # Errors
/// [`StoreError::UnknownReplica`] if the list does not have it.
pub fn forget_replica(root: &Path, replica: &Path) -> Result<(), StoreError> {
    let in_parent = || {
        let parent = replica.parent().filter(|parent| *parent != Path::new(""));
        let parent = fs::canonicalize(parent.unwrap_or(Path::new("."))).ok()?;
        Some(parent.join(replica.file_name()?))
    };
    let full = fs::canonicalize(replica).ok().or_else(in_parent);
    let _alone = alone(root);
    let mut all = replicas(root)?;
    let before = all.len();
    all.retain(|known| known != replica && Some(known) != full.as_ref());
    match all.len() < before {
        true => write(root, &all),
        false => {
            Err(StoreError::UnknownReplica { path: root.to_owned(), replica: replica.to_owned() })
        }
    }
}

/// State of a replica, compared with its store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaState {
    /// Folder of the replica.
    pub path: PathBuf,
    /// Generation of the replica's manifest, if it can be read.
    pub generation: Option<u64>,
    /// `up to date`, `behind`, `cannot be reached`, or the fault found.
    pub state: String,
}

const UP_TO_DATE: &str = "up to date";
const BEHIND: &str = "behind";

impl ReplicaState {
    /// Whether the replica lacks something that the store has now.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.state == BEHIND
    }

    /// Whether the replica is up to date or behind.
    #[must_use]
    pub fn is_of_this_store(&self) -> bool {
        self.state == UP_TO_DATE || self.state == BEHIND
    }
}

/// Returns the states of the replicas of the store at `root`, whose manifest is `manifest`. One with other
/// notes than the store's is behind, too.
///
/// # Errors
/// See [`replicas`].
pub fn replica_states(root: &Path, manifest: &Manifest) -> Result<Vec<ReplicaState>, StoreError> {
    let noted = notes(root).ok().flatten();
    let has_notes = |path: &Path| noted.is_none() || notes(path).ok().flatten() == noted;
    let state = |path: PathBuf| {
        let (generation, state) = match State::read(&StorePaths::new(&path)) {
            Ok(Some(State { manifest: theirs, .. })) => {
                let state = match theirs.generation.cmp(&manifest.generation) {
                    _ if theirs.fingerprint != manifest.fingerprint => "another store",
                    _ if theirs == *manifest && has_notes(&path) => UP_TO_DATE,
                    std::cmp::Ordering::Greater => "ahead of the store",
                    _ => BEHIND,
                };
                (Some(theirs.generation), state.to_owned())
            }
            Ok(None) => (None, "cannot be reached".to_owned()),
            Err(error) => match error.source() {
                Some(source) => (None, format!("{error}: {source}")),
                None => (None, error.to_string()),
            },
        };
        ReplicaState { path, generation, state }
    };
    Ok(replicas(root)?.into_iter().map(state).collect())
}

/// Keeps other processes from changing the list, if the file system has locks.
fn alone(root: &Path) -> Option<File> {
    File::open(root).ok().filter(|folder| folder.lock().is_ok())
}

fn write(root: &Path, all: &[PathBuf]) -> Result<(), StoreError> {
    write_whole(&StorePaths::new(root).replicas(), &replica_list::encode(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_are_remembered_at_once_are_all_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let copies: Vec<PathBuf> = (0..16).map(|n| folder.path().join(n.to_string())).collect();
        std::thread::scope(|scope| {
            for copy in &copies {
                fs::create_dir(copy).unwrap();
                scope.spawn(|| remember_replica(folder.path(), copy).unwrap());
            }
        });
        assert_eq!(replicas(folder.path()).unwrap().len(), copies.len());
    }

    #[test]
    fn replicas_are_remembered_once_and_no_byte_may_change() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(replicas(root).unwrap(), Vec::<PathBuf>::new());
        assert!(remember_replica(root, &root.join("none")).is_err());
        let copies = ["b", "c"].map(|name| root.canonicalize().unwrap().join(name));
        for copy in copies.iter().chain(&copies) {
            fs::create_dir_all(copy).unwrap();
            remember_replica(root, copy).unwrap();
        }
        assert_eq!(replicas(root).unwrap(), copies);
        fs::remove_dir(&copies[0]).unwrap();
        forget_replica(root, &root.join("b")).unwrap();
        assert_eq!(replicas(root).unwrap(), copies[1..]);
        let unknown = forget_replica(root, &root.join("b"));
        assert!(matches!(unknown, Err(StoreError::UnknownReplica { .. })), "{unknown:?}");
        let path = StorePaths::new(root).replicas();
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() - 1 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 5);
            fs::write(&path, &changed).unwrap();
            let found = replicas(root);
            assert!(matches!(found, Err(StoreError::Damaged { .. })), "byte {at}: {found:?}");
        }
    }
}
