//! Where the sums of a product go.

use super::{Kernel, Lanes, PANEL, PANELS};

/// Sums of a product, which go where they are wanted while they are in the first-level cache.
pub(crate) struct Tile<'a> {
    /// The first of the rows.
    pub(crate) row: usize,
    /// The first of two panels, counted from the first that the product takes.
    pub(crate) panel: usize,
    /// For each panel, the sums of each row with its columns; none for a second panel that is not there.
    pub(crate) sums: [&'a mut [Lanes]; PANELS],
}

/// Rows of a matrix that sums belong to.
pub(crate) struct Place<'a> {
    /// From the first row's first value on.
    pub(crate) values: &'a mut [f32],
    /// Values from a row to the next.
    pub(crate) stride: usize,
    pub(crate) then: Then,
}

/// What takes the sums of a product.
pub(crate) trait Sink {
    /// Whether it is made to take a few rows at a time, as part of the code that multiplies.
    const TAKES_FEW: bool = false;

    fn take(&mut self, tile: Tile<'_>);

    /// Where those of so many rows and two panels will go, if it is known: it is fetched while they are
    /// computed.
    fn place(&mut self, _row: usize, _panel: usize, _rows: usize) -> Option<Place<'_>> {
        None
    }
}

impl<F: FnMut(Tile<'_>)> Sink for F {
    fn take(&mut self, tile: Tile<'_>) {
        self(tile);
    }
}

/// Rows of a matrix, which take the sums of a product.
pub(crate) struct Rows<'a> {
    pub(crate) kernel: Kernel,
    pub(crate) values: &'a mut [f32],
    /// Values from a row to the next.
    pub(crate) stride: usize,
    /// Columns that the product has.
    pub(crate) columns: usize,
    pub(crate) then: Then,
}

/// What becomes of the sums of a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Put,
    Add,
}

impl<'a> Rows<'a> {
    /// Rows one after the other.
    pub(crate) fn put(kernel: Kernel, values: &'a mut [f32], columns: usize) -> Self {
        Self { kernel, values, stride: columns, columns, then: Then::Put }
    }
}

impl Sink for Rows<'_> {
    fn take(&mut self, tile: Tile<'_>) {
        for (sums, panel) in tile.sums.into_iter().zip(tile.panel..) {
            let Some(last) = sums.len().checked_sub(1) else { continue };
            let column = panel * PANEL;
            let width = PANEL.min(self.columns - column);
            let first = tile.row * self.stride + column;
            let out = &mut self.values[first..][..last * self.stride + width];
            match self.then {
                Then::Put => self.kernel.put(out, self.stride, sums, width),
                Then::Add => self.kernel.add_sums(out, self.stride, sums, width),
            }
        }
    }

    fn place(&mut self, row: usize, panel: usize, rows: usize) -> Option<Place<'_>> {
        let (column, width) = (panel * PANEL, PANELS * PANEL);
        let (first, stride, then) = (row * self.stride + column, self.stride, self.then);
        let values = first..first + (rows - 1) * stride + width;
        (column + width <= self.columns).then(|| Place {
            values: &mut self.values[values],
            stride,
            then,
        })
    }
}
