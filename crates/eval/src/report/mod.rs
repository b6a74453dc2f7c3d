//! Figures as pictures: numbers in, SVG out.

pub mod chart;
pub mod svg;
