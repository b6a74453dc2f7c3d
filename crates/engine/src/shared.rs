//! A store that several machines share: its place comes in, a local folder with all but the shards goes out. Each
//! file is checked before it gets its name. It knows no command line.

pub mod error;
pub mod place;

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use hyperrag_core::{Digest, Warning};
use hyperrag_files::{create_temporary, open_own, temporary};
use hyperrag_store::{
    CURRENT, CURRENT_BYTES_MAX, Current, LISTING_BYTES_MAX, ListedFile, Listing, Store,
};
use rayon::prelude::*;

use crate::progress::ByteProgress;
use crate::shared::error::ShareError;
use crate::shared::place::SharedPlace;

/// Files that are fetched at one time.
const AT_ONCE: usize = 8;
/// Longest wait for another process that fetches the same store.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Name of the listing in a folder of fetched files.
const LISTING: &str = "listing.json";
/// End of the name of a folder that is not complete.
const PART: &str = ".part";

/// A store whose files were fetched.
#[derive(Clone, Debug)]
pub struct FetchedStore {
    /// Folder with all files of the store but its shards.
    pub root: PathBuf,
    /// Reason why it may not be the last generation.
    pub warning: Option<Warning>,
}

/// Fetches the files of the store at `place` into a folder below `home`, unless they are there. Blocks stay
/// where they are. Several processes may do so at once, and one that was stopped is continued. Where the place
/// cannot be reached, the generation fetched last is taken, with a warning.
///
/// # Errors
/// [`ShareError`]. Files that are already there stay, and the next call goes on from them.
pub fn fetch(
    place: &SharedPlace,
    home: &Path,
    progress: &ByteProgress,
) -> Result<FetchedStore, ShareError> {
    let folder = home.join(&Digest::of(place.name.as_bytes()).to_string()[..32]);
    let failed = |source| ShareError::Place { place: place.name.clone(), source };
    let found = match place.files.read_small(CURRENT, CURRENT_BYTES_MAX) {
        Ok(Some(found)) => found,
        Ok(None) => return Err(ShareError::Nothing { place: place.name.clone() }),
        Err(error) => {
            let last = last_fetched(&folder).filter(|_| error.is_retryable());
            let root = last.ok_or_else(|| failed(error.clone()))?;
            let what = format!(
                "{}: {error}; going on with the generation fetched last, which may be an older one",
                place.name
            );
            return Ok(FetchedStore { root, warning: Some(Warning { what, hint: None }) });
        }
    };
    let current = Current::parse(&found).map_err(|fault| damaged(place, CURRENT, fault))?;
    let root = folder.join(current.short());
    if !root.is_dir() {
        make_folder(&folder)?;
        let _lock = lock(&folder)?;
        if !root.is_dir() {
            fetch_generation(place, &folder, &current, progress)?;
        }
    }
    if read_current(&folder).is_none_or(|there| there != current) {
        write_whole(&folder.join(CURRENT), &current.to_bytes())?;
    }
    Ok(FetchedStore { root, warning: None })
}

fn damaged(place: &SharedPlace, object: &str, fault: impl std::fmt::Display) -> ShareError {
    ShareError::Damaged { place: place.name.clone(), what: format!("{object}: {fault}") }
}

fn read_current(folder: &Path) -> Option<Current> {
    let path = folder.join(CURRENT);
    let file = open_own(&path, File::options().read(true)).ok()?;
    let mut bytes = Vec::new();
    file.take(CURRENT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Current::parse(&bytes).ok()
}

/// Returns the folder of the generation that was fetched last.
fn last_fetched(folder: &Path) -> Option<PathBuf> {
    Some(folder.join(read_current(folder)?.short())).filter(|root| root.is_dir())
}

fn make_folder(folder: &Path) -> Result<(), ShareError> {
    fs::create_dir_all(folder).map_err(ShareError::io(folder, "the folder cannot be made"))
}

/// Waits until no other process fetches into the folder.
fn lock(folder: &Path) -> Result<File, ShareError> {
    let path = folder.join("lock");
    let mut options = File::options();
    let file = open_own(&path, options.read(true).write(true).create(true).truncate(false));
    let file = file.map_err(ShareError::io(&path, "cannot be made"))?;
    let end = Instant::now() + WAIT_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => {
                return Err(ShareError::io(&path, "cannot be locked")(error));
            }
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(ShareError::io(&path, "another process fetches the store")(
                    ErrorKind::TimedOut.into(),
                ));
            }
        }
    }
}

/// Writes a small file in one step.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ShareError> {
    // A name of its own: others may write the same file.
    let own = path.with_file_name(format!(
        "{}.{}",
        path.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let written = create_temporary(&own)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(temporary(&own), path));
    written.map_err(ShareError::io(path, "cannot be written"))
}

/// Fetches what a generation has beside its shards. The folder gets its name when all is there.
fn fetch_generation(
    place: &SharedPlace,
    folder: &Path,
    current: &Current,
    progress: &ByteProgress,
) -> Result<(), ShareError> {
    let part = folder.join(format!("{}{PART}", current.short()));
    make_folder(&part)?;
    let listing = fetch_listing(place, &part, current)?;
    let bytes = listing.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.bytes));
    let bytes =
        bytes.ok_or_else(|| damaged(place, &current.listing, "its lengths are no lengths"))?;
    progress.all.store(bytes, Ordering::Relaxed);
    check_room(&part, &listing, bytes)?;
    let before = fetched_before(folder);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(AT_ONCE).build();
    let fetch = |file: &ListedFile| {
        fetch_file(place, &part, file, &before)?;
        progress.done.fetch_add(file.bytes, Ordering::Relaxed);
        Ok::<(), ShareError>(())
    };
    match pool {
        Ok(pool) => pool.install(|| listing.files.par_iter().try_for_each(fetch)),
        // The system gives no threads.
        Err(_) => listing.files.iter().try_for_each(fetch),
    }?;
    let root = folder.join(current.short());
    fs::rename(&part, &root).map_err(ShareError::io(&root, "cannot be put in place"))?;
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(ShareError::io(folder, "the folder cannot be synced"))?;
    remove_older(folder, &root);
    Ok(())
}

