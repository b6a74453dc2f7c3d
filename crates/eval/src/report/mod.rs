//! Figures for people: numbers in, tables and SVG out.

pub mod chart;
pub mod quality;
pub mod quality_chart;
pub mod quality_table;
pub mod svg;
