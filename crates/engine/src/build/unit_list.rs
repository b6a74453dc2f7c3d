//! The units of a whole input: a corpus comes in, the number and digest of the rows of each unit go out. It knows
//! no model and no place.

use hyperrag_core::LanguageModel;
use hyperrag_store::{UnitsDigest, UnitsHasher};

use crate::build::partition::{UnitRows, Units};
use crate::build::plan::BuildInput;
use crate::error::EngineError;

/// Units of an input, in order.
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
