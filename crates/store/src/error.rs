//! Errors of opening, reading and writing a store, each with its path, its cause and a remedy.

use std::io;
use std::path::{Path, PathBuf};

use hyperrag_core::Mismatch;

use crate::format::version::FORMAT_VERSION;

/// Reason why a store was not opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The folder has no manifest: nothing was built here.
    #[error("{}: there is no store here; make one with `hyperrag build INPUT --store {}`", path.display(), path.display())]
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
    /// The folder of a new replica is the store itself or lies in it.
    #[error("{}: the folder is the store itself or lies in it; name another one", path.display())]
    SameFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The replica to forget is not known.
    #[error("{}: the store does not remember a replica {}; `hyperrag info` lists those that it does", path.display(), replica.display())]
    UnknownReplica {
        /// The store.
        path: PathBuf,
        /// The replica.
        replica: PathBuf,
    },
    /// The store was made with another model, profile or setting.
    #[error("{}: the store was made with {} {}, in use is {}; {}", path.display(), mismatch.field, mismatch.stored, mismatch.current, advice(mismatch))]
    Mismatch {
        /// The store.
        path: PathBuf,
        /// The field that differs.
        mismatch: Box<Mismatch>,
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
    #[error("{}: a build or an append is not finished; run the same `hyperrag build` to its end first, or forget what an append sealed with --append --restart", path.display())]
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
    #[error("{}: it cannot be mended: {why}", path.display())]
    NotRepaired {
        /// The file.
        path: PathBuf,
        /// Missing part, and a remedy.
        why: String,
    },
    /// The input of a shard has more chunks than a shard may hold.
    #[error(
        "shard {shard} would hold {chunks} chunks, at most {max} are allowed; use a smaller --unit-rows"
    )]
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

fn advice(mismatch: &Mismatch) -> &'static str {
    match mismatch.of_file {
        false if mismatch.field == "profile" => "name that with --profile, or build another store",
        true => {
            "use the very file that it was made with, or build another store: in its format version 1 \
             that is the digest of the whole file, and name and chat template count; while the file is \
             there, `hyperrag upgrade` makes the store independent of these"
        }
        false => "use what it was made with, or build another store",
    }
}
