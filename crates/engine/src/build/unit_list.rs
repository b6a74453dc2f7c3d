//! The units of a whole input: a corpus comes in, the number and digest of the rows of each unit go out, also as
//! bytes for those who need not count them again. It knows no model and no place.

use hyperrag_core::{Digest, LanguageModel};
use hyperrag_store::{UnitsDigest, UnitsHasher};

use crate::build::partition::{UnitRows, Units};
use crate::build::plan::BuildInput;
use crate::error::EngineError;

/// Bytes of a digest.
const DIGEST_BYTES: usize = 32;
/// Bytes of a unit: its rows as 8 bytes, the lowest first, and their digest.
const UNIT_BYTES: usize = 8 + DIGEST_BYTES;
/// Bytes before the units: rows without text, rows that cannot be read, rows in which a character was replaced.
const COUNTS_BYTES: usize = 24;

/// Units of an input, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnitList {
    units: Vec<UnitRows>,
    /// Rows without any text.
    pub(crate) empty_rows: u64,
    /// Rows left out because they cannot be read.
    pub(crate) bad_rows: u64,
    /// Rows in which half a surrogate pair was replaced.
    pub(crate) lossy_rows: u64,
}

impl UnitList {
    /// Reads the input to its end. An id that occurs twice is refused, as by every build.
    pub(crate) fn of<M: LanguageModel>(input: &BuildInput<'_, M>) -> Result<Self, EngineError> {
        let mut reader = Units::new(input);
        let mut units = Vec::new();
        while let Some(unit) = reader.measure_unit()? {
            units.push(unit);
        }
        let (bad_rows, lossy_rows) = (reader.bad_rows(), reader.lossy_rows());
        Ok(Self { units, empty_rows: reader.empty_rows, bad_rows, lossy_rows })
    }

    /// Returns the list as bytes, their digest at the end.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let length = COUNTS_BYTES + self.units.len() * UNIT_BYTES + DIGEST_BYTES;
        let mut bytes = Vec::with_capacity(length);
        for count in [self.empty_rows, self.bad_rows, self.lossy_rows] {
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        for unit in &self.units {
            bytes.extend_from_slice(&unit.rows.to_le_bytes());
            bytes.extend_from_slice(&unit.digest.0);
        }
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(&digest.0);
        bytes
    }

    /// Returns the length of the bytes of a list.
    pub(crate) fn bytes_of(units: u32) -> u64 {
        (COUNTS_BYTES + DIGEST_BYTES) as u64 + u64::from(units) * UNIT_BYTES as u64
    }

    /// Parses the bytes of a list of these units; `None` if they are no such list.
    pub(crate) fn parse(bytes: &[u8], expected: &UnitsDigest) -> Option<Self> {
        let (body, digest) = bytes.split_last_chunk::<DIGEST_BYTES>()?;
        if bytes.len() as u64 != Self::bytes_of(expected.units) || Digest::of(body).0 != *digest {
            return None;
        }
        let number = |bytes: &[u8]| Some(u64::from_le_bytes(*bytes.first_chunk()?));
        let (counts, units) = body.split_at_checked(COUNTS_BYTES)?;
        let unit = |bytes: &[u8]| {
            let rows = number(bytes)?;
            Some(UnitRows { rows, digest: Digest(*bytes.last_chunk()?) })
        };
        let list = Self {
            units: units.chunks(UNIT_BYTES).map(unit).collect::<Option<_>>()?,
            empty_rows: number(counts)?,
            bad_rows: number(counts.get(8..)?)?,
            lossy_rows: number(counts.get(16..)?)?,
        };
        (list.digest() == *expected).then_some(list)
    }

    /// Returns the digest of all units.
    pub(crate) fn digest(&self) -> UnitsDigest {
        let mut hasher = UnitsHasher::default();
        self.units.iter().for_each(|unit| hasher.add(unit.rows, &unit.digest));
        hasher.finish()
    }

    /// Returns a unit by its number; `None` past the end.
    pub(crate) fn unit(&self, number: u32) -> Option<UnitRows> {
        self.units.get(number as usize).copied()
    }

    /// Returns the number of the first row of a unit.
    pub(crate) fn first_row(&self, number: u32) -> u64 {
        self.units.iter().take(number as usize).map(|unit| unit.rows).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_back_and_others_are_not() {
        let unit = |n: u8| UnitRows { rows: u64::from(n) * 3, digest: Digest([n; 32]) };
        let list = UnitList {
            units: (1..=5).map(unit).collect(),
            empty_rows: 1,
            bad_rows: 2,
            lossy_rows: 3,
        };
        let (bytes, digest) = (list.to_bytes(), list.digest());
        assert_eq!(bytes.len() as u64, UnitList::bytes_of(5));
        assert_eq!(UnitList::parse(&bytes, &digest), Some(list));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(UnitList::parse(&damaged, &digest), None, "{at}");
            assert_eq!(UnitList::parse(&bytes[..at], &digest), None, "{at}");
        }
        let other = UnitsDigest { digest: Digest([0; 32]), ..digest };
        assert_eq!(UnitList::parse(&bytes, &other), None);
    }
}
