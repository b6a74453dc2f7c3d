//! The errors of an index. Each names the folder or file, and tells damage from refusals of the system.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyperrag_core::{Classified, ErrorKind as Kind};
use rustix::io::Errno;
use tantivy::TantivyError;
use tantivy::directory::error::{LockError, OpenReadError, OpenWriteError};

use crate::names::META_FILE;

/// Reasons why an index cannot be opened, searched or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetrievalError {
    /// A folder that is absent or holds no index.
    #[error("there is no index at {}", path.display())]
    Missing {
        /// The index's folder.
        path: PathBuf,
    },
    /// Bytes that differ from those written.
    #[error("the index at {} is damaged: {}{what}", path.display(), FileList(files))]
    Damaged {
        /// The index's folder.
        path: PathBuf,
        /// The damaged files, relative to the folder; empty if they are not known.
        files: Vec<PathBuf>,
        /// The fault of the files.
        what: String,
    },
    /// An index that another version of this program wrote.
    #[error("the index at {} was written by another version: {what}", path.display())]
    Unsupported {
        /// The index's folder.
        path: PathBuf,
        /// The difference.
        what: String,
    },
    /// Another process, or another writer of this one, that is adding documents.
    #[error("the index at {} is being written by another process", path.display())]
    Locked {
        /// The index's folder.
        path: PathBuf,
    },
    /// A refusal by the disk; the cause says whether it is full, read-only or broken.
    #[error("{}: {}", path.display(), refusal(source))]
    Io {
        /// The file, or the index's folder if the file is not known.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A writer that can no longer be used. Committed documents are safe; the others must be added again
    /// after the index is opened anew.
    #[error("an earlier write to the index at {} failed: open it again", path.display())]
    Stopped {
        /// The index's folder.
        path: PathBuf,
    },
    /// Any other error of the search engine.
    #[error("the search engine failed on the index at {}", path.display())]
    Engine {
        /// The index's folder.
        path: PathBuf,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Says what the disk refused and what to do about it.
fn refusal(source: &io::Error) -> &'static str {
    // Some layers wrap the system's error, so that only its text is left.
    let found = os_error(&source.to_string());
    let error = found.as_ref().unwrap_or(source);
    let too_many = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    match error.kind() {
        _ if too_many.contains(&error.raw_os_error()) => {
            "too many files are open; raise the limit (`ulimit -n`) and run the same command again"
        }
        ErrorKind::PermissionDenied => {
            "this user has no right to it; its owner can give it (`chmod -R a+rX`), and had to where an \
             older version wrote it"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full; free some space and run the same command again, sealed units are kept"
        }
        _ => "cannot be read or written",
    }
}

impl Classified for RetrievalError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } | Self::Damaged { .. } => Kind::Damaged,
            Self::Locked { .. } => Kind::Busy,
            Self::Io { .. } => Kind::Refused,
            Self::Unsupported { .. } | Self::Stopped { .. } | Self::Engine { .. } => Kind::Failed,
        }
    }
}

struct FileList<'a>(&'a [PathBuf]);

impl fmt::Display for FileList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, file) in self.0.iter().enumerate() {
            let separator = if index + 1 == self.0.len() { ": " } else { ", " };
            write!(f, "{}{separator}", file.display())?;
        }
        Ok(())
    }
}

impl RetrievalError {
    pub(crate) fn damaged(dir: &Path, file: Option<&Path>, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: dir.to_owned(),
            files: file.into_iter().map(Path::to_owned).collect(),
            what: what.into(),
        }
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// Makes the error for an I/O error while reading `file`. Short or malformed content is damage,
    /// everything else is the system's.
    pub(crate) fn read(dir: &Path, file: &Path, error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::damaged(dir, Some(file), "is missing"),
            ErrorKind::InvalidData => {
                Self::damaged(dir, Some(file), first_line(&error.to_string()))
            }
            ErrorKind::UnexpectedEof => Self::damaged(dir, Some(file), "it is cut short"),
            _ => Self::io(&dir.join(file), error),
        }
    }

    pub(crate) fn from_tantivy(dir: &Path, error: TantivyError) -> Self {
        let path = || dir.to_owned();
        match error {
            TantivyError::OpenReadError(error) => Self::from_read(dir, error),
            TantivyError::OpenWriteError(OpenWriteError::IoError { io_error, filepath }) => {
                Self::io(&dir.join(filepath), own(io_error))
            }
            TantivyError::OpenWriteError(OpenWriteError::FileAlreadyExists(file)) => {
                Self::io(&dir.join(file), ErrorKind::AlreadyExists.into())
            }
            TantivyError::LockFailure(error, _) => Self::from_lock(dir, error),
            TantivyError::IoError(error) => match error.kind() {
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                    Self::damaged(dir, None, first_line(&error.to_string()))
                }
                _ => Self::io(dir, own(error)),
            },
            TantivyError::DataCorruption(error) => {
                let (file, what) = corruption(&format!("{error:?}"));
                Self::damaged(dir, file.as_deref(), what)
            }
            TantivyError::DeserializeError(error) => Self::damaged(dir, None, error.to_string()),
            TantivyError::IncompatibleIndex(error) => {
                Self::Unsupported { path: path(), what: format!("{error:?}") }
            }
            TantivyError::InternalError(text) => match os_error(&text) {
                Some(error) => Self::io(dir, error),
                None => {
                    Self::Engine { path: path(), source: TantivyError::InternalError(text).into() }
                }
            },
            error => Self::Engine { path: path(), source: error.into() },
        }
    }

    pub(crate) fn from_read(dir: &Path, error: OpenReadError) -> Self {
        match error {
            OpenReadError::FileDoesNotExist(file) if file.ends_with(META_FILE) => {
                Self::Missing { path: dir.to_owned() }
            }
            OpenReadError::FileDoesNotExist(file) => Self::damaged(dir, Some(&file), "is missing"),
            OpenReadError::IoError { io_error, filepath } => {
                Self::read(dir, &filepath, own(io_error))
            }
            OpenReadError::IncompatibleIndex(error) => {
                Self::Unsupported { path: dir.to_owned(), what: format!("{error:?}") }
            }
        }
    }

    pub(crate) fn from_lock(dir: &Path, error: LockError) -> Self {
        match error {
            LockError::LockBusy => Self::Locked { path: dir.to_owned() },
            LockError::IoError(error) => Self::io(dir, own(error)),
        }
    }
}

