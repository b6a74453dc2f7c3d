//! Reads records whose fields may stand in quotes, as CSV has them: an open text, a delimiter and a length
//! limit come in, one record after the other goes out. Knows nothing of what a field means.

use std::io::BufRead;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::error::CorpusError;
use crate::place::Place;
use crate::source::Text;

/// Largest number of fields of a record.
const FIELDS_MAX: usize = 1 << 16;
/// Bytes by which a record grows at least.
const GROWTH_BYTES: usize = 1 << 12;

/// Reader of records with quoted fields. A record may go over several lines.
pub(crate) struct QuotedReader {
    text: Text,
    reader: Reader,
    bytes_max: usize,
    /// Line that is read next, counted from 1.
    next_line: u64,
    /// Line where the record begins.
    line: u64,
    /// Fields of the record, one after the other, with room for more.
    record: Vec<u8>,
    /// Ends of the fields, with room for more.
    ends: Vec<usize>,
    fields: usize,
    bytes: u64,
    /// Whether the rest of a record that is too long is still to be passed over.
    unfinished: bool,
}

/// End of reading a record.
enum Ended {
    Record,
    TooLong,
    /// The text ended, and a quote is open or nothing was left.
    Text {
        any: bool,
    },
}

impl QuotedReader {
    pub(crate) fn new(
        mut text: Text,
        delimiter: u8,
        bytes_max: usize,
    ) -> Result<Self, CorpusError> {
        let place = text.line(1);
        let bytes = text.skip_mark().map_err(|error| text.unreadable(error, place))?;
        Ok(Self {
            text,
            reader: ReaderBuilder::new().delimiter(delimiter).build(),
            bytes_max,
            next_line: 1,
            line: 0,
            record: Vec::new(),
            ends: vec![0; 16],
            fields: 0,
            bytes,
            unfinished: false,
        })
    }

    /// Goes to the next record that is not blank. `false` at the end of the text. After a record that is too
    /// long, the following one comes next.
    pub(crate) fn advance(&mut self) -> Result<bool, CorpusError> {
        if std::mem::take(&mut self.unfinished) {
            while matches!(self.read_record()?, Ended::TooLong) {}
        }
        loop {
            self.pass_over_line_ends()?;
            self.line = self.next_line;
            match self.read_record()? {
                Ended::Record if self.is_blank() => {}
                Ended::Record => return Ok(true),
                Ended::Text { any: false } => return Ok(false),
                Ended::Text { any: true } => {
                    return Err(CorpusError::OpenQuote { place: self.place() });
                }
                Ended::TooLong => {
                    self.unfinished = true;
                    let bytes_max = self.bytes_max;
                    return Err(CorpusError::LineTooLong { place: self.place(), bytes_max });
                }
            }
        }
    }

    /// Returns the number of fields of the record.
    pub(crate) fn count(&self) -> usize {
        self.fields
    }

    /// Returns a field of the record; "" if it has fewer.
    pub(crate) fn field(&self, field: usize) -> Result<&str, CorpusError> {
        if field >= self.fields {
            return Ok("");
        }
        let start = if field == 0 { 0 } else { self.ends[field - 1] };
        std::str::from_utf8(&self.record[start..self.ends[field]]).map_err(|error| {
            CorpusError::NotUtf8 { place: self.place(), byte: start + error.valid_up_to() + 1 }
        })
    }

    /// Returns the place of the line where the record begins.
    pub(crate) fn place(&self) -> Place {
        self.text.line(self.line)
    }

    /// Returns the bytes of the file read since the last call.
    pub(crate) fn take_bytes(&mut self) -> u64 {
        self.text.stored_bytes(std::mem::take(&mut self.bytes))
    }

    /// Whether the record is a line of blanks.
    fn is_blank(&self) -> bool {
        self.fields == 1 && self.record[..self.ends[0]].iter().all(u8::is_ascii_whitespace)
    }

    fn consume(&mut self, bytes: usize, lines: usize) {
        self.text.consume(bytes);
        self.bytes += bytes as u64;
        self.next_line += lines as u64;
    }

