//! Sizes of a Parquet column's pages, read from their headers before anything is decompressed: a page of a
//! few bytes may decompress to gigabytes. For Snappy, Zstandard and raw LZ4 the decoder allocates what a
//! header says. A page of another codec is decompressed piece by piece once, to check that it is no longer.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;

use parquet::basic::Compression;

type Cause = Box<dyn Error + Send + Sync>;

/// Largest pages of a column chunk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LargestPages {
    /// Size in the file.
    pub(crate) stored: u64,
    /// Size after decompression. No value is longer, whatever the encoding.
    pub(crate) decoded: u64,
    /// Number of values, nulls included.
    pub(crate) values: u64,
    /// Whether a page has an encoding that begins with its own count of values.
    pub(crate) any_delta: bool,
}

impl LargestPages {
    /// Reads the headers of the pages in the `bytes` bytes from `start` on, compressed by `codec`.
    pub(crate) fn of(
        file: &File,
        start: u64,
        bytes: u64,
        codec: Compression,
    ) -> Result<Self, Cause> {
        let (mut offset, mut largest) = (start, Self::default());
        let end = start.checked_add(bytes).ok_or("a column goes beyond the end of the file")?;
        while offset < end {
            let rest = FileFrom { file, offset }.take(end - offset);
            // A header takes some tens of bytes, unless it has statistics with long values.
            let mut input = Compact::new(BufReader::with_capacity(256, rest));
            let header = input.page_header()?;
            offset += input.read;
            let stored = header.stored.filter(|bytes| *bytes <= end - offset);
            let stored = stored.ok_or("a page goes beyond the end of its column")?;
            let decoded = header.decoded.ok_or("a page header has no size")?;
            if let Some(levels) = header.levels_before_data() {
                let page = FileFrom { file, offset: offset + levels };
                let page = page.take(stored.saturating_sub(levels));
                check_length(page, decoded.saturating_sub(levels), codec)?;
            }
            offset += stored;
            largest.stored = largest.stored.max(stored);
            largest.decoded = largest.decoded.max(decoded);
            largest.values = largest.values.max(header.values);
            largest.any_delta |= header.any_delta;
        }
        Ok(largest)
    }
}

/// Decompresses a page without keeping it, to check that it has at most `max` bytes. A page that cannot be
/// decompressed passes: the decoder says more about it.
fn check_length(page: impl Read, max: u64, codec: Compression) -> Result<(), Cause> {
    let page = BufReader::new(page);
    let length = match codec {
        Compression::GZIP(_) => copied(flate2::bufread::MultiGzDecoder::new(page), max),
        Compression::BROTLI(_) => copied(brotli::Decompressor::new(page, BROTLI_BUFFER), max),
        // The decoder accepts frames too in place of Hadoop's framing.
        Compression::LZ4 => copied(lz4_flex::frame::FrameDecoder::new(page), max),
        _ => return Ok(()),
    };
    match length {
        Ok(length) if length > max => {
            Err(format!("a page is longer than the {max} bytes that its header says").into())
        }
        _ => Ok(()),
    }
}

/// Counts the bytes that can be read, up to `max + 1`.
fn copied(page: impl Read, max: u64) -> io::Result<u64> {
    io::copy(&mut page.take(max + 1), &mut io::sink())
}

/// Size of brotli's reads, in bytes.
const BROTLI_BUFFER: usize = 4096;

/// A file from an offset on, read without moving the shared file position.
struct FileFrom<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for FileFrom<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Some fields of Parquet's `PageHeader`.
#[derive(Default)]
struct PageHeader {
    /// Field 2, `uncompressed_page_size`.
    decoded: Option<u64>,
    /// Field 3, `compressed_page_size`.
    stored: Option<u64>,
    /// Field 8, `data_page_header_v2`.
    v2: Option<PageHeaderV2>,
    /// `num_values` of the header for the page's type.
    values: u64,
    /// Whether the page's `encoding` begins with its own count of values.
    any_delta: bool,
}

/// The encodings `DELTA_BINARY_PACKED`, `DELTA_LENGTH_BYTE_ARRAY` and `DELTA_BYTE_ARRAY`.
const DELTA: RangeInclusive<u64> = 5..=7;

impl PageHeader {
    /// Returns the bytes of levels before the compressed data of a page; `None` if nothing is compressed.
    fn levels_before_data(&self) -> Option<u64> {
        match &self.v2 {
            Some(v2) if v2.plain => None,
            Some(v2) => Some(v2.levels),
            None => Some(0),
        }
    }
}

