//! Registers as plain arrays: 16 floats, pairs of bf16, fours of int8, and the order in which lanes are
//! joined to one sum. No instruction set is named here.

use bytemuck::{Pod, Zeroable};

/// Partial sums of a row sum, and floats of a [`Lanes`].
pub const LANES: usize = 16;

/// Columns of a panel: one 512-bit register, so that a panel is read from end to end by the kernels
/// of every instruction set, and fills a first-level cache's sets evenly.
pub const PANEL: usize = LANES;

/// Number of panels that `columns` columns take.
#[inline]
#[must_use]
pub const fn panels_of(columns: usize) -> usize {
    columns.div_ceil(PANEL)
}

/// A register's worth of floats, aligned so that no load crosses a cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Lanes(pub [f32; LANES]);

impl Lanes {
    /// All lanes 0.
    pub const ZERO: Self = Self([0.0; LANES]);
}

/// A register's worth of pairs of bf16, the first of a pair in the low half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Pairs(pub [u32; LANES]);

impl Pairs {
    /// All values 0.
    pub const ZERO: Self = Self([0; LANES]);
}

/// A register's worth of fours of int8.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Quads(pub(crate) [i8; 4 * LANES]);

impl Default for Quads {
    fn default() -> Self {
        Self([0; 4 * LANES])
    }
}

/// Sums of products of int8.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Sums(pub(crate) [i32; LANES]);

impl Sums {
    pub(crate) const ZERO: Self = Self([0; LANES]);
}

/// The high half of a pair: with zeros below, its second bf16 as f32.
const HIGH: u32 = 0xffff_0000;

/// Splits a pair into its two values.
#[inline(always)]
#[must_use]
pub fn halves(pair: u32) -> [f32; 2] {
    [pair << 16, pair & HIGH].map(f32::from_bits)
}

/// Joins lanes as a tree: each with the one that is half of them further on.
#[inline(always)]
pub(crate) fn tree(lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    #[inline(always)]
    fn halve<const N: usize, const M: usize>(
        lanes: [f32; N],
        join: &impl Fn(f32, f32) -> f32,
    ) -> [f32; M] {
        std::array::from_fn(|i| join(lanes[i], lanes[i + M]))
    }
    let lanes: [f32; 8] = halve(lanes, &join);
    let lanes: [f32; 4] = halve(lanes, &join);
    let lanes: [f32; 2] = halve(lanes, &join);
    join(lanes[0], lanes[1])
}

/// Joins partial sums to one.
#[inline(always)]
pub(crate) fn join(lanes: [f32; LANES]) -> f32 {
    tree(lanes, |a, b| a + b)
}
