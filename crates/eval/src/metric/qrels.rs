//! Judgements, as TREC or BEIR files have them: lines in, grades by query and document out.

use std::collections::HashMap;
use std::io::{self, BufRead};

use crate::metric::run::numbered_lines;

/// The first line of a BEIR file, which tells it from a TREC file.
const BEIR_HEADER: [&str; 3] = ["query-id", "corpus-id", "score"];

/// Judgements: for each query the grades of some documents. Documents without one count as not
/// relevant, as do those with a grade below 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Qrels {
    queries: Vec<(String, HashMap<String, i32>)>,
    places: HashMap<String, usize>,
}

/// Why judgements cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QrelsError {
    /// Not a line of judgements.
    #[error(
        "{name}:{line}: {found} fields; judgements have four, parted by blanks (query 0 document \
         grade), or under the header query-id, corpus-id, score three, parted by tabs"
    )]
    Fields {
        /// The file.
        name: String,
        /// The line, counted from 1.
        line: usize,
        /// Fields found.
        found: usize,
    },
    /// The last field is no whole number.
    #[error("{name}:{line}: the grade {grade:?} is not a whole number")]
    Grade {
        /// The file.
        name: String,
        /// The line, counted from 1.
        line: usize,
        /// The field.
        grade: String,
    },
    /// A document is judged twice for one query.
    #[error("{name}:{line}: document {document} is judged a second time for query {query}")]
    Duplicate {
        /// The file.
        name: String,
        /// The line, counted from 1.
        line: usize,
        /// The query's id.
        query: String,
        /// The document's id.
        document: String,
    },
    /// No judgement at all.
    #[error("{name}: the file has no judgements")]
    Empty {
        /// The file.
        name: String,
    },
    /// The file cannot be read, or is not UTF-8.
    #[error("{name}:{line}: cannot be read")]
    Io {
        /// The file.
        name: String,
        /// The line, counted from 1.
        line: usize,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl Qrels {
    /// Reads judgements of TREC (`query 0 document grade`) or BEIR (a header, then query, document
    /// and grade parted by tabs). `name` stands for the file in errors.
    ///
    /// # Errors
    /// [`QrelsError`] names the first line that is wrong.
    pub fn parse(reader: impl BufRead, name: &str) -> Result<Self, QrelsError> {
        let (mut qrels, mut beir) = (Self::default(), false);
        let mut separator: fn(char) -> bool = |c| c == '\t';
        for (line, text) in numbered_lines(reader) {
            let text =
                text.map_err(|source| QrelsError::Io { name: name.to_owned(), line, source })?;
            if line == 1 && text.split_ascii_whitespace().eq(BEIR_HEADER) {
                beir = true;
                if !text.contains('\t') {
                    separator = |c| c == ' ';
                }
                continue;
            }
            let fields: Vec<&str> = match beir {
                true => text.trim_end_matches('\r').split(separator).collect(),
                false => text.split_ascii_whitespace().collect(),
            };
            let (query, document, grade) = match fields[..] {
                _ if text.trim().is_empty() => continue,
                [query, document, grade] if beir => (query, document, grade),
                [query, _, document, grade] if !beir => (query, document, grade),
                _ => {
                    let found = fields.len();
                    return Err(QrelsError::Fields { name: name.to_owned(), line, found });
                }
            };
            let Some(grade) = parse_grade(grade.trim()) else {
                let grade = grade.to_owned();
                return Err(QrelsError::Grade { name: name.to_owned(), line, grade });
            };
            if qrels.grades_of(query).insert(document.to_owned(), grade).is_some() {
                let (query, document) = (query.to_owned(), document.to_owned());
                let name = name.to_owned();
                return Err(QrelsError::Duplicate { name, line, query, document });
            }
        }
        if qrels.queries.is_empty() {
            return Err(QrelsError::Empty { name: name.to_owned() });
        }
        Ok(qrels)
    }

    /// The queries with their grades, in the file's order.
    pub fn queries(&self) -> impl ExactSizeIterator<Item = (&str, &HashMap<String, i32>)> {
        self.queries.iter().map(|(query, grades)| (query.as_str(), grades))
    }

    /// The grades of one query; `None` where nothing was judged.
    #[must_use]
    pub fn grades(&self, query: &str) -> Option<&HashMap<String, i32>> {
        self.places.get(query).map(|&place| &self.queries[place].1)
    }

    /// The judgements of these queries.
    #[must_use]
    pub fn only<'a>(&self, queries: impl IntoIterator<Item = &'a str>) -> Self {
        let mut chosen = Self::default();
        for query in queries {
            if let Some(grades) = self.grades(query) {
                chosen.grades_of(query).clone_from(grades);
            }
        }
        chosen
    }

    fn grades_of(&mut self, query: &str) -> &mut HashMap<String, i32> {
        let next = self.queries.len();
        let place = *self.places.entry(query.to_owned()).or_insert(next);
        if place == next {
            self.queries.push((query.to_owned(), HashMap::new()));
        }
        &mut self.queries[place].1
    }
}

/// Reads a whole number, also one that a table program wrote with a point, as `1.0`.
fn parse_grade(text: &str) -> Option<i32> {
    let whole = || text.strip_suffix(".0").unwrap_or(text).parse();
    text.parse().or_else(|_| whole()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Qrels, String> {
        Qrels::parse(text.as_bytes(), "q").map_err(|error| error.to_string())
    }

    #[test]
    fn both_formats_are_read() {
        let trec = parse("q1 0 a 1\nq1\t0\tb\t-1\n\nq2 0 a 3\n").unwrap();
        let beir =
            parse("query-id\tcorpus-id\tscore\r\nq1\ta\t1\r\nq1\tb\t-1\nq2\ta\t3\n").unwrap();
        assert_eq!(trec, beir);
        assert_eq!(trec.grades("q1").unwrap()["b"], -1);
        assert_eq!(trec.grades("q3"), None);
        assert_eq!(trec.queries().map(|(query, _)| query).collect::<Vec<_>>(), ["q1", "q2"]);
        let floats = "\u{feff}query-id corpus-id score\nq1 a 1.0\nq1 b -1.0\nq2 a 3.0\n";
        assert_eq!(parse(floats).unwrap(), beir);
        let blanks = parse("query-id\tcorpus-id\tscore\nq 1\ta b\t1\n").unwrap();
        assert_eq!(blanks.grades("q 1").unwrap()["a b"], 1);
    }

    #[test]
    fn wrong_lines_are_named() {
        let check = |text: &str, expected: &str| {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("q1 0 a 1\nq1 0 a b 1\n", "q:2: 5 fields");
        check("query-id\tcorpus-id\tscore\nq1\ta\n", "q:2: 2 fields");
        check("q1 0 a 1.5\n", "q:1: the grade \"1.5\" is not a whole number");
        check("q1 0 a 1\nq1 0 a 2\n", "q:2: document a is judged a second time for query q1");
        check("\n", "no judgements");
        check("query-id\tcorpus-id\tscore\n", "no judgements");
        assert!(Qrels::parse(&b"q1 0 a 1\n\xff"[..], "q").unwrap_err().to_string().contains("q:2"));
    }
}
