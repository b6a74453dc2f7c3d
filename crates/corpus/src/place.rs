//! The place of a row in the corpus, as messages name it. Reads nothing.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Place of a row in the corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// File as the user named it.
    pub file: Arc<Path>,
    /// Line of a text file, blank lines included, or row of a Parquet file or a JSON array, counted from 1.
    pub row: u64,
    /// Whether `row` is a line.
    pub is_line: bool,
}

impl Place {
    /// Names a line of a text file.
    pub(crate) fn line(file: &Arc<Path>, line: u64) -> Self {
        Self { file: Arc::clone(file), row: line, is_line: true }
    }

    /// Names a row of a file whose rows are no lines.
    pub(crate) fn row(file: &Arc<Path>, row: u64) -> Self {
        Self { file: Arc::clone(file), row, is_line: false }
    }
}

/// Lists places, the first of `all`, for a message: `lines 3, 7 and 4 more` where the file is one.
pub(crate) fn listed(places: &[Place], all: u64) -> String {
    let one = |other: &Place| places.iter().all(|place| place.file == other.file);
    let rows = places.iter().map(|place| place.row.to_string());
    let (what, names): (_, Vec<String>) = match places.first().filter(|first| one(first)) {
        Some(first) if first.is_line => ("lines ", rows.collect()),
        Some(_) => ("rows ", rows.collect()),
        None => ("", places.iter().map(Place::to_string).collect()),
    };
    let names = names.join(", ");
    match all.saturating_sub(places.len() as u64) {
        0 => format!("{what}{names}"),
        more => format!("{what}{names} and {more} more"),
    }
}

impl fmt::Display for Place {
    /// Writes `corpus.jsonl:17`, which editors open at that line, or `corpus.parquet row 17`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.is_line {
            true => write!(f, "{file}:{}", self.row),
            false => write!(f, "{file} row {}", self.row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_one_file_are_listed_by_their_rows() {
        let file = |name: &str| Path::new(name).into();
        let lines = [3, 7].map(|row| Place::line(&file("a.tsv"), row));
        assert_eq!(listed(&lines, 2), "lines 3, 7");
        let rows = [3, 7].map(|row| Place::row(&file("a.parquet"), row));
        assert_eq!(listed(&rows, 12), "rows 3, 7 and 10 more");
        let of_two = [lines[0].clone(), rows[0].clone()];
        assert_eq!(listed(&of_two, 3), "a.tsv:3, a.parquet row 3 and 1 more");
    }

    #[test]
    fn a_place_names_a_line_or_a_row() {
        assert_eq!(
            Place::line(&Path::new("a/corpus.jsonl").into(), 17).to_string(),
            "a/corpus.jsonl:17"
        );
        assert_eq!(Place::row(&Path::new("corpus.PQ").into(), 17).to_string(), "corpus.PQ row 17");
    }
}