/// Unwraps the error, so that a caller finds an [`io::Error`] and its kind as the cause.
fn own(error: Arc<io::Error>) -> io::Error {
    Arc::try_unwrap(error).unwrap_or_else(|shared| match shared.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(shared.kind(), shared),
    })
}

/// Reads the system's error from its text: tantivy passes on the I/O errors of its document store by
/// their text alone. Without this, a full disk would look like a defect.
fn os_error(text: &str) -> Option<io::Error> {
    let (_, code) = text.strip_suffix(')')?.rsplit_once("(os error ")?;
    code.parse().ok().map(io::Error::from_raw_os_error)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}

/// Returns file and cause of a `DataCorruption`, whose parts are private. The cause may quote the whole
/// file; that is cut off.
fn corruption(text: &str) -> (Option<PathBuf>, String) {
    let text = text.strip_prefix("Data corruption").unwrap_or(text);
    let (file, cause) = match text.strip_prefix(" (in file `\"").and_then(|t| t.split_once("\"`)"))
    {
        Some((file, cause)) => (Some(PathBuf::from(file)), cause),
        None => (None, text),
    };
    let cause = cause.trim_start_matches(": ").split(" Content: ").next().unwrap_or(cause);
    (file, cause.trim_end_matches(['.', ' ']).to_owned())
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use tantivy::error::DataCorruption;

    use super::*;

    #[test]
    fn a_full_disk_can_be_told_from_damage() {
        let full = Arc::new(io::Error::from(ErrorKind::StorageFull));
        let shared = Arc::clone(&full);
        let error = RetrievalError::from_tantivy(Path::new("/x"), TantivyError::IoError(shared));
        let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(source.kind(), ErrorKind::StorageFull);
        let text = io::Error::from_raw_os_error(28).to_string();
        let error =
            RetrievalError::from_tantivy(Path::new("/x"), TantivyError::InternalError(text));
        assert!(matches!(error, RetrievalError::Io { .. }), "{error:?}");
        let text = "no such (os error".to_owned();
        let error =
            RetrievalError::from_tantivy(Path::new("/x"), TantivyError::InternalError(text));
        assert!(matches!(error, RetrievalError::Engine { .. }), "{error:?}");
        let cut = Arc::new(io::Error::from(ErrorKind::UnexpectedEof));
        let error = RetrievalError::from_tantivy(Path::new("/x"), TantivyError::IoError(cut));
        assert!(matches!(error, RetrievalError::Damaged { .. }));
    }

    #[test]
    fn corruption_is_cut_to_its_cause() {
        let error = |error: DataCorruption| {
            RetrievalError::from_tantivy(Path::new("/x"), error.into()).to_string()
        };
        let comment = "Meta file cannot be deserialized. Bad. Content: \"{...".to_owned();
        assert_eq!(
            error(DataCorruption::new("meta.json".into(), comment)),
            "the index at /x is damaged: meta.json: Meta file cannot be deserialized. Bad"
        );
        assert_eq!(
            error(DataCorruption::comment_only("no terms")),
            "the index at /x is damaged: no terms"
        );
    }

    #[test]
    fn damage_names_folder_and_files() {
        let error = RetrievalError::Damaged {
            path: "/x".into(),
            files: vec!["a.idx".into(), "b.term".into()],
            what: "wrong checksum".into(),
        };
        assert_eq!(error.to_string(), "the index at /x is damaged: a.idx, b.term: wrong checksum");
    }
}
