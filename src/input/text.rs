//! Texts that a command reads: paths in, texts out, decompressed. It does not know what they say.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use hyperrag_files::compressed::{Decompressed, WINDOW_LOG};

/// Opens a file or a pipe, compressed or not. `what` it is, a message says.
pub(crate) fn open(path: &Path, what: &str) -> Result<Decompressed<'static>> {
    let opened = File::open(path).and_then(|file| Decompressed::new(file, WINDOW_LOG));
    opened.with_context(|| format!("{}: {what} cannot be opened", path.display()))
}

/// Reads the text of a file or a pipe, of stdin where `path` is `-`. One of more than `max` bytes is
/// refused: it may have no end. `what` it is, a message says. A byte order mark is left out.
pub(crate) fn read(path: &Path, what: &str, max: u64) -> Result<String> {
    let is_stdin = path == Path::new("-");
    let source: io::Result<Box<dyn Read + Send>> = match is_stdin {
        true => Ok(Box::new(io::stdin())),
        false => File::open(path).map(|file| Box::new(file) as _),
    };
    let source = source.and_then(|source| Decompressed::new(source, WINDOW_LOG));
    let read = source.and_then(|source| hyperrag_engine::text::read(source, max));
    read.with_context(|| match is_stdin {
        true => format!("stdin: {what} cannot be read"),
        false => format!("{}: {what} cannot be read", path.display()),
    })
}
