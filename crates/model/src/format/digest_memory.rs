//! Remembers digests between processes, so that weights are not hashed at every start.
//!
//! In: open files, a text that says what is hashed of them, and a function that hashes. Out: the
//! digest. A file counts as unchanged while its device, inode, length, and times of modification and
//! status change stay the same; no program can set the last one. A digest that cannot be kept is
//! computed again next time.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use hyperrag_core::Digest;

use crate::error::LoadError;

/// Age of a file's last change from which on another change has another time, in seconds. File systems
/// count in steps of up to two seconds.
const SETTLED_SECONDS: i64 = 3;

/// Largest number of kept digests. Beyond it all are forgotten, because those of changed files stay
/// behind.
const KEPT_MAX: usize = 256;

/// Size of a kept digest, in bytes: two lines of hexadecimal digits.
const KEPT_BYTES: usize = 2 * 65;

/// A folder with a small file for each digest.
#[derive(Clone, Debug)]
pub(crate) struct DigestMemory {
    folder: PathBuf,
}

impl DigestMemory {
    pub(crate) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Returns the earlier result of `compute` for these files and this `what`. If none is remembered,
    /// calls `compute`.
    pub(crate) fn digest(
        &self,
        files: &[&File],
        what: &str,
        compute: impl FnOnce() -> Result<Digest, LoadError>,
    ) -> Result<Digest, LoadError> {
        let Ok((stamps, settled)) = stamps(files) else { return compute() };
        let key = Digest::of(format!("{stamps}{what}").as_bytes());
        if let Some(digest) = self.recall(key) {
            return Ok(digest);
        }
        let digest = compute()?;
        let unchanged = self::stamps(files).is_ok_and(|(after, _)| after == stamps);
        if settled && unchanged {
            // If the folder cannot be written, only time is lost.
            let _ = self.keep(key, digest);
        }
        Ok(digest)
    }

    fn recall(&self, key: Digest) -> Option<Digest> {
        let mut text = String::new();
        let file = hyperrag_files::open(&self.path(key)).ok()?;
        file.take(KEPT_BYTES as u64 + 1).read_to_string(&mut text).ok()?;
        let digest = Digest::from_hex(text.lines().next()?)?;
        (text == lines(key, digest)).then_some(digest)
    }

    fn keep(&self, key: Digest, digest: Digest) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        if fs::read_dir(&self.folder)?.count() >= KEPT_MAX {
            fs::remove_dir_all(&self.folder)?;
            fs::create_dir(&self.folder)?;
        }
        let path = self.path(key);
        hyperrag_files::create_temporary(&path)?.write_all(lines(key, digest).as_bytes())?;
        fs::rename(hyperrag_files::temporary(&path), path)
    }

    fn path(&self, key: Digest) -> PathBuf {
        self.folder.join(key.to_string())
    }
}

/// Returns the digest and a digest of key and digest: a flipped bit or a renamed file is noticed.
fn lines(key: Digest, digest: Digest) -> String {
    let both = Digest::of([key.0, digest.0].as_flattened());
    format!("{digest}\n{both}\n")
}

/// Returns a line for each file that changes with the file, and whether the next change would show in
/// it.
fn stamps(files: &[&File]) -> io::Result<(String, bool)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
    let (mut text, mut settled) = (String::new(), true);
    for file in files {
        let m = file.metadata()?;
        let changed = m.ctime().max(m.mtime());
        settled &= changed.saturating_add(SETTLED_SECONDS) <= now.cast_signed();
        let (modified, changed) = ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
        let _ = writeln!(text, "{} {} {} {modified:?} {changed:?}", m.dev(), m.ino(), m.len());
    }
    Ok((text, settled))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    use super::*;

    const LONG_AGO: Duration = Duration::from_secs(1_000_000);

    /// Returns a memory, and a file whose last change is settled.
    fn memory() -> (tempfile::TempDir, DigestMemory, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        fs::write(&path, b"weights").unwrap();
        let file = File::options().read(true).write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - LONG_AGO).unwrap();
        while !stamps(&[&file]).unwrap().1 {
            std::thread::sleep(Duration::from_millis(100));
        }
        let memory = DigestMemory::at(&folder.path().join("home/digests"));
        (folder, memory, file)
    }

    /// Whether the digest had to be computed.
    fn computes(memory: &DigestMemory, file: &File, what: &str) -> bool {
        let mut computed = false;
        let digest = memory.digest(&[file], what, || {
            computed = true;
            Ok(Digest::of(what.as_bytes()))
        });
        assert_eq!(digest.unwrap(), Digest::of(what.as_bytes()));
        computed
    }

    #[test]
    fn a_digest_is_computed_once_and_again_after_a_change() {
        let (_folder, memory, file) = memory();
        assert_eq!(
            ["a", "a", "b", "b"].map(|what| computes(&memory, &file, what)),
            [true, false, true, false]
        );
        // Same length, and the time of modification set back.
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"changed", 0).unwrap();
        file.set_modified(modified).unwrap();
        assert!(computes(&memory, &file, "a"));
        assert!(computes(&memory, &file, "a"), "a change that is not settled is not kept");
    }

    #[test]
    fn a_file_that_changes_while_it_is_hashed_is_not_kept() {
        let (_folder, memory, file) = memory();
        let digest = memory.digest(&[&file], "a", || {
            file.set_len(3).unwrap();
            Ok(Digest::of(b"a"))
        });
        assert_eq!(digest.unwrap(), Digest::of(b"a"));
        assert!(!memory.folder.exists());
    }

    #[test]
    fn what_is_kept_is_checked_and_bounded() {
        let (_folder, memory, file) = memory();
        assert!(computes(&memory, &file, "a"));
        let path = fs::read_dir(&memory.folder).unwrap().next().unwrap().unwrap().path();
        let kept = fs::read(&path).unwrap();
        for at in 0..kept.len() {
            let mut changed = kept.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(computes(&memory, &file, "a"), "byte {at}");
            assert_eq!(fs::read(&path).unwrap(), kept);
        }
        for other in ["b", "c"] {
            assert!(computes(&memory, &file, other));
        }
        (0..KEPT_MAX).for_each(|i| fs::write(memory.folder.join(i.to_string()), b"").unwrap());
        assert!(computes(&memory, &file, "d") && !computes(&memory, &file, "d"));
        assert_eq!(fs::read_dir(&memory.folder).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_only_time() {
        let (folder, _, file) = memory();
        let memory = DigestMemory::at(&folder.path().join("weights/digests"));
        assert!(computes(&memory, &file, "a") && computes(&memory, &file, "a"));
    }
}
