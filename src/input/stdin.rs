//! Queries line by line from stdin: bytes come in, a query or an error for each line goes out.

use std::io::{self, BufRead, Read};

use anyhow::{Context, Result};
use hyperrag_engine::Query;

/// Largest length of a line, in bytes, its end aside.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Id of a query, and the query or why there is none.
pub(crate) type NamedQuery = (String, Result<Query>);

/// Reason why a line is no text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// A line longer than [`LINE_BYTES_MAX`].
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Bytes that are no UTF-8.
    #[error("the line is not UTF-8")]
    NotUtf8,
    /// Bytes that cannot be read; no line follows.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
}

/// One query a line, named by its number, as soon as the line is there.
pub(crate) fn queries() -> impl Iterator<Item = NamedQuery> {
    let numbered = (1..).zip(lines(io::stdin().lock()));
    numbered.map(|(number, line): (usize, _)| {
        let id = number.to_string();
        let text = line.with_context(|| format!("stdin:{number}: not readable as text"));
        (id.clone(), text.map(|text| Query { id, text }))
    })
}

/// Returns the lines without their ends, each as soon as it is read. A line that is no text is one error and
/// the next line follows. The byte order mark is left out.
pub(crate) fn lines(mut reader: impl BufRead) -> impl Iterator<Item = Result<String, LineError>> {
    let (mut first, mut ended) = (true, false);
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let line = next_line(&mut reader).transpose()?;
        ended = matches!(line, Err(LineError::Io(_)));
        let mark = std::mem::take(&mut first).then_some('\u{feff}');
        Some(line.map(|line| match mark.and_then(|mark| line.strip_prefix(mark)) {
            Some(line) => line.to_owned(),
            None => line,
        }))
    })
    .fuse()
}

/// Reads to the end of the next line, whatever its length; `None` at the end of all.
fn next_line(reader: &mut impl BufRead) -> Result<Option<String>, LineError> {
    // Room for the line's end, of one or two bytes, and for one byte too many.
    let most = LINE_BYTES_MAX as u64 + 3;
    let mut line = Vec::new();
    reader.by_ref().take(most).read_until(b'\n', &mut line).map_err(LineError::Io)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() as u64 == most && !line.ends_with(b"\n") {
        // The rest of it is no line of its own.
        reader.skip_until(b'\n').map_err(LineError::Io)?;
        return Err(LineError::TooLong);
    }
    let end = line.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |last| last + 1);
    line.truncate(end);
    if line.len() > LINE_BYTES_MAX {
        return Err(LineError::TooLong);
    }
    String::from_utf8(line).map(Some).map_err(|_| LineError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns each line, or the words of its error.
    fn read(bytes: &[u8]) -> Vec<String> {
        lines(bytes).map(|line| line.unwrap_or_else(|error| error.to_string())).collect()
    }

    #[test]
    fn one_line_in_is_one_out() {
        assert_eq!(read("\u{feff}a\r\n\n \n\u{feff}b".as_bytes()), ["a", "", " ", "\u{feff}b"]);
        assert_eq!(read(b"a\n\xff\xfe\nb\n"), ["a", "the line is not UTF-8", "b"]);
        assert!(read(b"").is_empty());
        assert_eq!(read(b"\n\n"), ["", ""]);
    }

    #[test]
    fn the_rest_of_a_long_line_is_no_line() {
        let too_long = LineError::TooLong.to_string();
        for end in ["\n", "\r\n"] {
            // Two bytes a letter, so that every cut falls into one in turn.
            for bytes in [LINE_BYTES_MAX, LINE_BYTES_MAX + 1, LINE_BYTES_MAX + 2, 3 << 20] {
                let long = ["x".repeat(bytes % 2), "é".repeat(bytes / 2)].concat();
                let text = format!("{long}{end}bees{end}");
                let found = read(text.as_bytes());
                assert_eq!(found.len(), 2, "{bytes}");
                let whole = if bytes > LINE_BYTES_MAX { &too_long } else { &long };
                assert!((&found[0], found[1].as_str()) == (whole, "bees"), "{bytes}");
                assert!(read(text.trim_end().as_bytes()) == found, "{bytes}");
                assert_eq!(read(long.as_bytes()).len(), 1, "{bytes}");
            }
        }
    }

    #[test]
    fn a_failure_of_the_system_is_the_last_line() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let found: Vec<_> = lines(io::BufReader::new(b"a\n".chain(Failing))).collect();
        assert!(matches!(found[..], [Ok(_), Err(LineError::Io(_))]), "{found:?}");
    }
}
