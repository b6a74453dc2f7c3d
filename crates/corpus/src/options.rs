//! Options of reading a corpus, as its caller chooses them. Reads nothing.

use crate::format::{Format, Quoting};
use crate::limits::Limits;

/// Ways to read files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Limits on memory.
    pub limits: Limits,
    /// Meaning of quotes in TSV.
    pub quoting: Quoting,
    /// Format of the files that are named one by one, whatever their names.
    pub format: Option<Format>,
    /// Whether a file whose name and first bytes do not tell its format is read as TSV.
    pub tsv_by_default: bool,
}
