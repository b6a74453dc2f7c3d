//! Keeps shards open that are read layer by layer, and no more of them than the process may have: one
//! that is not is opened again when it is read.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quick_cache::sync::Cache;
use rustix::process::{Resource, getrlimit};

use crate::fault::Fault;
use crate::open::open_sized;

/// Files that are kept open, where the process may have as many and more.
const FILES_MAX: usize = 8192;

/// Open files by their paths. The copies of a store share it.
pub(crate) struct OpenFiles {
    files: Cache<PathBuf, Arc<File>>,
}

impl OpenFiles {
    /// Takes a quarter of the files that this process may have open.
    pub(crate) fn new() -> Self {
        let allowed = getrlimit(Resource::Nofile).current;
        let kept = allowed.map_or(FILES_MAX, |allowed| (allowed / 4) as usize);
        Self { files: Cache::new(kept.clamp(1, FILES_MAX)) }
    }

    /// The file at `path`, which must have `bytes` bytes.
    pub(crate) fn get(&self, path: &Path, bytes: u64) -> Result<Arc<File>, Fault> {
        let open = || open_sized(path, bytes).map(Arc::new);
        match self.files.get_or_insert_with(path, open) {
            // Others of this process have more open than was thought.
            Err(fault) if fault.is_refusal() => {
                self.files.clear();
                self.files.get_or_insert_with(path, open)
            }
            got => got,
        }
    }

    /// Opens the file at `path` anew when it is next asked for.
    pub(crate) fn close(&self, path: &Path) {
        self.files.remove(path);
    }

    /// The file at `path`, if it is open.
    pub(crate) fn open(&self, path: &Path) -> Option<Arc<File>> {
        self.files.get(path)
    }
}
