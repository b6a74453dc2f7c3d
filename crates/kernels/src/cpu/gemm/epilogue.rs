//! Epilogues, which take the sums of a product tile by tile while these are in the first-level cache. They do
//! not know what was multiplied.

use crate::cpu::gemm::blocking::PANELS;
use crate::isa::Kernel;
use crate::lanes::{Lanes, PANEL};

/// Sums of a product, which go where they are wanted while they are in the first-level cache.
pub struct Tile<'a> {
    /// The first of the rows.
    pub row: usize,
    /// The first of two panels, counted from the first that the product takes.
    pub panel: usize,
    /// For each panel, the sums of each row with its columns; none for a second panel that is not there.
    pub sums: [&'a mut [Lanes]; PANELS],
}

/// Rows of a matrix that sums belong to.
pub struct Destination<'a> {
    /// From the first row's first value on.
    pub values: &'a mut [f32],
    /// Values from a row to the next.
    pub stride: usize,
    /// Operation by which sums go to their place.
    pub op: StoreOp,
}

/// Receiver of the sums of a product.
pub trait Epilogue {
    /// True if it is made to take a few rows at a time, as part of the code that multiplies.
    const TAKES_FEW: bool = false;

    /// Takes the sums of a tile.
    fn take(&mut self, tile: Tile<'_>);

    /// Destination where the sums of so many rows and two panels will go, if it is known: it is fetched while
    /// they are computed.
    fn destination(&mut self, _row: usize, _panel: usize, _rows: usize) -> Option<Destination<'_>> {
        None
    }
}

impl<F: FnMut(Tile<'_>)> Epilogue for F {
    #[inline]
    fn take(&mut self, tile: Tile<'_>) {
        self(tile);
    }
}

/// Rows of a matrix, which take the sums of a product.
pub struct OutputRows<'a> {
    /// Instruction set that writes them.
    pub kernel: Kernel,
    /// Values of all rows.
    pub values: &'a mut [f32],
    /// Values from a row to the next.
    pub stride: usize,
    /// Columns that the product has.
    pub columns: usize,
    /// Operation by which sums go to their place.
    pub op: StoreOp,
}

/// Operation by which sums go to their place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum StoreOp {
    /// Overwrites what is there.
    Put,
    /// Adds to what is there.
    Add,
}

impl<'a> OutputRows<'a> {
    /// Rows one after the other, which are overwritten.
    #[inline]
    pub fn put(kernel: Kernel, values: &'a mut [f32], columns: usize) -> Self {
        Self { kernel, values, stride: columns, columns, op: StoreOp::Put }
    }
}

impl Epilogue for OutputRows<'_> {
    #[inline]
    fn take(&mut self, tile: Tile<'_>) {
        for (sums, panel) in tile.sums.into_iter().zip(tile.panel..) {
            let Some(last) = sums.len().checked_sub(1) else { continue };
            let column = panel * PANEL;
            let width = PANEL.min(self.columns - column);
            let first = tile.row * self.stride + column;
            let out = &mut self.values[first..][..last * self.stride + width];
            match self.op {
                StoreOp::Put => self.kernel.put(out, self.stride, sums, width),
                StoreOp::Add => self.kernel.add_sums(out, self.stride, sums, width),
            }
        }
    }

    #[inline]
    fn destination(&mut self, row: usize, panel: usize, rows: usize) -> Option<Destination<'_>> {
        let (column, width) = (panel * PANEL, PANELS * PANEL);
        let (first, stride, op) = (row * self.stride + column, self.stride, self.op);
        let values = first..first + (rows - 1) * stride + width;
        (column + width <= self.columns).then(|| Destination {
            values: &mut self.values[values],
            stride,
            op,
        })
    }
}
