//! Sizes of the lists of a column, read from the levels of its pages before any list is built: a page of a few
//! bytes may say that a list has billions of values.
//!
//! In: a column of a Parquet file whose page sizes are known. Out: the size of its largest list.

use std::error::Error;
use std::fs::File;
use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use crate::delta::varint;

type Cause = Box<dyn Error + Send + Sync>;

/// Largest list of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LargestList {
    /// Number of values.
    pub(crate) values: u64,
    /// Bytes of the pages that it stands in.
    pub(crate) bytes: u64,
}

impl LargestList {
    /// Reads the levels of all pages of a column of lists, not of lists of lists.
    pub(crate) fn of(file: &File, column: &ColumnChunkMetaData) -> Result<Self, Cause> {
        let mut pages = SerializedPageReader::new(Arc::new(file.try_clone()?), column, 0, None)?;
        let (mut largest, mut list) = (Self::default(), Self::default());
        while let Some(page) = pages.get_next_page()? {
            let bytes: &[u8] = page.buffer();
            let levels = match &page {
                Page::DictionaryPage { .. } => continue,
                Page::DataPage { rep_level_encoding: Encoding::RLE, .. } => {
                    let (length, rest) = bytes.split_first_chunk().ok_or(CUT)?;
                    rest.get(..u32::from_le_bytes(*length) as usize)
                }
                Page::DataPage { .. } => return Err("an outdated encoding of levels".into()),
                Page::DataPageV2 { rep_levels_byte_len, .. } => {
                    bytes.get(..*rep_levels_byte_len as usize)
                }
            };
            // A list may go on from the page before.
            list.bytes += bytes.len() as u64;
            runs(levels.ok_or(CUT)?, u64::from(page.num_values()), |goes_on, values| {
                if goes_on {
                    list.values += values;
                } else {
                    largest = largest.max(list);
                    list = Self { values: 1, bytes: bytes.len() as u64 };
                }
            })?;
            largest = largest.max(list);
        }
        Ok(largest)
    }

    fn max(self, other: Self) -> Self {
        Self { values: self.values.max(other.values), bytes: self.bytes.max(other.bytes) }
    }
}

const CUT: &str = "a page ends within its levels";

/// Reads `left` levels of one bit in Parquet's hybrid of runs and bits. Each run of equal levels is told:
/// whether they are 1, so that the values go on a list, and how many they are.
fn runs(mut input: &[u8], mut left: u64, mut tell: impl FnMut(bool, u64)) -> Result<(), Cause> {
    while left > 0 {
        let header = varint(&mut input).ok_or(CUT)?;
        let count = header >> 1;
        if header & 1 == 0 {
            let (level, count) = (*input.split_off_first().ok_or(CUT)?, count.min(left));
            tell(level & 1 == 1, count);
            left -= count;
            if count == 0 {
                return Err("a run of no levels".into());
            }
            continue;
        }
        let bytes = usize::try_from(count.min(left.div_ceil(8)))?;
        let bits = input.split_off(..bytes).ok_or(CUT)?;
        if bits.is_empty() {
            return Err("a run of no levels".into());
        }
        for byte in bits {
            for bit in 0..left.min(8) {
                tell(byte >> bit & 1 == 1, 1);
            }
            left -= left.min(8);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(input: &[u8], levels: u64) -> Result<Vec<(bool, u64)>, String> {
        let mut told = Vec::new();
        let read = runs(input, levels, |goes_on, values| told.push((goes_on, values)));
        read.map(|()| told).map_err(|error| error.to_string())
    }

    #[test]
    fn runs_and_bits_are_read() {
        assert_eq!(told(&[], 0), Ok(vec![]));
        assert_eq!(told(&[10, 1], 5), Ok(vec![(true, 5)]));
        assert_eq!(told(&[200, 1, 0], 3), Ok(vec![(false, 3)]));
        let bits = [(false, 1), (true, 1), (true, 1)];
        assert_eq!(told(&[3, 0b1110], 3), Ok(bits.to_vec()));
        assert_eq!(told(&[4, 0, 3, 0b110], 5).map(|told| told.len()), Ok(4));
    }

    #[test]
    fn levels_that_end_early_are_an_error() {
        for input in [&[][..], &[10], &[128], &[0, 0], &[1], &[5, 0]] {
            assert!(told(input, 100).is_err(), "{input:?}");
        }
    }
}
