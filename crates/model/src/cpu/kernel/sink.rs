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

/// What takes the sums of a product.
pub(crate) trait Sink {
    fn take(&mut self, tile: Tile<'_>);

    /// Where those of so many rows and two panels may be put right away, rather than taken: the values
    /// from the first row's first on, and how many there are from a row to the next.
    fn place(&mut self, _row: usize, _panel: usize, _rows: usize) -> Option<(&mut [f32], usize)> {
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

    fn place(&mut self, row: usize, panel: usize, rows: usize) -> Option<(&mut [f32], usize)> {
        let (column, width) = (panel * PANEL, PANELS * PANEL);
        let whole = self.then == Then::Put && column + width <= self.columns;
        let first = row * self.stride + column;
        whole.then(|| (&mut self.values[first..][..(rows - 1) * self.stride + width], self.stride))
    }
}
