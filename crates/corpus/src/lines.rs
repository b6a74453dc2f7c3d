//! Reads a text file line by line: a file and a length limit come in, lines with their numbers go out. Knows
//! nothing of what a line means.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use crate::error::CorpusError;
use crate::place::Place;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reader of the lines of a text file that are not blank, one at a time.
pub(crate) struct LineReader {
    reader: BufReader<File>,
    file: Arc<Path>,
    line_bytes_max: usize,
    number: u64,
    line: Vec<u8>,
    bytes: u64,
}

impl LineReader {
    pub(crate) fn open(file: &Arc<Path>, line_bytes_max: usize) -> Result<Self, CorpusError> {
        let reader = match File::open(file) {
            Ok(reader) => BufReader::with_capacity(1 << 16, reader),
            Err(source) => return Err(CorpusError::Io { path: file.to_path_buf(), source }),
        };
        let file = Arc::clone(file);
        Ok(Self { reader, file, line_bytes_max, number: 0, line: Vec::new(), bytes: 0 })
    }

    /// Goes to the next line that is not blank. `false` at the end of the file.
    pub(crate) fn advance(&mut self) -> Result<bool, CorpusError> {
        while self.read_line()? {
            if !self.line.iter().all(u8::is_ascii_whitespace) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the line without its end.
    pub(crate) fn text(&self) -> Result<&str, CorpusError> {
        std::str::from_utf8(&self.line).map_err(|error| CorpusError::NotUtf8 {
            place: self.place(),
            byte: error.valid_up_to() + 1,
        })
    }

    /// Returns the place of the line.
    pub(crate) fn place(&self) -> Place {
        Place { file: Arc::clone(&self.file), row: self.number }
    }

    /// Returns the bytes of the file read since the last call.
    pub(crate) fn take_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }

    fn read_line(&mut self) -> Result<bool, CorpusError> {
        self.line.clear();
        // One byte more for the line end. A longer line is noticed without reading all of it.
        let mut reader = (&mut self.reader).take(self.line_bytes_max as u64 + 1);
        let read = reader
            .read_until(b'\n', &mut self.line)
            .map_err(|source| CorpusError::Io { path: self.file.to_path_buf(), source })?;
        self.bytes += read as u64;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        if self.line.ends_with(b"\n") {
            self.line.pop();
        } else if self.line.len() > self.line_bytes_max {
            let bytes_max = self.line_bytes_max;
            return Err(CorpusError::LineTooLong { place: self.place(), bytes_max });
        }
        if self.line.ends_with(b"\r") {
            self.line.pop();
        }
        if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    /// Returns the lines as `number:text` with `|` between, and the error that ended them.
    fn read(bytes: &[u8], line_bytes_max: usize) -> String {
        let folder = Folder::new();
        let path = folder.write("lines.tsv", bytes);
        let mut lines = LineReader::open(&Path::new(&path).into(), line_bytes_max).unwrap();
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