fn fetch_listing(
    place: &SharedPlace,
    part: &Path,
    current: &Current,
) -> Result<Listing, ShareError> {
    let path = part.join(LISTING);
    let parse = |bytes: &[u8]| {
        Listing::parse(bytes, current).map_err(|fault| damaged(place, &current.listing, fault))
    };
    if let Ok(listing) = read_bounded(&path).and_then(|bytes| parse(&bytes)) {
        return Ok(listing);
    }
    get(place, &path, &current.listing, current.bytes)?;
    let bytes = read_bounded(&path)?;
    parse(&bytes).inspect_err(|_| {
        // Best effort: the next call fetches it anew.
        let _ = fs::remove_file(&path);
    })
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, ShareError> {
    let mut bytes = Vec::new();
    let read = open_own(path, File::options().read(true))
        .and_then(|file| file.take(LISTING_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(ShareError::io(path, "cannot be read"))?;
    Ok(bytes)
}

/// Refuses before anything is written what the disk cannot hold.
fn check_room(part: &Path, listing: &Listing, bytes: u64) -> Result<(), ShareError> {
    let there = listing.files.iter().filter_map(|file| {
        fs::symlink_metadata(part.join(&file.path)).ok().map(|found| found.len())
    });
    let needed = bytes.saturating_sub(there.sum());
    let Ok(disk) = rustix::fs::statvfs(part) else { return Ok(()) };
    match disk.f_bavail.saturating_mul(disk.f_frsize) {
        free if free < needed => Err(ShareError::NoRoom { path: part.to_owned(), free, needed }),
        _ => Ok(()),
    }
}

/// Returns the files of the generations that were fetched before, by their objects.
fn fetched_before(folder: &Path) -> HashMap<String, PathBuf> {
    let mut found = HashMap::new();
    for root in generations(folder) {
        let listing = read_bounded(&root.join(LISTING)).ok();
        let listing = listing.and_then(|bytes| Listing::of_own(&bytes));
        for ListedFile { path, object, .. } in listing.into_iter().flat_map(|list| list.files) {
            found.insert(object, root.join(path));
        }
    }
    found
}

/// Lists the folders of complete generations.
fn generations(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let complete = |path: &PathBuf| path.is_dir() && path.extension().is_none();
    entries.filter(complete).collect()
}

/// Brings one file to its place, unless it is there with the right bytes.
fn fetch_file(
    place: &SharedPlace,
    part: &Path,
    file: &ListedFile,
    before: &HashMap<String, PathBuf>,
) -> Result<(), ShareError> {
    let path = part.join(&file.path);
    let is_right = |path: &Path| {
        let found = Store::file_digest(path).ok();
        found == Some((file.bytes, file.blake3))
    };
    if is_right(&path) {
        return Ok(());
    }
    make_folder(path.parent().unwrap_or(part))?;
    if let Some(known) = before.get(&file.object).filter(|known| is_right(known))
        && fs::hard_link(known, &path).is_ok()
    {
        return Ok(());
    }
    get(place, &path, &file.object, file.bytes)?;
    match is_right(&path) {
        true => Ok(()),
        false => {
            let _ = fs::remove_file(&path);
            Err(damaged(place, &file.object, "it does not have the digest that the listing names"))
        }
    }
}

/// Copies an object of this length to `path`, unchecked.
fn get(place: &SharedPlace, path: &Path, object: &str, bytes: u64) -> Result<(), ShareError> {
    let made = create_temporary(path);
    let mut file = made.map_err(ShareError::io(path, "cannot be made"))?;
    let got = match place.files.get_file(object, bytes, &mut file) {
        Ok(Some(got)) if got == bytes => Ok(()),
        Ok(Some(got)) => Err(damaged(place, object, format_args!("{got} bytes, expected {bytes}"))),
        Ok(None) => Err(damaged(place, object, "it is missing")),
        Err(source) => match place.files.file_bytes(object) {
            Ok(Some(there)) if there != bytes => {
                Err(damaged(place, object, format_args!("{there} bytes, expected {bytes}")))
            }
            _ => Err(ShareError::Place { place: place.name.clone(), source }),
        },
    };
    let done = got.and_then(|()| {
        let named = file.sync_all().and_then(|()| fs::rename(temporary(path), path));
        named.map_err(ShareError::io(path, "cannot be written"))
    });
    done.inspect_err(|_| {
        // Best effort: the next call makes it anew.
        let _ = fs::remove_file(temporary(path));
    })
}

/// Removes the generations that were fetched before the last two and that nobody reads. Best effort.
fn remove_older(folder: &Path, newest: &Path) {
    let time = |path: &PathBuf| fs::metadata(path).and_then(|found| found.modified()).ok();
    let mut others = generations(folder);
    others.retain(|path| path != newest);
    others.sort_by_key(time);
    others.pop();
    // Those of generations that were never fetched completely; the lock is held.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let parts = entries.filter(|path| path.to_string_lossy().ends_with(PART));
    for part in parts {
        let _: io::Result<()> = fs::remove_dir_all(part);
    }
    for root in others {
        if Store::is_unread(&root) {
            let _: io::Result<()> = fs::remove_dir_all(&root);
        }
    }
}
