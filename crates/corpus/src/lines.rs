//! Reads a text line by line: an open text and a length limit come in, lines with their numbers go out. Knows
//! nothing of what a line means.

use hyperrag_files::lines::{LineError, Lines};

use crate::error::CorpusError;
use crate::place::Place;
use crate::source::Text;

/// Reader of the lines of a text that are not blank, one at a time.
pub(crate) struct LineReader {
    lines: Lines<Text>,
    line_bytes_max: usize,
}

impl LineReader {
    pub(crate) fn new(text: Text, line_bytes_max: usize) -> Self {
        Self { lines: Lines::new(text, line_bytes_max), line_bytes_max }
    }

    /// Goes to the next line that is not blank. `false` at the end of the file. After a line that is too
    /// long, the following one comes next.
    pub(crate) fn advance(&mut self) -> Result<bool, CorpusError> {
        loop {
            match self.lines.advance() {
                Ok(false) => return Ok(false),
                Ok(true) if self.lines.line().iter().all(u8::is_ascii_whitespace) => {}
                Ok(true) => return Ok(true),
                Err(LineError::TooLong) => {
                    let bytes_max = self.line_bytes_max;
                    return Err(CorpusError::LineTooLong { place: self.place(), bytes_max });
                }
                Err(LineError::Io(error)) => {
                    let text = self.lines.reader();
                    return Err(text.unreadable(error, text.line(self.lines.number() + 1)));
                }
            }
        }
    }

    /// Returns the line without its end.
    pub(crate) fn text(&self) -> Result<&str, CorpusError> {
        std::str::from_utf8(self.lines.line()).map_err(|error| CorpusError::NotUtf8 {
            place: self.place(),
            byte: error.valid_up_to() + 1,
        })
    }

    /// Returns the place of the line.
    pub(crate) fn place(&self) -> Place {
        self.lines.reader().line(self.lines.number())
    }

    /// Returns the bytes of the file read since the last call.
    pub(crate) fn take_bytes(&mut self) -> u64 {
        let bytes = self.lines.take_bytes();
        self.lines.reader().stored_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::limits::Limits;
    use crate::source::Source;
    use crate::testing::Folder;

    /// Returns the lines as `number:text` with `|` between, and the error that ended them.
    fn read(bytes: &[u8], line_bytes_max: usize) -> String {
        let folder = Folder::new();
        let path = folder.write("lines.tsv", bytes);
        let source = Source::of_file(Path::new(&path), 0);
        let text = source.open(&Limits::default()).unwrap();
        let mut lines = LineReader::new(text, line_bytes_max);
        let (mut out, mut total) = (Vec::new(), 0);
        let end = loop {
            match lines.advance() {
                Ok(false) => break None,
                Err(error) => break Some(error),
                Ok(true) => {}
            }
            total += lines.take_bytes();
            match lines.text() {
                Ok(text) => out.push(format!("{}:{text}", lines.place().row)),
                Err(error) => break Some(error),
            }
        };
        match end {
            Some(error) => out.push(error.to_string().replace(folder.path(), "DIR")),
            None => assert_eq!(total + lines.take_bytes(), bytes.len() as u64),
        }
        out.join("|")
    }

    #[test]
    fn lines_are_split_and_checked() {
        let check = |bytes: &[u8], expected: &str| {
            assert_eq!(read(bytes, 8), expected, "{}", bytes.escape_ascii());
        };
        check(b"", "");
        check(b"a", "1:a");
        check(b"a\nb\n", "1:a|2:b");
        check(b"a\r\nb\r\n\r\n", "1:a|2:b");
        check(b"\n \t\n\na\n", "4:a");
        check(b"a \t\n", "1:a \t");
        check("\u{feff}a\n\u{feff}b".as_bytes(), "1:a|2:\u{feff}b");
        check("\u{feff}\n".as_bytes(), "");
        check(b"12345678\n12345678", "1:12345678|2:12345678");
        let long = "DIR/lines.tsv:2: the line is longer than 8 bytes, the limit";
        check(b"a\n123456789\nb", &format!("1:a|{long}"));
        check(b"a\n123456789", &format!("1:a|{long}"));
        let utf8 =
            "DIR/lines.tsv:2: not valid UTF-8 at byte 3 of the line; convert the file to UTF-8";
        check(b"a\nxy\xff\nb", &format!("1:a|{utf8}"));
    }
}
