//! Checksums of the pages of a segment's files, kept beside the segment.
//!
//! In: a file, or the bytes of a `.pages` file. Out: checksums that check any part of the file each
//! time it is read. tantivy has one checksum for a whole file: a single byte can be trusted only after
//! all were read, and no longer if they are read again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use tantivy::HasLen;
use tantivy::directory::FileSlice;
use tantivy::directory::footer::Footer;

/// Number of bytes with a checksum of their own: the largest size of a block of stored text.
pub(crate) const PAGE_BYTES: usize = 16 << 10;

/// Number of bytes read at a time from a whole file.
pub(crate) const READ_BYTES: usize = 64 * PAGE_BYTES;

/// Size of a file's end that contains tantivy's footer, in bytes; the footer has at most 50,008.
const FOOTER_BYTES: usize = 4 * PAGE_BYTES;

/// First bytes of a `.pages` file. The number is that of its layout.
const MAGIC: [u8; 8] = *b"hrpages1";

/// Checksums of all pages of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pages {
    bytes: usize,
    sums: Vec<u32>,
}

impl Pages {
    /// Length of the file, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the range of bytes of the pages that contain `range`.
    pub(crate) fn around(&self, range: &Range<usize>) -> Range<usize> {
        let start = range.start / PAGE_BYTES * PAGE_BYTES;
        start..range.end.next_multiple_of(PAGE_BYTES).min(self.bytes)
    }

    /// Checks whole pages, the first of which begins at `start`.
    pub(crate) fn check(&self, start: usize, bytes: &[u8]) -> io::Result<()> {
        let first = start / PAGE_BYTES;
        for (page, bytes) in (first..).zip(bytes.chunks(PAGE_BYTES)) {
            if self.sums.get(page) != Some(&crc32fast::hash(bytes)) {
                let start = page * PAGE_BYTES;
                let end = start + bytes.len();
                return Err(damage(format!("bytes {start} to {end} are not those written")));
            }
        }
        Ok(())
    }

    /// Reads and checks the pages that contain `range`. Returns their start and bytes.
    pub(crate) fn read(&self, file: &File, range: &Range<usize>) -> io::Result<(usize, Vec<u8>)> {
        let around = self.around(range);
        let mut bytes = vec![0; around.len()];
        file.read_exact_at(&mut bytes, around.start as u64)?;
        self.check(around.start, &bytes)?;
        Ok((around.start, bytes))
    }

    /// Reads a whole file that has no kept pages, and checks it by tantivy's footer.
    pub(crate) fn of(file: &File, bytes: usize) -> io::Result<Self> {
        let tail_start = bytes.saturating_sub(FOOTER_BYTES).next_multiple_of(PAGE_BYTES).min(bytes);
        let mut tail = vec![0; bytes - tail_start];
        file.read_exact_at(&mut tail, tail_start as u64)?;
        let (body_bytes, expected) = footer(&tail)?;
        let body_bytes = tail_start + body_bytes;

        let mut pages = Self { bytes, sums: Vec::with_capacity(bytes.div_ceil(PAGE_BYTES)) };
        let mut body = Hasher::new();
        let mut buffer = vec![0; READ_BYTES.min(bytes)];
        for start in (0..bytes).step_by(READ_BYTES) {
            let part = &mut buffer[..READ_BYTES.min(bytes - start)];
            file.read_exact_at(part, start as u64)?;
            body.update(&part[..body_bytes.saturating_sub(start).min(part.len())]);
            pages.sums.extend(part.chunks(PAGE_BYTES).map(crc32fast::hash));
        }
        if body.finalize() != expected {
            return Err(damage("the checksum is not that of the bytes"));
        }
        // The footer has no checksum; it must be the same as in the first read.
        pages.check(tail_start, &tail)?;
        Ok(pages)
    }
}

/// Returns the number of bytes before the footer in a file's last ones, and the footer's checksum of
/// all bytes before it.
fn footer(tail: &[u8]) -> io::Result<(usize, u32)> {
    // tantivy reads these without a check: the length of the rest, and a magic number.
    const LENGTHS_BYTES: usize = 8;
    if tail.len() < LENGTHS_BYTES {
        return Err(damage("it has no footer"));
    }
    let (footer, body) = Footer::extract_footer(FileSlice::from(tail.to_vec()))?;
    Ok((body.len(), footer.crc))
}

