//! Decompresses what is read: bytes come in, those of a text go out, whether they are compressed by gzip or zstd
//! or not at all. It knows nothing of what the text holds, and does not look at names.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

/// Bytes read at a time.
const BUFFER_BYTES: usize = 1 << 16;
/// Bytes by which a compression is told.
const MAGIC_BYTES: u64 = 8;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Largest window of a zstd frame, as a power of two, where the reader has no budget of its own: 128 MiB, which
/// the program `zstd` takes unasked.
pub const WINDOW_LOG: u32 = 27;

/// Reader of bytes as they were before they were compressed.
///
/// ```
/// use std::io::Read;
/// let mut text = String::new();
/// let mut reader = hyperrag_files::compressed::Decompressed::new(&b"a text"[..], 27).unwrap();
/// reader.read_to_string(&mut text).unwrap();
/// assert_eq!((text.as_str(), reader.is_compressed()), ("a text", false));
/// ```
pub struct Decompressed<'r> {
    reader: Box<dyn BufRead + Send + 'r>,
    is_compressed: bool,
}

impl<'r> Decompressed<'r> {
    /// Looks at the first bytes. A zstd frame whose window has more than 2^`window_log` bytes is refused when
    /// it is read.
    ///
    /// # Errors
    /// [`io::Error`] of the reader.
    pub fn new(mut reader: impl Read + Send + 'r, window_log: u32) -> io::Result<Self> {
        let mut start = Vec::new();
        reader.by_ref().take(MAGIC_BYTES).read_to_end(&mut start)?;
        let (is_gzip, is_zstd) = (start.starts_with(GZIP), is_zstd(&start));
        let stored = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(start).chain(reader));
        let reader: Box<dyn BufRead + Send + 'r> = if is_gzip {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(stored)))
        } else if is_zstd {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(stored)?;
            decoder.window_log_max(window_log)?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        } else {
            Box::new(stored)
        };
        Ok(Self { reader, is_compressed: is_gzip || is_zstd })
    }

    /// Whether the bytes are compressed.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.is_compressed
    }
}

/// Whether these are the first bytes of zstd, with which no text in UTF-8 begins.
fn is_zstd(start: &[u8]) -> bool {
    // A frame that is passed over may come first.
    start.starts_with(ZSTD) || matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl BufRead for Decompressed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<(Vec<u8>, bool)> {
        let (mut reader, mut text) = (Decompressed::new(bytes, WINDOW_LOG)?, Vec::new());
        reader.read_to_end(&mut text)?;
        Ok((text, reader.is_compressed()))
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn texts_are_read_whatever_they_are_compressed_by() {
        let text = "q1 0 d1 1\n".repeat(10_000).into_bytes();
        let zstd = zstd::encode_all(&text[..], 3).unwrap();
        let passed_over = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7][..], &zstd].concat();
        for compressed in [&gzip(&text), &zstd, &passed_over] {
            assert_eq!(read(compressed).unwrap(), (text.clone(), true));
            assert!(read(&compressed[..compressed.len() / 2]).is_err());
        }
        let twice = [gzip(&text), gzip(b"end")].concat();
        assert!(read(&twice).unwrap().0.ends_with(b"1\nend"));
        for plain in [&b""[..], b"P", b"\x1f", b"plain"] {
            assert_eq!(read(plain).unwrap(), (plain.to_vec(), false));
        }
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(24).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(b"a text").unwrap();
        let compressed = encoder.finish().unwrap();
        let read = |window_log| {
            let mut reader = Decompressed::new(&compressed[..], window_log)?;
            reader.read_to_end(&mut Vec::new())
        };
        assert_eq!(read(24).unwrap(), 6);
        assert!(read(23).unwrap_err().to_string().contains("too much memory"));
    }
}
