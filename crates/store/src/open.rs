//! Opens the files of a store: plain ones alone, and without waiting for anybody.
//!
//! A link may lead out of the store, a pipe blocks whoever opens it, and a device has no end.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::StoreError;
use crate::fault::Fault;
use crate::files::temporary;

/// Opens a file of the store for reading.
pub(crate) fn open_plain(path: &Path) -> Result<File, Fault> {
    open(path, File::options().read(true))
}

/// As [`open_plain`], a file that must have `bytes` bytes.
pub(crate) fn open_sized(path: &Path, bytes: u64) -> Result<File, Fault> {
    let file = open_plain(path)?;
    let length = file.metadata()?.len();
    if length != bytes {
        return Err(format!("{length} bytes, expected {bytes}").into());
    }
    Ok(file)
}

/// Reads all of a file of the store, which has at most `max` bytes.
pub(crate) fn read_plain(path: &Path, max: u64) -> Result<Vec<u8>, Fault> {
    read_bounded(&open_plain(path)?, max)
}

/// Reads all of an open file, which has at most `max` bytes.
pub(crate) fn read_bounded(file: &File, max: u64) -> Result<Vec<u8>, Fault> {
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    if length <= max {
        bytes.try_reserve_exact(length as usize).map_err(|_| ErrorKind::OutOfMemory)?;
        // A file that grows meanwhile is longer than it may be.
        file.take(max + 1).read_to_end(&mut bytes)?;
    }
    match length.max(bytes.len() as u64) {
        length if length > max => Err(format!("{length} bytes, at most {max} are possible").into()),
        _ => Ok(bytes),
    }
}

/// Opens a file of the store that stays and is written to, and makes it where there is none.
pub(crate) fn open_or_create(path: &Path, options: &mut OpenOptions) -> Result<File, Fault> {
    match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => open(path, options),
        made => Ok(made?),
    }
}

/// Makes a file under the temporary name of `path`. What has that name, be it a link to elsewhere,
/// loses it and is not written to.
pub(crate) fn create_temporary(path: &Path) -> Result<File, StoreError> {
    let partial = temporary(path);
    let create = || File::options().read(true).write(true).create_new(true).open(&partial);
    let made = create().or_else(|error| match error.kind() {
        ErrorKind::AlreadyExists => fs::remove_file(&partial).and_then(|()| create()),
        _ => Err(error),
    });
    made.map_err(StoreError::io(&partial, "cannot be made"))
}

fn open(path: &Path, options: &mut OpenOptions) -> Result<File, Fault> {
    // Looked at first, for to open a device may do something.
    check(fs::symlink_metadata(path)?.file_type())?;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits() as i32).open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

fn check(found: FileType) -> Result<(), Fault> {
    if found.is_file() {
        return Ok(());
    }
    let kind = if found.is_symlink() { "a symbolic link" } else { "not a file" };
    Err(format!("it is {kind}; the store's files must be its own").into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_plain_files_are_read_and_only_so_much_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), b"bytes").unwrap();
        fs::create_dir(path("folder")).unwrap();
        symlink(path("file"), path("link")).unwrap();
        symlink("/dev/zero", path("device")).unwrap();
        assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        assert_eq!(read_plain(&path("file"), 5).unwrap(), b"bytes");
        let refused = |path: &Path, max| read_plain(path, max).unwrap_err().to_string();
        assert_eq!(refused(&path("file"), 4), "5 bytes, at most 4 are possible");
        for name in ["link", "device"] {
            assert!(refused(&path(name), 5).contains("a symbolic link"), "{name}");
        }
        for path in [&path("folder"), &path("pipe"), Path::new("/dev/zero")] {
            assert!(refused(path, 5).contains("not a file"), "{}", path.display());
        }
        assert!(matches!(read_plain(&path("none"), 5), Err(Fault::Missing)));
    }

    #[test]
    fn what_has_a_temporary_name_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("other"), b"other").unwrap();
        for link in [true, false] {
            match link {
                true => symlink(path("other"), path("file.tmp")).unwrap(),
                false => fs::hard_link(path("other"), path("file.tmp")).unwrap(),
            }
            create_temporary(&path("file")).unwrap().set_len(9).unwrap();
            assert_eq!(fs::read(path("other")).unwrap(), b"other");
            assert_eq!(fs::symlink_metadata(path("file.tmp")).unwrap().len(), 9);
            fs::remove_file(path("file.tmp")).unwrap();
        }
        symlink(path("none"), path("lock")).unwrap();
        let opened = open_or_create(&path("lock"), File::options().read(true).write(true));
        assert!(opened.unwrap_err().to_string().contains("a symbolic link"));
        assert!(!path("none").exists());
    }
}