fn damage(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

/// Encodes a `.pages` file: name, length and page checksums of each file, numbers in little-endian, and
/// at the end a checksum of all that.
pub(crate) fn encode<'a>(files: impl IntoIterator<Item = (&'a Path, &'a Pages)>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend((PAGE_BYTES as u32).to_le_bytes());
    for (name, pages) in files {
        let name = name.as_os_str().as_encoded_bytes();
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend(name);
        bytes.extend((pages.bytes as u64).to_le_bytes());
        pages.sums.iter().for_each(|sum| bytes.extend(sum.to_le_bytes()));
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// Decodes the bytes that [`encode`] wrote; `None` for any other bytes.
pub(crate) fn decode(bytes: &[u8]) -> Option<BTreeMap<PathBuf, Pages>> {
    let (bytes, checksum) = bytes.split_last_chunk()?;
    if crc32fast::hash(bytes) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let mut rest = bytes.strip_prefix(&MAGIC)?.strip_prefix(&(PAGE_BYTES as u32).to_le_bytes())?;
    let mut files = BTreeMap::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk()?;
        let (name, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let (bytes, after) = after.split_first_chunk()?;
        let bytes = usize::try_from(u64::from_le_bytes(*bytes)).ok()?;
        let (sums, after) = after.split_at_checked(bytes.div_ceil(PAGE_BYTES).checked_mul(4)?)?;
        let sums =
            sums.chunks_exact(4).map(|sum| u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]));
        files.insert(str::from_utf8(name).ok()?.into(), Pages { bytes, sums: sums.collect() });
        rest = after;
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a file as tantivy does, around a body of so many bytes. Returns it with its length.
    fn written(body_bytes: usize) -> (File, usize) {
        let body: Vec<u8> = (0..body_bytes).map(|at| (at * 31 % 251) as u8).collect();
        let version = r#"{"major":0,"minor":27,"patch":0,"index_format_version":7}"#;
        let footer = format!("{{\"version\":{version},\"crc\":{}}}", crc32fast::hash(&body));
        let mut bytes = body;
        bytes.extend(footer.as_bytes());
        bytes.extend((footer.len() as u32).to_le_bytes());
        bytes.extend(1337_u32.to_le_bytes());
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        (file, bytes.len())
    }

    #[test]
    fn any_range_is_read_and_checked_by_whole_pages() {
        for body in [0, 1, PAGE_BYTES - 200, PAGE_BYTES, 3 * PAGE_BYTES - 80, READ_BYTES + 5] {
            let (file, bytes) = written(body);
            let pages = Pages::of(&file, bytes).unwrap();
            assert_eq!(pages.bytes(), bytes);
            let mut all = vec![0; bytes];
            file.read_exact_at(&mut all, 0).unwrap();
            let edges = [0, 1, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, 2 * PAGE_BYTES, bytes];
            for start in edges.into_iter().filter(|start| *start <= bytes) {
                for end in edges.into_iter().filter(|end| (start..=bytes).contains(end)) {
                    let (first, read) = pages.read(&file, &(start..end)).unwrap();
                    assert!(first.is_multiple_of(PAGE_BYTES) && first <= start);
                    assert_eq!(read[start - first..end - first], all[start..end]);
                    let pages = end.div_ceil(PAGE_BYTES) - start / PAGE_BYTES;
                    assert!(read.len() <= pages * PAGE_BYTES, "{start}..{end}");
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed_in_its_page() {
        let (file, bytes) = written(PAGE_BYTES + 150);
        let pages = Pages::of(&file, bytes).unwrap();
        let mut all = vec![0; bytes];
        file.read_exact_at(&mut all, 0).unwrap();
        let near = (0..300).chain(PAGE_BYTES - 150..bytes);
        for (at, bit) in near.flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            file.write_all_at(&[all[at] ^ (1 << bit)], at as u64).unwrap();
            let error = pages.read(&file, &(at..at + 1)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            let other = if at < PAGE_BYTES { PAGE_BYTES } else { 0 };
            pages.read(&file, &(other..other + 1)).unwrap();
            file.write_all_at(&all[at..=at], at as u64).unwrap();
        }
        // Before there are pages, the footer checks the body.
        for at in (0..PAGE_BYTES + 150).step_by(97) {
            file.write_all_at(&[all[at] ^ 4], at as u64).unwrap();
            assert!(Pages::of(&file, bytes).is_err());
            file.write_all_at(&all[at..=at], at as u64).unwrap();
        }
        assert_eq!(Pages::of(&file, bytes).unwrap(), pages);
        file.set_len(bytes as u64 - 1).unwrap();
        let cut = pages.read(&file, &(bytes - 1..bytes)).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::UnexpectedEof);
        for length in (0..40).chain([bytes - 200, bytes - 1]) {
            file.set_len(length as u64).unwrap();
            assert!(Pages::of(&file, length).is_err(), "{length}");
        }
    }

    #[test]
    fn pages_of_a_segment_come_back_whole_or_not_at_all() {
        let of = |bytes: usize| Pages { bytes, sums: vec![7; bytes.div_ceil(PAGE_BYTES)] };
        let files: BTreeMap<PathBuf, Pages> =
            [("a.idx".into(), of(0)), ("a.store".into(), of(2 * PAGE_BYTES + 1))].into();
        let bytes = encode(files.iter().map(|(name, pages)| (name.as_path(), pages)));
        assert_eq!(decode(&bytes), Some(files));
        for at in 0..bytes.len() {
            assert_eq!(decode(&bytes[..at]), None);
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(decode(&changed), None);
            }
        }
        // A length that only claims to be one.
        let mut hostile = bytes[..bytes.len() - 4].to_vec();
        hostile.truncate(MAGIC.len() + 4);
        hostile.extend(1_u32.to_le_bytes());
        hostile.push(b'a');
        hostile.extend(u64::MAX.to_le_bytes());
        hostile.extend(crc32fast::hash(&hostile).to_le_bytes());
        assert_eq!(decode(&hostile), None);
    }
}
