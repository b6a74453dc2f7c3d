//! The place of a row in the corpus, as messages name it. Reads nothing.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::format::Format;

/// Place of a row in the corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// File as the user named it.
    pub file: Arc<Path>,
    /// Line of a text file, blank lines included, or row of a Parquet file, counted from 1.
    pub row: u64,
}

impl fmt::Display for Place {
    /// Writes `corpus.jsonl:17`, which editors open at that line, or `corpus.parquet row 17`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match Format::of(&self.file) {
            Some(Format::Parquet) => write!(f, "{file} row {}", self.row),
            _ => write!(f, "{file}:{}", self.row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_names_a_line_or_a_row() {
        let check = |file: &str, expected: &str| {
            let place = Place { file: Path::new(file).into(), row: 17 };
            assert_eq!(place.to_string(), expected);
        };
        check("a/corpus.jsonl", "a/corpus.jsonl:17");
        check("corpus.tsv", "corpus.tsv:17");
        check("corpus.parquet", "corpus.parquet row 17");
        check("corpus.PQ", "corpus.PQ row 17");
    }
}
