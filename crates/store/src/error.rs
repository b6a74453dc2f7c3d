//! Errors of opening, reading and writing a store: paths and causes come in, messages, kinds and remedies go
//! out. It names no flag.

use std::io;
use std::path::{Path, PathBuf};

use hyperrag_core::{BoxedError, Classified, ErrorKind, Hint, Mismatch};

use crate::format::paths::{is_chunk_file, is_replica_list};
use crate::format::version::FORMAT_VERSION;

/// Reason why a store was not opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The folder has no manifest: nothing was built here.
    #[error("{}: there is no store here", path.display())]
    Absent {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds other things.
    #[error("{}: the folder is not empty and holds no store; name another folder", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// The folder of a new replica holds another store.
    #[error("{}: the folder holds another store, or more than this one; name another folder", path.display())]
    OtherStore {
        /// The folder.
        path: PathBuf,
    },
    /// The manifest of a replica is damaged, so that nobody can tell what the folder holds.
    #[error("{}: damaged: {what}", path.display())]
    DamagedReplica {
        /// The manifest.
        path: PathBuf,
        /// Fault found.
        what: String,
    },
    /// The folder of a new replica is the store itself or lies in it.
    #[error("{}: the folder is the store itself or lies in it; name another one", path.display())]
    SameFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The replica to forget is not known.
    #[error("{}: the store does not remember a replica {}", path.display(), replica.display())]
    UnknownReplica {
        /// The store.
        path: PathBuf,
        /// The replica.
        replica: PathBuf,
    },
    /// The store was made with another model, profile or setting.
    #[error("{}: the store was made with {} {}, in use is {}{}", path.display(), mismatch.field, mismatch.stored, mismatch.current, advice(mismatch))]
    Mismatch {
        /// The store.
        path: PathBuf,
        /// The field that differs.
        mismatch: Box<Mismatch>,
        /// The model that the store notes.
        noted: Option<String>,
    },
    /// The store has a format version that this program does not know.
    #[error("{}: the store is of format version {version}, this program reads versions 1 to {FORMAT_VERSION}; use a newer hyperrag", path.display())]
    Format {
        /// The store.
        path: PathBuf,
        /// Format version of the store.
        version: u32,
    },
    /// Another process is writing.
    #[error("{}: another process is writing this store ({holder}); wait for it or stop it", path.display())]
    Locked {
        /// The store.
        path: PathBuf,
        /// Text of the lock file, which names the process.
        holder: String,
    },
    /// An input has been added only in part.
    #[error("{}: a build or an append is not finished", path.display())]
    Unfinished {
        /// The store.
        path: PathBuf,
    },
    /// The bytes of a file are not those written.
    #[error("{}: damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Fault found.
        what: String,
    },
    /// A lock or a folder that would be written to is not the store's own.
    #[error("{}: {what}", path.display())]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// A sentence with the fault and a remedy.
        what: String,
    },
    /// Damage that cannot be repaired.
    #[error("{}: it cannot be mended", path.display())]
    NotRepaired {
        /// The file.
        path: PathBuf,
        /// Reason.
        #[source]
        why: NoRepair,
    },
    /// The input of a shard has more chunks than a shard may hold.
    #[error("shard {shard} would hold {chunks} chunks, at most {max} are allowed")]
    TooManyChunks {
        /// The shard.
        shard: hyperrag_core::ShardId,
        /// Number of chunks.
        chunks: usize,
        /// The limit.
        max: usize,
    },
    /// The input of a shard has more text than a chunk file may hold.
    #[error(
        "shard {shard} would hold {bytes} bytes of text, at most {max} are allowed; split its documents"
    )]
    TooMuchText {
        /// The shard.
        shard: hyperrag_core::ShardId,
        /// Size of titles and texts, in bytes.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The disk is full.
    #[error("{}: the disk is full; free some space and run the same command again, sealed units are kept", path.display())]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read or written.
    #[error("{}: {action}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Action that failed.
        action: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the system refused a file for a reason that says nothing about its bytes.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Io { source, .. } if hyperrag_core::is_refusal(source))
    }

    /// Returns a function that turns an I/O error on `path` into a store error.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, source }
            }
            _ => Self::Io { path, action, source },
        }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }
}

impl Classified for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Mismatch { .. } | Self::Format { .. } => ErrorKind::Mismatch,
            Self::Damaged { .. } | Self::DamagedReplica { .. } => ErrorKind::Damaged,
            Self::Locked { .. } => ErrorKind::Busy,
            Self::DiskFull { .. } | Self::Io { .. } => ErrorKind::Refused,
            Self::Absent { .. }
            | Self::NotAStore { .. }
            | Self::OtherStore { .. }
            | Self::SameFolder { .. }
            | Self::UnknownReplica { .. }
            | Self::TooManyChunks { .. }
            | Self::TooMuchText { .. } => ErrorKind::Input,
            Self::Unfinished { .. } | Self::Foreign { .. } => ErrorKind::Failed,
            Self::NotRepaired { why, .. } => why.kind(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Absent { path } => Some(Hint::BuildStore { path: path.clone() }),
            Self::UnknownReplica { .. } => Some(Hint::ListReplicas),
            Self::Mismatch { mismatch, .. } if mismatch.of_file => Some(Hint::UpgradeStore),
            Self::Mismatch { mismatch, .. } if is_of_profile(mismatch) => {
                Some(Hint::GiveStoreProfile)
            }
            Self::Mismatch { mismatch, noted, .. } if is_of_model(mismatch) => {
                Some(Hint::NameStoreModel { noted: noted.clone() })
            }
            Self::Unfinished { .. } => Some(Hint::FinishBuild { or_restart: true }),
            Self::Damaged { path, .. } if is_replica_list(path) => Some(Hint::NameReplicas),
            Self::Damaged { path, .. } if is_chunk_file(path) => Some(Hint::RepairFromReplica),
            Self::Damaged { .. } => Some(Hint::Repair),
            Self::DamagedReplica { .. } => Some(Hint::ReplicateAnew),
            Self::NotRepaired { why, .. } => why.hint(),
            Self::TooManyChunks { .. } => Some(Hint::SmallerUnits),
            _ => None,
        }
    }
}

