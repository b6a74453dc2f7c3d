//! Keeps the files of shards open, up to a share of the process's limit, and opens the others again when they
//! are read. In: paths. Out: open files. Knows nothing of their contents.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quick_cache::sync::Cache;
use rustix::process::{Resource, getrlimit};

use crate::local::open::open_sized;
use crate::read_error::ReadError;

/// Largest number of files kept open, even if the process may have more.
const FILES_MAX: usize = 8192;

/// Open files by path. The copies of a store share them.
pub(crate) struct OpenFiles {
    files: Cache<PathBuf, Arc<File>>,
}

impl OpenFiles {
    /// Makes room for a quarter of the files that this process may have open.
    pub(crate) fn new() -> Self {
        let allowed = getrlimit(Resource::Nofile).current;
        let kept = allowed.map_or(FILES_MAX, |allowed| (allowed / 4) as usize);
        Self { files: Cache::new(kept.clamp(1, FILES_MAX)) }
    }

    /// Returns the file at `path`, opened if need be. It must have `bytes` bytes.
    pub(crate) fn get(&self, path: &Path, bytes: u64) -> Result<Arc<File>, ReadError> {
        let open = || open_sized(path, bytes).map(Arc::new);
        match self.files.get_or_insert_with(path, open) {
            // Other parts of this process have more files open than assumed.
            Err(fault) if fault.is_refusal() => {
                self.files.clear();
                self.files.get_or_insert_with(path, open)
            }
            got => got,
        }
    }

    /// Drops the file at `path`, so that it is opened anew when next asked for.
    pub(crate) fn close(&self, path: &Path) {
        self.files.remove(path);
    }

    /// Returns the file at `path` if it is open.
    pub(crate) fn open(&self, path: &Path) -> Option<Arc<File>> {
        self.files.get(path)
    }
}
