//! One commit of an index as it was when it was opened, from which tantivy reads.
//!
//! In: a folder. Out: tantivy's index over files that were opened while no writer could remove one.
//! Nothing is read from anywhere else, so later changes by a writer are not seen.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tantivy::Directory;
use tantivy::directory::error::{DeleteError, OpenReadError, OpenWriteError};
use tantivy::directory::{FileHandle, WatchCallback, WatchHandle, WritePtr};
use tantivy::index::IndexMeta;

use crate::checked::{CheckedFile, Failures, OpenFile};
use crate::error::RetrievalError;
use crate::files::read_list;
use crate::kept::{names_by_segment, read_pages};
use crate::names::{MANAGED_FILE, META_FILE};
use crate::seal::is_intact;

/// Bytes that are checked at once; the others are checked when they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Bytes that tantivy reads when it opens the index.
    Opening,
    /// Every byte, including those that only spare reading others.
    All,
}

/// A commit's lists and files.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    dir: PathBuf,
    /// The lists, by name.
    lists: BTreeMap<PathBuf, Vec<u8>>,
    files: OnceLock<BTreeMap<PathBuf, Arc<CheckedFile>>>,
    failures: Failures,
}

/// Damaged files with their faults.
#[derive(Default)]
struct Damages(Vec<(PathBuf, String)>);

impl Damages {
    /// Returns the value; `None` if it is damaged, which is noted.
    fn sort_out<T>(
        &mut self,
        made: Result<T, RetrievalError>,
    ) -> Result<Option<T>, RetrievalError> {
        match made {
            Ok(value) => Ok(Some(value)),
            Err(RetrievalError::Damaged { files, what, .. }) => {
                self.0.extend(files.into_iter().map(|file| (file, what.clone())));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn finish(mut self, dir: &Path) -> Result<(), RetrievalError> {
        self.0.sort();
        let Some((_, what)) = self.0.first().cloned() else { return Ok(()) };
        let files = self.0.into_iter().map(|(file, _)| file).collect();
        Err(RetrievalError::Damaged { path: dir.to_owned(), files, what })
    }
}

impl Snapshot {
    /// Reads the lists. The caller holds the lock under which no writer removes files until
    /// [`Snapshot::open_files`] has returned.
    pub(crate) fn of_lists(dir: &Path) -> Result<Self, RetrievalError> {
        let mut lists = BTreeMap::new();
        for name in [META_FILE, MANAGED_FILE].map(Path::new) {
            match read_list(dir, name) {
                Ok(bytes) => drop(lists.insert(name.to_owned(), bytes)),
                Err(OpenReadError::FileDoesNotExist(_)) => {}
                Err(error) => return Err(RetrievalError::from_read(dir, error)),
            }
        }
        if lists.get(Path::new(META_FILE)).is_some_and(|list| !is_intact(list)) {
            let what = "the checksum is not that of the bytes";
            return Err(RetrievalError::damaged(dir, Some(Path::new(META_FILE)), what));
        }
        let (dir, files, failures) = (dir.to_owned(), OnceLock::new(), Failures::default());
        Ok(Self(Arc::new(Opened { dir, lists, files, failures })))
    }

    /// Opens the files of all segments, and checks the small ones, so that few stay open.
    pub(crate) fn open_files(
        &self,
        metas: &IndexMeta,
        check: Check,
    ) -> Result<Opening, RetrievalError> {
        let Opened { dir, failures, .. } = &*self.0;
        let mut opening = Opening::default();
        for (segment, names) in names_by_segment(metas) {
            let kept = read_pages(dir, &segment);
            let kept = match check {
                Check::All => opening.damages.sort_out(kept)?,
                // The whole segment is read instead of them.
                Check::Opening => kept.ok(),
            };
            let mut kept = kept.flatten().unwrap_or_default();
            for name in names {
                let pages = kept.remove(&name);
                let is_known = pages.is_some();
                let opened = OpenFile::open(dir, &name, pages);
                match opening.damages.sort_out(opened)? {
                    Some(Some(file)) if file.is_paged() => opening.unchecked.push((name, file)),
                    Some(Some(file)) => {
                        let checked = opening.damages.sort_out(file.check(failures))?;
                        opening.checked.extend(checked.map(|file| (name, Arc::new(file))));
                    }
                    // Not every segment has every file.
                    Some(None) if is_known => {
                        opening.damages.0.push((name, "is missing".to_owned()));
                    }
                    Some(None) | None => {}
                }
            }
        }
        Ok(opening)
    }

    /// Checks the remaining files, and makes tantivy read from all of them.
    pub(crate) fn check_files(&self, opening: Opening, check: Check) -> Result<(), RetrievalError> {
        let Opened { dir, failures, files, .. } = &*self.0;
        let Opening { mut checked, unchecked, mut damages } = opening;
        for (name, file) in unchecked {
            let file = file.check(failures).and_then(|file| {
                if check == Check::All {
                    file.parts().try_for_each(|part| part.map(drop))?;
                }
                Ok(file)
            });
            checked.extend(damages.sort_out(file)?.map(|file| (name, Arc::new(file))));
        }
        damages.finish(dir)?;
        // Nobody else has this snapshot yet.
        let _ = files.set(checked);
        Ok(())
    }

    /// The files of all segments, by name.
    pub(crate) fn files(&self) -> &BTreeMap<PathBuf, Arc<CheckedFile>> {
        static NONE: BTreeMap<PathBuf, Arc<CheckedFile>> = BTreeMap::new();
        self.0.files.get().unwrap_or(&NONE)
    }

    /// The bytes of a list, if there is one.
    pub(crate) fn list(&self, name: &str) -> Option<&[u8]> {
        self.0.lists.get(Path::new(name)).map(Vec::as_slice)
    }

    pub(crate) fn failures(&self) -> &Failures {
        &self.0.failures
    }
}

/// Opened files, and the state of their checks.
#[derive(Default)]
pub(crate) struct Opening {
    checked: BTreeMap<PathBuf, Arc<CheckedFile>>,
    unchecked: Vec<(PathBuf, OpenFile)>,
    damages: Damages,
}

impl Directory for Snapshot {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        match self.files().get(path) {
            Some(file) => Ok(Arc::clone(file) as Arc<dyn FileHandle>),
            None => Err(OpenReadError::FileDoesNotExist(path.to_owned())),
        }
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        Ok(self.0.lists.contains_key(path) || self.files().contains_key(path))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        let list = self.0.lists.get(path).cloned();
        list.ok_or_else(|| OpenReadError::FileDoesNotExist(path.to_owned()))
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        let io_error = Arc::new(read_only());
        Err(DeleteError::IoError { io_error, filepath: path.to_owned() })
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        Err(OpenWriteError::wrap_io_error(read_only(), path.to_owned()))
    }

    fn atomic_write(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Err(read_only())
    }

    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}

fn read_only() -> io::Error {
    io::Error::new(ErrorKind::Unsupported, "a commit that was opened cannot be changed")
}
