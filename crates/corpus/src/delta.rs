//! Checks the counts of values at the start of delta-encoded pages. The decoder allocates memory by them.
//!
//! In: a column of a Parquet file whose page sizes are known. Out: an error if a page claims more values than
//! it has. It does not read the values.

use std::error::Error;
use std::fs::File;
use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

type Cause = Box<dyn Error + Send + Sync>;

/// Checks all pages of a column, be it a field of structs or a list.
pub(crate) fn check_counts(file: &File, column: &ColumnChunkMetaData) -> Result<(), Cause> {
    let repeated = level_bits(column.column_descr().max_rep_level());
    let defined = level_bits(column.column_descr().max_def_level());
    let mut pages = SerializedPageReader::new(Arc::new(file.try_clone()?), column, 0, None)?;
    while let Some(page) = pages.get_next_page()? {
        let bytes: &[u8] = page.buffer();
        let values = match &page {
            Page::DataPage { num_values, def_level_encoding, rep_level_encoding, .. } => {
                after_levels(bytes, *rep_level_encoding, *num_values, repeated)
                    .and_then(|rest| after_levels(rest, *def_level_encoding, *num_values, defined))
            }
            Page::DictionaryPage { .. } => Some(bytes),
            Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. } => {
                let levels = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
                usize::try_from(levels).ok().and_then(|levels| bytes.get(levels..))
            }
        };
        let values = values.ok_or("a page ends within its levels")?;
        check_page(page.encoding(), values, u64::from(page.num_values()))?;
    }
    Ok(())
}

/// Returns the number of bits of a level up to `max`.
fn level_bits(max: i16) -> u32 {
    i16::BITS - max.max(0).leading_zeros()
}

/// Returns the rest of a version 1 page behind its next levels, of `bits` bits each. They begin with their
/// length, or have just their bits in the encoding of old writers.
fn after_levels(page: &[u8], encoding: Encoding, values: u32, bits: u32) -> Option<&[u8]> {
    let (levels, rest) = match encoding {
        _ if bits == 0 => return Some(page),
        #[expect(deprecated, reason = "the decoder takes it")]
        Encoding::BIT_PACKED => (values.checked_mul(bits)?.div_ceil(8), page),
        _ => {
            let (length, rest) = page.split_first_chunk()?;
            (u32::from_le_bytes(*length), rest)
        }
    };
    rest.get(usize::try_from(levels).ok()?..)
}

/// Checks the counts in `values`. The page has at most `max` values.
fn check_page(encoding: Encoding, values: &[u8], max: u64) -> Result<(), Cause> {
    let runs = match encoding {
        Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
        // Lengths of the prefix shared with the value before, and of the rest.
        Encoding::DELTA_BYTE_ARRAY => 2,
        _ => 0,
    };
    let mut input = values;
    for _ in 0..runs {
        // The decoder refuses values that are cut short.
        let Some(count) = skip_run(&mut input, max) else { return Ok(()) };
        if count > max {
            return Err(format!("a page of {max} values claims {count}").into());
        }
    }
    Ok(())
}

/// Reads the header of a run of numbers (Parquet's `DELTA_BINARY_PACKED`) and returns its count. Skips the
/// run if the count is at most `max`. `None` if the run is cut short.
fn skip_run(input: &mut &[u8], max: u64) -> Option<u64> {
    let (block, miniblocks) = (varint(input)?, varint(input)?);
    let count = varint(input)?;
    varint(input)?;
    if count > max {
        return Some(count);
    }
    let of_miniblock = block.checked_div(miniblocks).filter(|values| *values > 0)?;
    let mut left = count.saturating_sub(1);
    while left > 0 {
        varint(input)?;
        let widths = input.split_off(..usize::try_from(miniblocks).ok()?)?;
        // Miniblocks after the last value are not stored.
        for width in widths {
            if left > 0 {
                let bits = u64::from(*width).checked_mul(of_miniblock)?;
                input.split_off(..usize::try_from(bits.div_ceil(8)).ok()?)?;
            }
            left = left.saturating_sub(of_miniblock);
        }
    }
    Some(count)
}

/// Reads a number of seven bits a byte, the lowest first.
pub(crate) fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = input.split_off_first()?;
        value |= u64::from(byte & 127) << shift;
        if *byte < 128 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes a run of `count` equal numbers: blocks of 128 in 4 miniblocks of no bits.
    fn run(count: u8) -> Vec<u8> {
        let blocks = usize::from(count.saturating_sub(1)).div_ceil(128);
        [&[0x80, 1, 4, count, 0][..], &[0; 5].repeat(blocks)].concat()
    }

    fn check(encoding: Encoding, values: &[u8], max: u64) -> Result<(), String> {
        check_page(encoding, values, max).map_err(|error| error.to_string())
    }

    #[test]
    fn levels_are_passed() {
        #[expect(deprecated, reason = "the decoder takes it")]
        let bits = Encoding::BIT_PACKED;
        assert_eq!(after_levels(&[2, 0, 0, 0, 8, 9, 1], Encoding::RLE, 9, 1), Some(&[1][..]));
        assert_eq!(after_levels(&[2, 0, 0, 0, 8], Encoding::RLE, 9, 1), None);
        assert_eq!(after_levels(&[8, 9, 1], bits, 9, 1), Some(&[1][..]));
        assert_eq!(after_levels(&[8, 9, 7, 1], bits, 9, 2), Some(&[1][..]));
        assert_eq!(after_levels(&[1], Encoding::RLE, 9, level_bits(0)), Some(&[1][..]));
        assert_eq!([1, 2, 3, 4].map(level_bits), [1, 2, 2, 3]);
    }

    #[test]
    fn no_page_claims_more_values_than_it_has() {
        use Encoding::{DELTA_BINARY_PACKED, DELTA_BYTE_ARRAY, DELTA_LENGTH_BYTE_ARRAY, PLAIN};
        let claims = |max, count| Err(format!("a page of {max} values claims {count}"));
        for encoding in [DELTA_BINARY_PACKED, DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY] {
            assert_eq!(check(encoding, &run(100), 99), claims(99, 100), "{encoding}");
            assert_eq!(check(encoding, &run(100), 100), Ok(()), "{encoding}");
        }
        let two = |second| [run(100), run(second)].concat();
        assert_eq!(check(DELTA_BYTE_ARRAY, &two(101), 100), claims(100, 101));
        assert_eq!(check(DELTA_BYTE_ARRAY, &two(100), 100), Ok(()));
        assert_eq!(check(PLAIN, &two(101), 0), Ok(()));
        // Runs that are cut short or never end are left to the decoder.
        for length in 0..two(100).len() {
            assert_eq!(check(DELTA_BYTE_ARRAY, &two(100)[..length], 100), Ok(()));
        }
        assert_eq!(check(DELTA_BINARY_PACKED, &[0, 0, 5, 0, 0, 0], 5), Ok(()));
        assert_eq!(check(DELTA_BINARY_PACKED, &[0, 4, 5, 0, 0, 0, 0, 0, 0, 0, 0], 5), Ok(()));
    }
}
