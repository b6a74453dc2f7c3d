//! Rows that cannot be read, as a reader leaves them out or ends with them: errors come in, their number and one error
//! go out. Reads nothing.

use crate::error::CorpusError;

/// Rows that cannot be read.
#[derive(Debug, Default)]
pub struct BadRows {
    /// Number of these rows.
    pub count: u64,
    /// Errors of the first [`BadRows::SHOWN`].
    pub first: Vec<CorpusError>,
}

impl BadRows {
    /// Largest number of rows whose errors are kept.
    pub const SHOWN: usize = 10;

    /// Adds a row by its error.
    pub(crate) fn add(&mut self, error: CorpusError) {
        self.count += 1;
        if self.first.len() < Self::SHOWN {
            self.first.push(error);
        }
    }

    /// Returns one error for all these rows; `None` if there are none.
    #[must_use]
    pub fn into_error(self) -> Option<CorpusError> {
        let mut errors = self.first.into_iter();
        let first = errors.next()?;
        let rest = BadRows { count: self.count - 1, first: errors.collect() };
        Some(rest.after(first, true))
    }

    /// Returns the error for `first` and for these rows after it. `is_all`: there are no more.
    pub(crate) fn after(self, first: CorpusError, is_all: bool) -> CorpusError {
        if self.count == 0 {
            return first;
        }
        let errors = std::iter::once(&first).chain(&self.first);
        let places = errors.filter_map(CorpusError::place_of_row).take(Self::SHOWN).cloned();
        let (places, count) = (places.collect(), self.count + 1);
        CorpusError::BadRows { first: Box::new(first), places, count, is_all }
    }
}
