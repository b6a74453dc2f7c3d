//! Lines of a text, one at a time: bytes and a length limit come in, numbered lines without their ends go out.
//! A byte order mark before the first line is left out. It knows nothing of what a line means.

use std::io::{self, BufRead};

/// Byte order mark that some programs put before a text in UTF-8.
pub const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Reader of the lines of a text, in bounded memory.
///
/// ```
/// let mut lines = hyperrag_files::lines::Lines::new(&b"\xef\xbb\xbfa\r\nb"[..], 80);
/// assert!(lines.advance().unwrap());
/// assert_eq!((lines.number(), lines.line()), (1, &b"a"[..]));
/// ```
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    bytes_max: usize,
    number: u64,
    line: Vec<u8>,
    bytes: u64,
    /// Whether the rest of a line that is too long is still to be passed over.
    unfinished: bool,
}

/// Reason why a line was not read.
#[derive(Debug)]
pub enum LineError {
    /// The line is longer than the limit. The next one can be read.
    TooLong,
    /// The text cannot be read.
    Io(io::Error),
}

impl<R: BufRead> Lines<R> {
    /// Reads lines of at most `bytes_max` bytes, their ends not counted.
    pub fn new(reader: R, bytes_max: usize) -> Self {
        Self { reader, bytes_max, number: 0, line: Vec::new(), bytes: 0, unfinished: false }
    }

    /// Goes to the next line. `false` at the end of the text.
    ///
    /// # Errors
    /// [`LineError`]. After [`LineError::TooLong`] the following line comes next.
    pub fn advance(&mut self) -> Result<bool, LineError> {
        self.line.clear();
        if self.unfinished {
            self.pass_over().map_err(LineError::Io)?;
            self.unfinished = false;
        }
        // Two bytes more for the line end. A longer line is noticed without reading all of it.
        let most = self.bytes_max as u64 + 2;
        let read = io::Read::take(&mut self.reader, most).read_until(b'\n', &mut self.line);
        let read = read.map_err(LineError::Io)? as u64;
        self.bytes += read;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        let ended = self.line.pop_if(|byte| *byte == b'\n').is_some();
        if ended || read < most {
            self.line.pop_if(|byte| *byte == b'\r');
        }
        if self.line.len() > self.bytes_max {
            self.line.clear();
            self.unfinished = !ended;
            return Err(LineError::TooLong);
        }
        if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK.as_bytes()) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(true)
    }

    /// Returns the line without its end.
    #[must_use]
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Returns the number of the line, counted from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the reader below.
    pub fn reader(&self) -> &R {
        &self.reader
    }

    /// Returns the bytes of the text read since the last call.
    pub fn take_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }

    /// Reads up to the end of the line and keeps nothing.
    fn pass_over(&mut self) -> io::Result<()> {
        loop {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let passed = end.map_or(buffer.len(), |end| end + 1);
            self.reader.consume(passed);
            self.bytes += passed as u64;
            if end.is_some() || passed == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> String {
        let (mut lines, mut out, mut bytes) = (Lines::new(text, 4), Vec::new(), 0);
        loop {
            match lines.advance() {
                Ok(false) => break,
                Ok(true) => out.push(format!("{}:{}", lines.number(), lines.line().escape_ascii())),
                Err(LineError::TooLong) => out.push(format!("{} is long", lines.number())),
                Err(LineError::Io(error)) => panic!("{error}"),
            }
            bytes += lines.take_bytes();
        }
        assert_eq!(bytes + lines.take_bytes(), text.len() as u64);
        out.join("|")
    }

    #[test]
    fn lines_are_numbered_and_bounded() {
        for (text, expected) in [
            (&b""[..], ""),
            (b"a\r\n\nb", "1:a|2:|3:b"),
            (b"abcd\nabcd", "1:abcd|2:abcd"),
            (b"abcde\nf", "1 is long|2:f"),
            (b"a\nabcdefghijkl\nf\n", "1:a|2 is long|3:f"),
            (b"abcdefgh", "1 is long"),
            (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", "1:a|2:\\xef\\xbb\\xbfb"),
            (b"\xef\xbb\xbf\n", "1:"),
        ] {
            assert_eq!(read(text), expected, "{}", text.escape_ascii());
        }
    }
}
