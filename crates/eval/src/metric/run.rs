//! TREC runs: lines in, candidates by query out, and back.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead};

use hyperrag_files::lines::{LineError, Lines};

/// Longest line of a run or of judgements.
const LINE_BYTES_MAX: usize = 1 << 20;

/// A document that a run names for a query.
#[derive(Clone, Debug, PartialEq)]
pub struct RunHit {
    /// The document's id.
    pub document: String,
    /// The score that the run gives it.
    pub score: f64,
    /// Line in the file, from 1; 0 for a hit that comes from no file.
    pub line: usize,
}

/// A TREC run: for each query a list of documents.
///
/// Queries are in the order in which the file first names them, and so are a query's hits: neither
/// rank nor score reorders them, since a run is read for its candidates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    queries: Vec<(String, Vec<RunHit>)>,
    places: HashMap<String, usize>,
}

/// Why a run cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Not a line of a run file.
    #[error(
        "{name}:{line}: {found} fields, a run has six: query Q0 document rank score tag (an id \
         that contains a blank counts as two)"
    )]
    Fields {
        /// The file.
        name: String,
        /// The line, counted from 1.
        line: usize,
        /// Fields found.
        found: usize,
    },
    /// The fifth field is no finite number.
    #[error("{name}:{line}: the score {score:?} is not a finite number")]
    Score {
        /// The file.
        name: String,
        /// The line, counted from 1.
        line: usize,
        /// The field.
        score: String,
    },
    /// A document stands twice in the list of one query.
    #[error("{name}:{line}: document {document} is named a second time for query {query}")]
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
    /// Something that a run file cannot hold.
    #[error(
        "the {what} {value:?} is empty or contains a blank: a TREC run cannot hold it, use \
         another output format"
    )]
    Unwritable {
        /// Query id, document id or tag.
        what: &'static str,
        /// Text of the field.
        value: String,
    },
    /// A score that is no finite number is not written.
    #[error(
        "the score of document {document:?} for query {query:?} is {score}, not a finite number"
    )]
    UnwritableScore {
        /// The query's id.
        query: String,
        /// The document's id.
        document: String,
        /// The score.
        score: f32,
    },
}

impl Run {
    /// Reads a run: six fields a line, parted by blanks or tabs. Empty lines are passed over; the
    /// second, fourth and sixth field are not looked at. `name` stands for the file in errors.
    ///
    /// # Errors
    /// [`RunError`] names the first line that is wrong.
    pub fn parse(reader: impl BufRead, name: &str) -> Result<Self, RunError> {
        let mut run = Self::default();
        let mut seen: Vec<HashSet<String>> = Vec::new();
        for (line, text) in numbered_lines(reader) {
            let text =
                text.map_err(|source| RunError::Io { name: name.to_owned(), line, source })?;
            let fields: Vec<&str> = text.split_ascii_whitespace().collect();
            let (query, document, score) = match fields[..] {
                [] => continue,
                [query, _, document, _, score, _] => (query, document, score),
                _ => {
                    let found = fields.len();
                    return Err(RunError::Fields { name: name.to_owned(), line, found });
                }
            };
            let score = parse_score(score).ok_or_else(|| RunError::Score {
                name: name.to_owned(),
                line,
                score: score.to_owned(),
            })?;
            let place = run.place(query);
            seen.resize_with(run.queries.len(), HashSet::new);
            if !seen[place].insert(document.to_owned()) {
                return Err(RunError::Duplicate {
                    name: name.to_owned(),
                    line,
                    query: query.to_owned(),
                    document: document.to_owned(),
                });
            }
            run.queries[place].1.push(RunHit { document: document.to_owned(), score, line });
        }
        Ok(run)
    }

    /// The queries and their hits, in the file's order.
    pub fn queries(&self) -> impl ExactSizeIterator<Item = (&str, &[RunHit])> {
        self.queries.iter().map(|(query, hits)| (query.as_str(), hits.as_slice()))
    }

    /// The hits of one query; `None` where the run does not name it.
    #[must_use]
    pub fn hits(&self, query: &str) -> Option<&[RunHit]> {
        self.places.get(query).map(|&place| self.queries[place].1.as_slice())
    }

    /// Takes out each document whose id is its query's, and returns their number. In collections where
    /// queries are documents, such a hit is the query itself.
    pub fn exclude_self(&mut self) -> usize {
        let mut excluded = 0;
        for (query, hits) in &mut self.queries {
            let before = hits.len();
            hits.retain(|hit| hit.document != *query);
            excluded += before - hits.len();
        }
        excluded
    }