    fn pass_over_line_ends(&mut self) -> Result<(), CorpusError> {
        loop {
            let buffer = match self.text.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) => {
                    return Err(self.text.unreadable(error, self.text.line(self.next_line)));
                }
            };
            let ends = buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let (lines, all) = (line_ends(&buffer[..ends]), ends == buffer.len());
            self.consume(ends, lines);
            if !all || ends == 0 {
                return Ok(());
            }
        }
    }

    /// Reads to the end of a record, or up to the limit.
    fn read_record(&mut self) -> Result<Ended, CorpusError> {
        let (mut written, mut fields) = (0, 0);
        let mut at_end = false;
        loop {
            let Self { text, reader, record, ends, .. } = self;
            let buffer = match text.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) => return Err(text.unreadable(error, text.line(self.next_line))),
            };
            // A line end after the last byte ends a record, if no quote is open.
            let last = buffer.is_empty();
            let input = if last { b"\n".as_slice() } else { buffer };
            let (result, read, wrote, ended) =
                reader.read_record(input, &mut record[written..], &mut ends[fields..]);
            let lines = line_ends(&input[..read]);
            written += wrote;
            fields += ended;
            if !last {
                self.consume(read, lines);
            }
            match result {
                ReadRecordResult::Record => {
                    self.fields = fields;
                    return Ok(Ended::Record);
                }
                ReadRecordResult::End => return Ok(Ended::Text { any: written + fields > 0 }),
                ReadRecordResult::InputEmpty if last && (at_end || written + fields == 0) => {
                    return Ok(Ended::Text { any: written + fields > 0 });
                }
                ReadRecordResult::InputEmpty => at_end = last,
                ReadRecordResult::OutputFull if written >= self.bytes_max => {
                    return Ok(Ended::TooLong);
                }
                ReadRecordResult::OutputFull => {
                    let room = (2 * self.record.len()).max(GROWTH_BYTES).min(self.bytes_max);
                    self.record.resize(room, 0);
                }
                ReadRecordResult::OutputEndsFull if fields >= FIELDS_MAX => {
                    return Ok(Ended::TooLong);
                }
                ReadRecordResult::OutputEndsFull => {
                    self.ends.resize((2 * self.ends.len()).min(FIELDS_MAX), 0);
                }
            }
        }
    }
}

fn line_ends(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::limits::Limits;
    use crate::source::Source;
    use crate::testing::Folder;

    /// Returns the records as `line:field/field` with `|` between, and the faults.
    fn read(text: &[u8], bytes_max: usize) -> String {
        let folder = Folder::new();
        let path = folder.write("c.csv", text);
        let source = Source::of_file(Path::new(&path), 0);
        let text = source.open(&Limits::default()).unwrap();
        let mut reader = QuotedReader::new(text, b',', bytes_max).unwrap();
        let (mut out, mut bytes) = (Vec::new(), 0);
        loop {
            match reader.advance() {
                Ok(false) => break,
                Ok(true) => {
                    let fields: Result<Vec<_>, _> =
                        (0..reader.count()).map(|field| reader.field(field)).collect();
                    out.push(match fields {
                        Ok(fields) => format!("{}:{}", reader.line, fields.join("/")),
                        Err(error) => error.to_string().replace(folder.path(), "DIR"),
                    });
                }
                Err(error) => {
                    out.push(error.to_string().replace(folder.path(), "DIR"));
                    if !error.is_of_row() {
                        return out.join("|");
                    }
                }
            }
            bytes += reader.take_bytes();
        }
        let total = std::fs::metadata(path).unwrap().len();
        assert_eq!(bytes + reader.take_bytes(), total);
        out.join("|")
    }

    #[test]
    fn quotes_enclose_fields() {
        for (text, expected) in [
            (&b""[..], ""),
            (b"\n\r\n", ""),
            (b"a,b\nc,d", "1:a/b|2:c/d"),
            (b"\xef\xbb\xbfa,b\r\n\r\n  \r\nc,\r\n", "1:a/b|4:c/"),
            (b"a,\"b, \"\"c\"\"\r\nd\"\n\"e\",f\n", "1:a/b, \"c\"\r\nd|3:e/f"),
            (b"a,5\" disk\nb,c", "1:a/5\" disk|2:b/c"),
            (b"a,\"\"", "1:a/"),
            (b"\"a\"", "1:a"),
        ] {
            assert_eq!(read(text, 100), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn faults_are_named_and_long_records_passed_over() {
        let open = "DIR/c.csv:2: a quote that begins in this record is never closed";
        assert!(read(b"a,b\nc,\"d\ne,f\n", 100).starts_with(&format!("1:a/b|{open}")));
        assert!(read(b"a,b\nc,\"", 100).starts_with(&format!("1:a/b|{open}")));
        let long = format!("a,b\nc,\"{}\n\"\nd,e\n", "x\n".repeat(50_000));
        let refused = "DIR/c.csv:2: the line is longer than 9 bytes, the limit";
        assert_eq!(read(long.as_bytes(), 9), format!("1:a/b|{refused}|50004:d/e"));
        let latin = "DIR/c.csv:1: not valid UTF-8 at byte 3 of the line; convert the file to UTF-8";
        assert_eq!(read(b"a,b\xff\nc,d", 9), format!("{latin}|2:c/d"));
        let many = format!("{}\na,b\n", ",".repeat(FIELDS_MAX));
        assert!(read(many.as_bytes(), 1000).ends_with("|2:a/b"));
    }
}
