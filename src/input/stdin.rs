//! Queries line by line from stdin: bytes come in, a query or an error for each line goes out.

use std::io::{self, BufRead};

use anyhow::{Context, Result};
use hyperrag_engine::Query;
use hyperrag_files::lines::{self, Lines};

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

/// Returns a query for each line, named by the line's number, as soon as the line is there.
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
pub(crate) fn lines(reader: impl BufRead) -> impl Iterator<Item = Result<String, LineError>> {
    let (mut lines, mut ended) = (Lines::new(reader, LINE_BYTES_MAX), false);
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        match lines.advance() {
            Ok(false) => None,
            Ok(true) => {
                let text = String::from_utf8(lines.line().to_vec());
                Some(text.map_err(|_| LineError::NotUtf8))
            }
            Err(lines::LineError::TooLong) => Some(Err(LineError::TooLong)),
            Err(lines::LineError::Io(error)) => {
                ended = true;
                Some(Err(LineError::Io(error)))
            }
        }
    })
    .fuse()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

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
