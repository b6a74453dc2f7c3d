use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use hyperrag_kv::BlockError;

use crate::StoreError;

/// Why a file's bytes can not be used; whoever knows the place makes an error or a [`crate::Damage`]
/// of it.
#[derive(Debug)]
pub(crate) enum Fault {
    Damaged(String),
    Io(io::Error),
}

impl Fault {
    pub(crate) fn at_block(self, place: String) -> BlockError {
        match self {
            Self::Damaged(what) => BlockError::Damaged { place, what },
            Self::Io(source) => BlockError::Io { place, source },
        }
    }

    pub(crate) fn of_file(self, path: &Path) -> StoreError {
        match self {
            Self::Damaged(what) => StoreError::damaged(path, what),
            Self::Io(source) => StoreError::io(path, "cannot be read")(source),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) => f.write_str(what),
            Self::Io(source) => write!(f, "it cannot be read ({source})"),
        }
    }
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self::Damaged(what)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Damaged("the file is missing".to_owned()),
            ErrorKind::UnexpectedEof => Self::Damaged("the file is cut short".to_owned()),
            _ => Self::Io(error),
        }
    }
}

/// Opens a file of the store that must have `bytes` bytes.
pub(crate) fn open_plain(path: &Path, bytes: u64) -> Result<File, Fault> {
    let file = open_any_length(path)?;
    let length = file.metadata()?.len();
    if length != bytes {
        return Err(format!("{length} bytes, expected {bytes}").into());
    }
    Ok(file)
}

/// Opens a file of the store. A link is refused, for it may lead out of the store, and so is a pipe,
/// which would block.
pub(crate) fn open_any_length(path: &Path) -> Result<File, Fault> {
    let found = fs::symlink_metadata(path)?.file_type();
    if !found.is_file() {
        let kind = if found.is_symlink() { "a symbolic link" } else { "not a file" };
        return Err(format!("it is {kind}; the store's files must be its own").into());
    }
    Ok(File::open(path)?)
}
