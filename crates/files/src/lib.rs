//! Opens plain files and refuses everything else, without waiting.
//!
//! In: paths. Out: open files. A pipe blocks whoever opens it, and a device has no end. A link in a program's
//! own folder may lead out of it, and its target would be written to. [`compressed`] decompresses
//! texts, [`lines`] reads them line by line. It knows nothing of what files hold.
//!
//! ```
//! let error = hyperrag_files::open(std::path::Path::new("/")).unwrap_err();
//! assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
//! assert_eq!(error.to_string(), "it is a folder, not a file");
//! ```

pub mod compressed;
pub mod lines;

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Opens a file for reading. Links are followed.
///
/// # Errors
/// [`ErrorKind::InvalidData`] if it is no plain file; else the error of the system.
pub fn open(path: &Path) -> io::Result<File> {
    check(fs::metadata(path)?.file_type())?;
    open_checked(path, File::options().read(true), OFlags::empty())
}

/// Opens a file in a folder of the program's own. With the option `create`, makes it if there is none.
///
/// # Errors
/// [`ErrorKind::InvalidData`] if it is a link or no plain file; else the error of the system.
pub fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(found) => check(found.file_type())?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    open_checked(path, options, OFlags::NOFOLLOW)
}

/// Returns the name under which a file is written before it replaces `path`.
#[must_use]
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

/// Makes a file under the [`temporary`] name of `path`. A file or link that has this name is removed, not
/// written to.
///
/// # Errors
/// [`io::Error`] of the system.
pub fn create_temporary(path: &Path) -> io::Result<File> {
    let partial = temporary(path);
    let create = || File::options().read(true).write(true).create_new(true).open(&partial);
    create().or_else(|error| match error.kind() {
        ErrorKind::AlreadyExists => fs::remove_file(&partial).and_then(|()| create()),
        _ => Err(error),
    })
}

/// Replaces the folder `old` by the folder `new` and removes `old`. If the file system can exchange two
/// names, either is there at any time; otherwise `old` is missing for a moment.
///
/// # Errors
/// [`io::Error`] if the system refuses it. Then `old` is unchanged, or `new` has its place.
pub fn replace_folder(new: &Path, old: &Path) -> io::Result<()> {
    let exchanged = match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
        Ok(()) => true,
        // There is no `old`, or the file system cannot do it.
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            match fs::remove_dir_all(old) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => fs::rename(new, old)?,
            }
            false
        }
        Err(error) => return Err(error.into()),
    };
    // Synced before anything is removed: a loss of power could otherwise keep the removal alone.
    let parent = old.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    if exchanged { fs::remove_dir_all(new) } else { Ok(()) }
}

/// Opens a file whose type was checked, because opening a device can have effects, and checks the type again,
/// because another file may have the name now.
fn open_checked(path: &Path, options: &mut OpenOptions, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

fn check(found: FileType) -> io::Result<()> {
    let what = match found {
        _ if found.is_file() => return Ok(()),
        _ if found.is_symlink() => "a symbolic link",
        _ if found.is_dir() => "a folder",
        _ if found.is_fifo() => "a FIFO",
        _ if found.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(ErrorKind::InvalidData, format!("it is {what}, not a file")))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    fn refused(opened: io::Result<File>) -> String {
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        error.to_string()
    }

    #[test]
    fn plain_files_alone_are_opened_and_links_followed_only_by_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), b"bytes").unwrap();
        symlink(path("file"), path("link")).unwrap();
        symlink("/dev/zero", path("link to a device")).unwrap();
        symlink(path("none"), path("dangling link")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        assert!(Command::new("mkfifo").arg(path("FIFO")).status().unwrap().success());
        let _socket = UnixListener::bind(path("socket")).unwrap();

        let own = |name: &str| open_own(&path(name), File::options().read(true));
        for opened in [open(&path("file")), open(&path("link")), own("file")] {
            let mut text = String::new();
            opened.unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "bytes");
        }
        for name in ["folder", "FIFO", "socket"] {
            let said = format!("it is a {name}, not a file");
            assert_eq!([refused(open(&path(name))), refused(own(name))], [said.clone(), said]);
        }
        assert_eq!(refused(open(&path("link to a device"))), "it is a device, not a file");
        for name in ["link", "dangling link", "link to a device"] {
            assert_eq!(refused(own(name)), "it is a symbolic link, not a file", "{name}");
        }
        for missing in [open(&path("none")), open(&path("dangling link")), own("none")] {
            assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
        }
    }

    #[test]
    fn a_file_is_made_where_there_is_none_and_not_where_a_link_leads() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let make = |name: &str| {
            open_own(&path(name), File::options().write(true).create(true).truncate(false))
        };
        fs::write(path("kept"), b"bytes").unwrap();
        for name in ["kept", "made"] {
            make(name).unwrap();
        }
        assert_eq!(fs::read(path("kept")).unwrap(), b"bytes");
        assert!(path("made").exists());
        symlink(path("none"), path("link")).unwrap();
        refused(make("link"));
        assert!(!path("none").exists());
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
    }

    #[test]
    fn a_folder_takes_the_place_of_another_or_of_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for there in [true, false] {
            fs::create_dir(path("new")).unwrap();
            fs::write(path("new/file"), "new").unwrap();
            if there {
                fs::create_dir(path("old")).unwrap();
                fs::write(path("old/other"), "old").unwrap();
            }
            replace_folder(&path("new"), &path("old")).unwrap();
            let names: Vec<_> = fs::read_dir(path("old")).unwrap().collect();
            assert_eq!((names.len(), path("new").exists()), (1, false));
            assert_eq!(fs::read_to_string(path("old/file")).unwrap(), "new");
            fs::remove_dir_all(path("old")).unwrap();
        }
    }
}
