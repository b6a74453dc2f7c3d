//! The place in which many processes build one store. In: a folder or a URL. Out: small files that are made once,
//! and files of shards that are stored and fetched. It knows no model and no corpus.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyperrag_core::{FileTier, Swapped, TierError};
use hyperrag_store::{
    BUILD, BuildPlan, CURRENT, CURRENT_BYTES_MAX, Current, PLAN_BYTES_MAX, SPAN_BYTES_MAX,
};
use hyperrag_tiers::FolderTier;

use crate::build::nonce::random;
use crate::build::partition_error::PartitionError;
use crate::open::tiers::TierLogins;
use crate::shared::error::ShareError;
use crate::shared::place::{SharedPlace, is_url};

/// Times that a request is made before its error is final.
const ATTEMPTS: u32 = 8;
/// Wait after the first failure. It doubles each time.
const PAUSE: Duration = Duration::from_millis(20);
/// Start of the names of files that the merged store does not have, where it lies beside them.
const BUILD_START: &str = "build/";
/// Folder for files on their way to a folder of this machine.
const SCRATCH: &str = "work";
/// Name of the plan.
pub(crate) const PLAN: &str = "plan.json";

/// A place in which many processes build one store.
#[derive(Clone)]
pub struct BuildPlace {
    /// Name of the place, without secrets.
    pub name: String,
    /// Folder of the store, if it is one of this machine.
    pub folder: Option<PathBuf>,
    /// Place to which the merged store is exported, if it is none.
    pub shared: Option<SharedPlace>,
    files: Arc<dyn FileTier>,
    /// Start of the names of files that the merged store does not have.
    start: &'static str,
}

/// Result of making a small file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// The file has the bytes that were to be written.
    Own,
    /// Another writer was faster: its bytes.
    Other(Vec<u8>),
}

impl fmt::Debug for BuildPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildPlace").field("name", &self.name).finish_non_exhaustive()
    }
}

impl BuildPlace {
    /// Opens a folder, `file:///FOLDER` or `s3://BUCKET/PREFIX`. Secrets come from `logins`.
    ///
    /// # Errors
    /// [`PartitionError::NoShards`] for a place of single blocks, [`PartitionError::Place`] for a text that names
    /// no place.
    pub fn open(store: &Path, logins: &TierLogins) -> Result<Self, PartitionError> {
        let Some(url) = store.to_str().filter(|text| is_url(text)) else {
            let files = Arc::new(FolderTier::new(&store.join(BUILD)));
            return Ok(Self { folder: Some(store.to_owned()), ..Self::of(files, store.display()) });
        };
        let shared = SharedPlace::open(url, logins)?;
        if !shared.whole_shards {
            return Err(PartitionError::NoShards { place: shared.name });
        }
        let place = Self::of(Arc::clone(&shared.files), &shared.name);
        Ok(Self { start: BUILD_START, shared: Some(shared), ..place })
    }

    /// Takes a place of files, below which all files of the build get their names.
    #[must_use]
    pub fn of(files: Arc<dyn FileTier>, name: impl fmt::Display) -> Self {
        Self { name: name.to_string(), folder: None, shared: None, files, start: "" }
    }

    fn failed(&self, source: TierError) -> ShareError {
        ShareError::Place { place: self.name.clone(), source }
    }

    /// Returns the name of a file that the merged store does not have.
    fn own(&self, name: &str) -> String {
        format!("{}{name}", self.start)
    }

    /// Makes a small file, if there is none. After any answer but success it is read back: an answer may be lost
    /// though the file is there, and a conflict may be told though it is not. So `bytes` should be those of no
    /// other writer, unless equal bytes of another will do.
    ///
    /// # Errors
    /// [`ShareError::Place`] if the place does not answer after several attempts.
    pub fn create(&self, name: &str, bytes: &[u8]) -> Result<Created, ShareError> {
        let own = self.own(name);
        let mut attempt = 0;
        loop {
            let answer = self.files.swap_small(&own, None, bytes);
            if answer == Ok(Swapped::Done) {
                return Ok(Created::Own);
            }
            if let Err(error) = &answer
                && !error.is_retryable()
            {
                return Err(self.failed(error.clone()));
            }
            match self.read(name)? {
                Some(found) if found == bytes => return Ok(Created::Own),
                Some(found) => return Ok(Created::Other(found)),
                None => {}
            }
            attempt += 1;
            if attempt == ATTEMPTS {
                let said = format!("{own} cannot be made, and is not there");
                return Err(self.failed(answer.err().unwrap_or(TierError::Protocol(said))));
            }
            pause(attempt);
        }
    }

    /// Gives a small file the contents `new`, if it has `old`. Tells whether it has them now.
    ///
    /// # Errors
    /// [`TierError`]: the file may be either.
    pub fn swap(&self, name: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, TierError> {
        Ok(self.files.swap_small(&self.own(name), old, new)? == Swapped::Done)
    }

    /// Reads a small file; `None` if there is none.
    ///
    /// # Errors
    /// [`ShareError::Place`] if the place does not answer after several attempts.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, ShareError> {
        self.read_up_to(name, PLAN_BYTES_MAX.max(SPAN_BYTES_MAX))
    }