/// Some fields of Parquet's `DataPageHeaderV2`.
#[derive(Default)]
struct PageHeaderV2 {
    /// Sum of fields 5 and 6, `definition_levels_byte_length` and `repetition_levels_byte_length`.
    levels: u64,
    /// Whether field 7, `is_compressed`, is false.
    plain: bool,
}

/// Largest depth of nested structs.
pub(crate) const DEPTH_MAX: usize = 8;

/// Reader of Thrift's compact protocol (see its `thrift-compact-protocol.md`), as far as page headers and the
/// metadata of files use it.
pub(crate) struct Compact<R> {
    input: R,
    /// Number of bytes read.
    pub(crate) read: u64,
}

impl<R: Read> Compact<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, read: 0 }
    }

    fn page_header(&mut self) -> Result<PageHeader, Cause> {
        let (mut header, mut field) = (PageHeader::default(), 0);
        while let Some(kind) = self.field(&mut field)? {
            match (field, kind) {
                (2, I32) => header.decoded = Some(self.size()?),
                (3, I32) => header.stored = Some(self.size()?),
                (5 | 7, STRUCT) => self.header_of_type(&mut header, 2)?,
                (8, STRUCT) => self.header_of_type(&mut header, 4)?,
                _ => self.skip(kind, DEPTH_MAX)?,
            }
        }
        Ok(header)
    }

    /// Reads the header for a page's type. `encoding` is the number of its encoding field: 2 for a data page
    /// of version 1 or a dictionary, 4 for version 2.
    fn header_of_type(&mut self, header: &mut PageHeader, encoding: i64) -> Result<(), Cause> {
        let (mut v2, mut field) = (PageHeaderV2::default(), 0);
        while let Some(kind) = self.field(&mut field)? {
            match (field, kind) {
                (1, I32) => header.values = header.values.max(self.size()?),
                (number, I32) if number == encoding => {
                    header.any_delta |= DELTA.contains(&self.size()?);
                }
                (5 | 6, I32) => v2.levels += self.size()?,
                (7, FALSE) => v2.plain = true,
                _ => self.skip(kind, DEPTH_MAX)?,
            }
        }
        if encoding == 4 {
            header.v2 = Some(v2);
        }
        Ok(())
    }

    /// Goes to the next field of a struct and returns its type; `None` at the end of the struct.
    pub(crate) fn field(&mut self, field: &mut i64) -> Result<Option<u8>, Cause> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        *field = match byte >> 4 {
            0 => zigzag(self.varint()?),
            more => {
                field.checked_add(i64::from(more)).ok_or("a page header has too many fields")?
            }
        };
        Ok(Some(byte & 15))
    }

    fn size(&mut self) -> Result<u64, Cause> {
        let size = i32::try_from(zigzag(self.varint()?))?;
        Ok(u64::try_from(size)?)
    }

    pub(crate) fn skip(&mut self, kind: u8, depth: usize) -> Result<(), Cause> {
        let depth = depth.checked_sub(1).ok_or("a page header is nested too deeply")?;
        match kind {
            TRUE | FALSE => {}
            BYTE => self.pass(1)?,
            I16 | I32 | I64 => self.varint().map(drop)?,
            DOUBLE => self.pass(8)?,
            BINARY => {
                let bytes = self.varint()?;
                self.pass(bytes)?;
            }
            LIST | SET => self.skip_list(depth)?,
            STRUCT => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth)?;
                }
            }
            kind => return Err(format!("a page header has a field of type {kind}").into()),
        }
        Ok(())
    }

    fn skip_list(&mut self, depth: usize) -> Result<(), Cause> {
        let byte = self.byte()?;
        let count = match byte >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        for _ in 0..count {
            match byte & 15 {
                // In a list a boolean takes a byte.
                TRUE | FALSE => self.pass(1)?,
                kind => self.skip(kind, depth)?,
            }
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Cause> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        Err("a page header has a number of too many digits".into())
    }

    fn byte(&mut self) -> Result<u8, Cause> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        self.read += 1;
        Ok(byte[0])
    }

    fn pass(&mut self, bytes: u64) -> Result<(), Cause> {
        let passed = io::copy(&mut (&mut self.input).take(bytes), &mut io::sink())?;
        self.read += passed;
        if passed == bytes { Ok(()) } else { Err("a page header is cut short".into()) }
    }
}

