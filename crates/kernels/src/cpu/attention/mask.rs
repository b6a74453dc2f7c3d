//! The mask of causal attention: a row comes in, the span of columns that it sees goes out.

use std::ops::Range;

/// Mask of a matrix of scores: a row sees the columns up to its own, or a window of them.
#[derive(Clone, Copy)]
pub struct CausalMask {
    /// Column of the first rows themselves.
    pub first: usize,
    /// Rows that have the same columns: query heads that share K and V.
    pub group: usize,
    /// Columns that a row sees at most.
    pub window: usize,
}

impl CausalMask {
    /// Columns that `row` sees.
    #[inline]
    #[must_use]
    pub fn span(self, row: usize) -> Range<usize> {
        let end = self.first + row / self.group + 1;
        end.saturating_sub(self.window)..end
    }
}