    /// Number of queries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether it names no query.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// The query's place, which it gets where it has none.
    fn place(&mut self, query: &str) -> usize {
        if let Some(&place) = self.places.get(query) {
            return place;
        }
        let place = self.queries.len();
        self.queries.push((query.to_owned(), Vec::new()));
        self.places.insert(query.to_owned(), place);
        place
    }
}

/// Joins the hits of a query that comes twice, one list after the other.
impl FromIterator<(String, Vec<RunHit>)> for Run {
    fn from_iter<I: IntoIterator<Item = (String, Vec<RunHit>)>>(queries: I) -> Self {
        let mut run = Self::default();
        for (query, hits) in queries {
            let place = run.place(&query);
            run.queries[place].1.extend(hits);
        }
        run
    }
}

/// The lines of a file, counted from 1, without a byte order mark.
pub(crate) fn numbered_lines(
    reader: impl BufRead,
) -> impl Iterator<Item = (usize, io::Result<String>)> {
    let mut lines = Lines::new(reader, LINE_BYTES_MAX);
    let next = move || match lines.advance() {
        Ok(false) => None,
        Ok(true) => {
            let text = std::str::from_utf8(lines.line()).map(str::to_owned);
            Some((lines.number() as usize, text.map_err(|_| io::Error::other("it is not UTF-8"))))
        }
        Err(error) => {
            let (number, error) = match error {
                LineError::TooLong => {
                    let what = format!("it is longer than {LINE_BYTES_MAX} bytes");
                    (lines.number(), io::Error::other(what))
                }
                LineError::Io(error) => (lines.number() + 1, error),
            };
            Some((number as usize, Err(error)))
        }
    };
    std::iter::from_fn(next)
}

fn parse_score(text: &str) -> Option<f64> {
    text.parse().ok().filter(|score: &f64| score.is_finite())
}

/// The id as a run can hold it: white space of any kind, which parts fields, and control characters
/// are written as `%` and two hexadecimal digits a byte, as in addresses of the web.
#[must_use]
pub fn run_id(id: &str) -> Cow<'_, str> {
    let parts = |character: char| character.is_whitespace() || character.is_control();
    if !id.contains(parts) {
        return Cow::Borrowed(id);
    }
    let mut written = String::new();
    for character in id.chars() {
        match parts(character) {
            false => written.push(character),
            true => {
                let bytes = character.to_string().into_bytes();
                written.extend(bytes.iter().map(|byte| format!("%{byte:02X}")));
            }
        }
    }
    Cow::Owned(written)
}

/// One line of a run file, without the line end. The score is written with as many digits as tell
/// it from every other `f32`.
///
/// # Errors
/// [`RunError::Unwritable`] for an id or a tag that is empty or contains white space of any kind, see
/// [`run_id`]: some readers part fields at white space beyond ASCII. [`RunError::UnwritableScore`] for a score
/// that is not finite.
pub fn run_line(
    query: &str,
    document: &str,
    rank: usize,
    score: f32,
    tag: &str,
) -> Result<String, RunError> {
    for (what, value) in [("query id", query), ("document id", document), ("tag", tag)] {
        if value.is_empty() || value.contains(char::is_whitespace) {
            return Err(RunError::Unwritable { what, value: value.to_owned() });
        }
    }
    if !score.is_finite() {
        let (query, document) = (query.to_owned(), document.to_owned());
        return Err(RunError::UnwritableScore { query, document, score });
    }
    Ok(format!("{query} Q0 {document} {rank} {} {tag}", digits(score)))
}

