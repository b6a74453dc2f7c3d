//! Texts that a command reads whole.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use hyperrag_files::lines::BYTE_ORDER_MARK;

/// Reads the text of a file or a pipe, of stdin where `path` is `-`. One of more than `max` bytes is
/// refused: it may have no end. `what` it is, a message says. A byte order mark is left out.
pub(crate) fn read(path: &Path, what: &str, max: u64) -> Result<String> {
    let name = path.display();
    let source: io::Result<Box<dyn Read>> = match path == Path::new("-") {
        true => Ok(Box::new(io::stdin())),
        false => File::open(path).map(|file| Box::new(file) as _),
    };
    let mut text = String::new();
    let read = source.and_then(|source| source.take(max + 1).read_to_string(&mut text));
    let read = read.with_context(|| match path == Path::new("-") {
        true => format!("stdin: {what} cannot be read"),
        false => format!("{name}: {what} cannot be read"),
    })?;
    ensure!(read as u64 <= max, "{name}: {what} cannot be read: more than {max} bytes");
    Ok(text.strip_prefix(BYTE_ORDER_MARK).map(str::to_owned).unwrap_or(text))
}
