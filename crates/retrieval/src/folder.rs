//! The folder of an index, to which tantivy writes.
//!
//! Files are created with the rights that the umask leaves, under names that nothing else has: a link
//! in the place of a file is removed or refused, never followed. Input of a merge is checked like input
//! of a query, so that damaged bytes get no checksum of their own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tantivy::Directory;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    AntiCallToken, DirectoryLock, FileHandle, INDEX_WRITER_LOCK, Lock, TerminatingWrite,
    WatchCallback, WatchHandle, WritePtr,
};
use tantivy::index::{SegmentComponent, SegmentMeta};
use tantivy::indexer::{LogMergePolicy, MergeCandidate, MergePolicy};

use crate::checked::{Failures, OpenFile};
use crate::error::RetrievalError;
use crate::files::{lock, read_list, replace};
use crate::kept::{read_pages, segment_of};
use crate::names::META_FILE;
use crate::seal::seal;

/// Size of stored texts above which a segment is no longer merged, in bytes: a merge reads all of them
/// into memory.
const MERGED_TEXT_BYTES_MAX: u64 = 256 << 20;

/// A folder whose writer's lock is held by its creator as long as tantivy writes.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) dir: Arc<Path>,
}

impl Directory for Folder {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        let open = || {
            let kept = read_pages(&self.dir, segment_of(path))?;
            let pages = kept.and_then(|mut kept| kept.remove(path));
            let file = OpenFile::open(&self.dir, path, pages)?;
            file.map(|file| file.check(&Failures::default())).transpose()
        };
        match open() {
            Ok(Some(file)) => Ok(Arc::new(file)),
            Ok(None) => Err(OpenReadError::FileDoesNotExist(path.to_owned())),
            Err(error) => {
                let error = match error {
                    RetrievalError::Io { source, .. } => source,
                    error => io::Error::new(ErrorKind::InvalidData, error.to_string()),
                };
                Err(OpenReadError::wrap_io_error(error, path.to_owned()))
            }
        }
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        match fs::symlink_metadata(self.dir.join(path)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(OpenReadError::wrap_io_error(error, path.to_owned())),
        }
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        read_list(&self.dir, path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        fs::remove_file(self.dir.join(path)).map_err(|error| match error.kind() {
            ErrorKind::NotFound => DeleteError::FileDoesNotExist(path.to_owned()),
            _ => DeleteError::IoError { io_error: Arc::new(error), filepath: path.to_owned() },
        })
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let file = OpenOptions::new().write(true).create_new(true).open(self.dir.join(path));
        match file {
            Ok(file) => Ok(BufWriter::new(Box::new(NewFile(file)))),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(OpenWriteError::FileAlreadyExists(path.to_owned()))
            }
            Err(error) => Err(OpenWriteError::wrap_io_error(error, path.to_owned())),
        }
    }

    fn atomic_write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        match path == Path::new(META_FILE) {
            true => replace(&self.dir.join(path), &seal(bytes)),
            false => replace(&self.dir.join(path), bytes),
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn acquire_lock(&self, wanted: &Lock) -> Result<DirectoryLock, LockError> {
        match wanted.filepath == INDEX_WRITER_LOCK.filepath {
            true => Ok(DirectoryLock::from(Box::new(()))),
            false => Ok(DirectoryLock::from(Box::new(lock(&self.dir, wanted)?))),
        }
    }

    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}

/// A file that is being written.
struct NewFile(File);

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TerminatingWrite for NewFile {
    fn terminate_ref(&mut self, _: AntiCallToken) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// tantivy's policy, restricted to segments that can be merged in bounded memory.
#[derive(Debug)]
pub(crate) struct BoundedMerges {
    pub(crate) dir: PathBuf,
    pub(crate) policy: LogMergePolicy,
}

impl MergePolicy for BoundedMerges {
    fn compute_merge_candidates(&self, segments: &[SegmentMeta]) -> Vec<MergeCandidate> {
        let is_small = |segment: &&SegmentMeta| {
            let texts = self.dir.join(segment.relative_path(SegmentComponent::Store));
            fs::metadata(texts).is_ok_and(|texts| texts.len() <= MERGED_TEXT_BYTES_MAX)
        };
        let small: Vec<_> = segments.iter().filter(is_small).cloned().collect();
        self.policy.compute_merge_candidates(&small)
    }
}
