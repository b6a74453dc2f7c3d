//! Buffers whose place in memory matters: aligned ones, and weights in large pages.

pub mod aligned;
pub mod huge_pages;
