//! Files outside this machine that are read by ranges. In: URLs and ranges. Out: bytes of one version of a file,
//! or a reason. It knows no network and no format.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Classified, ErrorKind};
use crate::tier::TierError;

/// Version of a file that lies outside this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileVersion {
    /// Name of the file, as `s3://BUCKET/KEY`, without secrets and options.
    pub name: String,
    /// Length, in bytes.
    pub bytes: u64,
    /// Text by which the place tells versions apart. An object store calls it `ETag`.
    pub e_tag: String,
}

/// Reason why a range of a file was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The file that was opened is gone: it has other contents now, or there is none.
    #[error("it was replaced or removed while it was in use")]
    Changed,
    /// The place does not give the range.
    #[error(transparent)]
    Place(#[from] TierError),
}

impl Classified for RangeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Changed => ErrorKind::Input,
            Self::Place(error) => error.kind(),
        }
    }
}

/// One version of a file outside this machine. Bytes of another version are never returned.
pub trait RangeRead: Debug + Send + Sync {
    /// Returns the version, as it was found when the file was opened.
    fn version(&self) -> &FileVersion;

    /// Reads a range within the file, all of it, into memory. Faults that may pass are waited out.
    ///
    /// # Errors
    /// [`RangeError`].
    fn read(&self, range: Range<u64>) -> Result<Bytes, RangeError>;
}

/// File in a folder of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderEntry {
    /// Name of the file, as [`FileVersion::name`] will have it.
    pub name: String,
    /// URL by which it is opened.
    pub url: String,
}

/// A place outside this machine.
pub trait RangePlace: Send + Sync {
    /// Opens the file that a URL names, as it is now; `None` if there is none.
    ///
    /// # Errors
    /// [`TierError`], also for a URL that is none of the place's.
    fn open(&self, url: &str) -> Result<Option<Arc<dyn RangeRead>>, TierError>;

    /// Lists the files of a folder, not those of folders below it, sorted by name. A folder that is not there
    /// has none.
    ///
    /// # Errors
    /// [`TierError`], also for a URL that is none of the place's.
    fn list(&self, folder: &str) -> Result<Vec<FolderEntry>, TierError>;
}