/// Whether another model is the reason of a mismatch.
fn is_of_profile(mismatch: &Mismatch) -> bool {
    ["profile", "profile_digest"].contains(&mismatch.field)
}

fn is_of_model(mismatch: &Mismatch) -> bool {
    let settings = [
        "profile",
        "profile_digest",
        "chunk_tokens",
        "unit_rows",
        "language",
        "element",
        "calibration",
        "compute",
        "kernel",
        "format_version",
    ];
    !settings.contains(&mismatch.field)
}

/// Returns the part of the remedy that names nothing of a program, as the continuation of the message.
fn advice(mismatch: &Mismatch) -> &'static str {
    match mismatch.of_file {
        true => {
            "; use the very file that it was made with, or build another store: in its format version 1 \
             that is the digest of the whole file, and name and chat template count"
        }
        false if mismatch.field == "profile" => "",
        false if is_of_profile(mismatch) => ", so the profile of this name was changed since",
        false => "; use what it was made with, or build another store",
    }
}

/// Reason why a damaged file was not made again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoRepair {
    /// No shard tells what the store was made with.
    #[error("no shard's header is whole; build the store again")]
    NoHeader,
    /// Shards of several stores lie in the folder.
    #[error("the shards are of different stores; build the store again")]
    DifferentStores,
    /// Neither the store nor the user's settings tell the fingerprint.
    #[error("nothing here says what the store was made with")]
    UnknownFingerprint,
    /// The journal of an append has lost lines.
    #[error("what was sealed of an unfinished append is not known")]
    LostAppend,
    /// A state was found that is not proved to be the last one.
    #[error("it could be made {how}: what was deleted, added or replaced since would be undone")]
    Older {
        /// Source of the state, as the continuation of a sentence after "made".
        how: String,
    },
    /// Titles and texts of a chunk file may be damaged.
    #[error("{}: its texts cannot be shown to be those that were written; mend it from a replica, or build the store again in another folder", path.display())]
    DoubtfulTexts {
        /// The chunk file.
        path: PathBuf,
    },
    /// The calibration computed again is another one.
    #[error("the calibration computed again is not the one that the fingerprint names")]
    OtherCalibration,
    /// The blocks computed again are other ones.
    #[error("the blocks computed again are not those that the manifest names")]
    OtherBlocks,
    /// Another kernel computed, and the store is not complete.
    #[error("another kernel than the store's may mend it when the build is finished")]
    OtherKernel,
    /// The manifest is no longer the one that was read.
    #[error("the store was changed meanwhile; repair it again")]
    Changed,
    /// A file that is needed for it is unusable too.
    #[error(transparent)]
    File(Box<StoreError>),
    /// The computation failed.
    #[error(transparent)]
    Computation(#[from] BoxedError),
}

impl From<StoreError> for NoRepair {
    fn from(error: StoreError) -> Self {
        Self::File(Box::new(error))
    }
}

impl Classified for NoRepair {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownFingerprint => ErrorKind::Input,
            Self::OtherKernel => ErrorKind::Mismatch,
            Self::Changed => ErrorKind::Busy,
            Self::File(error) => error.kind(),
            Self::Computation(error) => error.kind(),
            Self::NoHeader
            | Self::DifferentStores
            | Self::LostAppend
            | Self::Older { .. }
            | Self::DoubtfulTexts { .. }
            | Self::OtherCalibration
            | Self::OtherBlocks => ErrorKind::Damaged,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::UnknownFingerprint => Some(Hint::GiveBuildSettings),
            Self::LostAppend => Some(Hint::RestartAppend),
            Self::Older { .. } => Some(Hint::AcceptOlder),
            Self::OtherKernel => Some(Hint::FinishBuild { or_restart: false }),
            Self::Computation(error) => error.hint(),
            // Repairing the store is no remedy for a failed repair.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use hyperrag_core::{ModelError, sentence};

    use super::*;

    #[test]
    fn a_failed_computation_keeps_its_words_and_its_remedy() {
        let failed = BoxedError::new(ModelError::OutOfMemory { rows: 3 });
        let error = StoreError::NotRepaired { path: "s".into(), why: failed.into() };
        let said =
            "s: it cannot be mended: the device has too little memory for one sequence of 3 rows";
        assert_eq!(sentence(&error), said);
        assert_eq!(error.hint(), Some(Hint::FreeDeviceMemory));
        assert_eq!(error.kind(), ErrorKind::Refused);
    }

    #[test]
    fn a_damaged_list_of_replicas_is_not_mended_by_a_repair() {
        let hint = |path: &str| StoreError::damaged(Path::new(path), "cut short").hint();
        assert_eq!(hint("s/replicas.json"), Some(Hint::NameReplicas));
        assert_eq!(hint("s/manifest.json"), Some(Hint::Repair));
        assert_eq!(hint("s/chunks/000000.parquet"), Some(Hint::RepairFromReplica));
    }
}
