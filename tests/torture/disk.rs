//! A disk that fails on demand, below the program: see `faulty_disk.c`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// ENOSPC and EIO.
pub(crate) const FULL: &str = "28";
pub(crate) const BROKEN: &str = "5";

/// A fault of one call to the system, or of all calls from that one on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadError {
    /// Kinds of calls that are counted.
    pub(crate) kinds: &'static str,
    /// Number of an error, `short` or `kill`.
    pub(crate) action: &'static str,
    pub(crate) stays: bool,
}

/// A recorded call to the system.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) kind: char,
    /// Whether the fault hit this call.
    pub(crate) faulty: bool,
    pub(crate) done: bool,
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) path: PathBuf,
    pub(crate) other: PathBuf,
    /// Bytes of a write.
    pub(crate) data: Vec<u8>,
}

impl Call {
    /// Describes the call and its file.
    pub(crate) fn place(&self) -> String {
        format!("{} {}", self.name, self.path.display())
    }
}

/// Compiles the library, once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faulty_disk.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torture/faulty_disk.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]);
        let compiled = compiler.arg("-o").arg(&library).arg(source).status();
        assert!(compiled.is_ok_and(|status| status.success()), "cc does not compile {source}");
        library
    })
}

/// Runs `command` on a disk below `root` that records its calls and fails at the call `nth`.
pub(crate) fn attach(
    command: &mut Command,
    root: &Path,
    record: &Path,
    fault: Option<(ReadError, usize)>,
) {
    command.env("LD_PRELOAD", library()).env("FAULTY_ROOT", root).env("FAULTY_RECORD", record);
    if let Some((ReadError { kinds, action, stays }, nth)) = fault {
        command.env("FAULTY_KINDS", kinds).env("FAULTY_ACTION", action);
        command.env("FAULTY_NTH", nth.to_string());
        if stays {
            command.env("FAULTY_STAYS", "1");
        }
    }
}

/// Reads the calls in a record.
pub(crate) fn calls(record: &Path) -> Vec<Call> {
    let bytes = fs::read(record).unwrap();
    let (mut rest, mut calls) = (&bytes[..], Vec::new());
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(&rest[..end]).unwrap();
        rest = &rest[end + 1..];
        let fields: Vec<&str> = line.split('\t').collect();
        let [kind, state, name, offset, length, path, other] = fields[..] else {
            panic!("a record is not a call: {line}");
        };
        let length: usize = length.parse().unwrap();
        let data = rest[..length].to_vec();
        rest = &rest[length..];
        calls.push(Call {
            kind: kind.chars().next().unwrap(),
            faulty: state == "!",
            done: state == "+",
            name: name.to_owned(),
            offset: offset.parse().unwrap(),
            path: path.into(),
            other: other.into(),
            data,
        });
    }
    calls
}