    /// Reads a file of at most `bytes_max` bytes into memory, see [`BuildPlace::read`].
    pub(crate) fn read_up_to(
        &self,
        name: &str,
        bytes_max: u64,
    ) -> Result<Option<Vec<u8>>, ShareError> {
        let read = retried(|| self.files.read_small(&self.own(name), bytes_max));
        Ok(read.map_err(|error| self.failed(error))?.map(|bytes| bytes.to_vec()))
    }

    /// Reads the plan; `None` if nobody has begun to build.
    ///
    /// # Errors
    /// [`PartitionError::Damaged`] if it is not what was written.
    pub fn plan(&self) -> Result<Option<BuildPlan>, PartitionError> {
        let found = self.read(PLAN)?;
        found.map(|bytes| self.parsed(&bytes)).transpose()
    }

    /// Reads which store was exported to the place; `None` if there is none.
    ///
    /// # Errors
    /// [`PartitionError::Damaged`] if the file that says so is not what was written.
    pub(crate) fn exported(&self) -> Result<Option<Current>, PartitionError> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let found = retried(|| shared.files.read_small(CURRENT, CURRENT_BYTES_MAX));
        let found = found.map_err(|error| self.failed(error))?;
        let current = found.map(|bytes| Current::parse(&bytes)).transpose();
        current.map_err(|fault| self.damaged(format!("{CURRENT}: {fault}")))
    }

    /// Makes the plan, unless there is one, and returns the one that is there then.
    ///
    /// # Errors
    /// See [`BuildPlace::plan`].
    pub fn make_plan(&self, plan: BuildPlan) -> Result<BuildPlan, PartitionError> {
        match self.create(PLAN, &plan.to_bytes())? {
            Created::Own => Ok(plan),
            Created::Other(bytes) => self.parsed(&bytes),
        }
    }

    fn parsed(&self, bytes: &[u8]) -> Result<BuildPlan, PartitionError> {
        let plan = BuildPlan::parse(bytes);
        plan.map_err(|fault| self.damaged(format!("{}: {fault}", self.own(PLAN))))
    }

    /// Returns the error of an object that is not what was written.
    pub(crate) fn damaged(&self, what: String) -> PartitionError {
        PartitionError::Damaged { place: self.name.clone(), what }
    }

    /// Stores a file of the merged store, unless it is there with its length. The file is removed here.
    pub(crate) fn take(&self, object: &str, from: &Path) -> Result<(), ShareError> {
        let bytes = fs::metadata(from).map_err(ShareError::io(from, "cannot be read"))?.len();
        let there = || retried(|| self.files.file_bytes(object));
        if there().map_err(|error| self.failed(error))? != Some(bytes) {
            let taken = retried(|| self.files.take_file(object, from));
            taken.map_err(|error| self.failed(error))?;
            if there().map_err(|error| self.failed(error))? != Some(bytes) {
                let what = format!("{object}: it does not have the {bytes} bytes that were stored");
                return Err(ShareError::Damaged { place: self.name.clone(), what });
            }
        }
        // Best effort: the folder is removed with all that is in it.
        let _ = fs::remove_file(from);
        Ok(())
    }

    /// Stores a file that the merged store does not have, see [`BuildPlace::take`].
    pub(crate) fn take_own(&self, object: &str, from: &Path) -> Result<(), ShareError> {
        self.take(&self.own(object), from)
    }

    /// Copies a file of the merged store to `to`, unchecked.
    pub(crate) fn get(
        &self,
        object: &str,
        bytes_max: u64,
        to: &Path,
    ) -> Result<(), PartitionError> {
        let mut attempt = 0;
        loop {
            let mut file = File::create(to).map_err(ShareError::io(to, "cannot be made"))?;
            match self.files.get_file(object, bytes_max, &mut file) {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => return Err(self.damaged(format!("{object}: it is missing"))),
                Err(error) if error.is_retryable() && attempt < ATTEMPTS => {
                    attempt += 1;
                    pause(attempt);
                }
                Err(error) => return Err(self.failed(error).into()),
            }
        }
    }

    /// Copies a file that the merged store does not have, see [`BuildPlace::get`].
    pub(crate) fn get_own(&self, object: &str, max: u64, to: &Path) -> Result<(), PartitionError> {
        self.get(&self.own(object), max, to)
    }

    /// Returns the folder for files that are on their way to the place; `None` if the place is no folder of this
    /// machine.
    #[must_use]
    pub fn scratch(&self) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(BUILD).join(SCRATCH))
    }

    /// Returns the path of a file on this machine; `None` if the place is none of its folders.
    pub(crate) fn path(&self, object: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(BUILD).join(object))
    }
}

/// Waits before the next attempt, longer each time, and not as long as others.
fn pause(attempt: u32) {
    let longest = PAUSE * 2_u32.pow(attempt.min(7));
    let share = 500 + random() % 500;
    thread::sleep(longest * u32::try_from(share).unwrap_or(1000) / 1000);
}

/// Makes a request again while that may help.
fn retried<T>(mut request: impl FnMut() -> Result<T, TierError>) -> Result<T, TierError> {
    let mut attempt = 0;
    loop {
        match request() {
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => {
                attempt += 1;
                pause(attempt);
            }
            done => return done,
        }
    }
}