// Types of the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
pub(crate) const LIST: u8 = 9;
const SET: u8 = 10;
pub(crate) const STRUCT: u8 = 12;

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn largest(bytes: &[u8]) -> Result<LargestPages, String> {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"PAR1").unwrap();
        file.write_all(bytes).unwrap();
        let codec = Compression::UNCOMPRESSED;
        LargestPages::of(&file, 4, bytes.len() as u64, codec).map_err(|error| error.to_string())
    }

    /// A header with type, both sizes, a checksum and a nested header with statistics.
    const HEADER: &[u8] = &[
        0x15, 0x00, 0x15, 0xc8, 0x01, 0x15, 0x06, 0x15, 0x02, 0x1c, 0x15, 0x02, 0x15, 0x00, 0x1c,
        0x28, 2, b'a', b'b', 0x11, 0x00, 0x19, 0x22, 1, 1, 0x00, 0x00,
    ];

    #[test]
    fn the_largest_page_is_found() {
        let small = [0x15, 0x04, 0x15, 0x14, 0x15, 0x02, 0x00, 7];
        let pages = [HEADER, b"xyz", &small].concat();
        assert_eq!(
            largest(&pages),
            Ok(LargestPages { stored: 3, decoded: 100, values: 1, any_delta: false })
        );
        assert_eq!(largest(b""), Ok(LargestPages::default()));
    }

    /// Compresses a MiB of zeros to a page, by a codec that does not ask how many there are.
    fn zeros(codec: Compression) -> Vec<u8> {
        use std::io::Write;
        let (zeros, level) = (vec![0; 1 << 20], flate2::Compression::default());
        let mut page = Vec::new();
        match codec {
            Compression::GZIP(_) => {
                flate2::write::GzEncoder::new(&mut page, level).write_all(&zeros).unwrap();
            }
            Compression::BROTLI(_) => {
                brotli::CompressorWriter::new(&mut page, 4096, 5, 20).write_all(&zeros).unwrap();
            }
            _ => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(&mut page);
                encoder.write_all(&zeros).unwrap();
                encoder.finish().unwrap();
            }
        }
        page
    }

    #[test]
    fn a_page_may_be_no_longer_than_its_header_says() {
        let (gzip, brotli) = (Compression::GZIP(Default::default()), Default::default());
        for codec in [gzip, Compression::BROTLI(brotli), Compression::LZ4] {
            let page = zeros(codec);
            let length = |max| check_length(page.as_slice(), max, codec).map_err(|e| e.to_string());
            assert_eq!(length(1 << 20), Ok(()), "{codec}");
            let expected = "a page is longer than the 1048575 bytes that its header says";
            assert_eq!(length((1 << 20) - 1), Err(expected.to_owned()), "{codec}");
            // The decoder refuses a page that cannot be decompressed.
            assert!(check_length(&page[1..], 0, codec).is_ok(), "{codec}");
        }
    }

    #[test]
    fn levels_stand_before_the_compressed_data() {
        let header = |v2: &[u8]| {
            let bytes = [&[0x15, 0x06, 0x15, 0x14, 0x15, 0x14], v2, &[0]].concat();
            let header = Compact { input: bytes.as_slice(), read: 0 }.page_header().unwrap();
            header.levels_before_data()
        };
        assert_eq!(header(&[]), Some(0));
        // Fields 5 and 6 are 3 and 4. Field 7 is true, false or absent.
        assert_eq!(header(&[0x5c, 0x55, 6, 0x15, 8, 0x11, 0]), Some(7));
        assert_eq!(header(&[0x5c, 0x55, 6, 0x15, 8, 0x12, 0]), None);
        assert_eq!(header(&[0x5c, 0x55, 6, 0x15, 8, 0]), Some(7));
    }

    #[test]
    fn a_header_that_cannot_be_read_is_an_error() {
        let check = |bytes: &[u8], expected: &str| {
            let error = largest(bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        for length in 1..HEADER.len() {
            assert!(largest(&HEADER[..length]).is_err(), "{length}");
        }
        check(HEADER, "beyond the end of its column");
        check(&[0x15, 0x04, 0x00], "beyond the end");
        check(&[0x35, 0x00, 0x00], "no size");
        check(&[0x25, 0x03, 0x00], "out of range");
        check(&[0x1e, 0x00], "a field of type 14");
        check(&[0x1c; 20], "nested too deeply");
        check(&[0x25, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255], "too many digits");
        check(&[0x18, 200, 1, b'a'], "cut short");
    }
}