/// The shortest digits that a reader takes for this score, whether it reads floats of 32 bits or rounds those
/// of 64 bits to them, as `trec_eval` does. `-0` is 0.
fn digits(score: f32) -> String {
    let shortest = (score + 0.0).to_string();
    match shortest.parse::<f64>() {
        Ok(read) if read as f32 == score => shortest,
        _ => f64::from(score).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hit(line: usize, document: &str, score: f64) -> RunHit {
        RunHit { document: document.to_owned(), score, line }
    }

    #[test]
    fn order_is_the_files() {
        let text = "\u{feff}q2 Q0 b 9 -1.5e0 bm25\n\n q1\tQ0\td\t1\t3\tx\r\nq2 0 a one 7 x";
        let run = Run::parse(text.as_bytes(), "r.txt").unwrap();
        let queries: Vec<_> = run.queries().collect();
        assert_eq!(
            queries,
            [("q2", &[hit(1, "b", -1.5), hit(4, "a", 7.0)][..]), ("q1", &[hit(3, "d", 3.0)][..])]
        );
        assert_eq!(run.hits("q1"), Some(&[hit(3, "d", 3.0)][..]));
        assert_eq!((run.hits("q3"), run.len(), run.is_empty()), (None, 2, false));
        assert!(Run::parse(&b"\n \n"[..], "r").unwrap().is_empty());
    }

    #[test]
    fn a_query_is_no_hit_of_itself() {
        let text = "a Q0 a 1 3 t\na Q0 b 2 2 t\nb Q0 a 1 1 t\nc Q0 c 1 1 t\n";
        let mut run = Run::parse(text.as_bytes(), "r").unwrap();
        assert_eq!(run.exclude_self(), 2);
        assert_eq!(run.hits("a"), Some(&[hit(2, "b", 2.0)][..]));
        assert_eq!((run.hits("b").unwrap().len(), run.hits("c")), (1, Some(&[][..])));
    }

    #[test]
    fn errors_name_the_line() {
        let check = |text: &[u8], expected: &str| {
            let error = Run::parse(text, "r.txt").unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        check(b"q Q0 d 1 2 x\nq Q0 my doc 2 1 x", "r.txt:2: 7 fields, a run has six");
        check(b"q Q0 d 1 2", "r.txt:1: 5 fields");
        check(b"q Q0 d 1 high x", "r.txt:1: the score \"high\"");
        check(b"q Q0 d 1 NaN x", "r.txt:1: the score \"NaN\"");
        check(b"q Q0 d 1 -inf x", "r.txt:1: the score");
        check(b"q Q0 d 1 1e999 x", "r.txt:1: the score");
        check(
            b"q Q0 d 1 2 x\nr Q0 d 1 2 x\nq Q0 d 2 1 x",
            "r.txt:3: document d is named a second time for query q",
        );
        check(b"q Q0 d 1 2 x\n\xff Q0 d 1 2 x", "r.txt:2: cannot be read");
    }

    #[test]
    fn ids_that_a_run_cannot_hold_are_refused() {
        let check = |query, document, tag, expected: &str| {
            let error = run_line(query, document, 1, 0.5, tag).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        check("q", "my doc", "x", "the document id \"my doc\"");
        check("q", "my\u{a0}doc", "x", "the document id");
        check("", "d", "x", "the query id \"\"");
        check("q", "d", "a\nb", "the tag \"a\\nb\"");
        assert!(matches!(
            run_line("q", "d", 1, f32::NAN, "x"),
            Err(RunError::UnwritableScore { .. })
        ));
        assert_eq!(run_line("q", "d", 1, -2.5, "x").unwrap(), "q Q0 d 1 -2.5 x");
        assert_eq!(run_line("q", "d", 1, -0.0, "x").unwrap(), "q Q0 d 1 0 x");
        // The shortest digits of this one are those of its neighbour where they are rounded twice.
        let twice = f32::from_bits(0x15ae_43fd);
        assert_ne!(twice.to_string().parse::<f64>().unwrap() as f32, twice);
        assert_eq!(digits(twice).parse::<f64>().unwrap() as f32, twice);
        assert_eq!(run_id("100%-a_b"), "100%-a_b");
        assert_eq!(run_id("my doc\u{a0}\u{3000}\t"), "my%20doc%C2%A0%E3%80%80%09");
    }

    proptest! {
        #[test]
        fn any_id_can_be_written(id in "[ \\PC\t\u{a0}\u{3000}\u{85}]{1,9}") {
            let written = run_id(&id);
            prop_assert!(run_line(&written, &written, 1, 0.5, "t").is_ok());
            let plain = !id.contains(|c: char| c.is_whitespace() || c.is_control());
            prop_assert_eq!(written == id.as_str(), plain);
        }

        #[test]
        fn written_runs_read_back(
            hits in prop::collection::hash_map(r"[^\s\p{C}]{1,9}", any::<f32>(), 0..20),
            query in r"[^\s\p{C}]{1,9}",
        ) {
            let mut text = String::new();
            let mut expected = Vec::new();
            for (rank, (document, score)) in hits.iter().enumerate() {
                match run_line(&query, document, rank + 1, *score, "t") {
                    Ok(line) => {
                        text += &line;
                        text.push('\n');
                        expected.push((document.clone(), *score));
                    }
                    Err(_) => prop_assert!(!score.is_finite()),
                }
            }
            let run = Run::parse(text.as_bytes(), "r").unwrap();
            let read: Vec<(String, f32)> = run
                .hits(&query)
                .unwrap_or_default()
                .iter()
                .map(|hit| (hit.document.clone(), hit.score as f32))
                .collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_are_a_run_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Run::parse(&bytes[..], "r");
        }
    }
}
