//! Reads tables of text, TSV and CSV: an open text and column names come in, rows go out. The first line decides
//! the columns, by names or by their number.

use hyperrag_core::{Document, DocumentField};

use crate::columns::{Columns, RowKind};
use crate::error::CorpusError;
use crate::limits::Limits;
use crate::lines::LineReader;
use crate::place::Place;
use crate::quoted::QuotedReader;
use crate::row::{Row, check_length, document_id};
use crate::source::Text;
use crate::taken::ColumnsTaken;

/// Largest number of header names that are read.
const NAMES_MAX: usize = 1 << 16;
/// Lines that are looked at to tell whether all fields stand in quotes.
const LINES_SEEN: usize = 20;

/// Words that name columns and are no usual names. A first line of such words and usual names alone is a header.
const HEADER_WORDS: [&str; 32] = [
    "abstract",
    "answer",
    "article",
    "contents",
    "body",
    "content",
    "corpus-id",
    "corpus_id",
    "doc",
    "docno",
    "document",
    "document_id",
    "heading",
    "headline",
    "key",
    "label",
    "name",
    "paragraph",
    "passage",
    "passage_id",
    "pid",
    "qid",
    "query",
    "query-id",
    "query_id",
    "question",
    "sentence",
    "text",
    "title",
    "topic",
    "uid",
    "url",
];

/// Rows of a table.
pub(crate) struct TableRows {
    records: Records,
    columns: Columns,
    limits: Limits,
    found: Option<TableColumns>,
}

/// Records of a table.
enum Records {
    /// Lines with tabs between the fields.
    Plain(LineReader),
    Quoted(Box<QuotedReader>),
}

/// Number of fields of a record, and the positions of id, title and text.
#[derive(Clone, Copy, Debug)]
struct TableColumns {
    fields: usize,
    id: usize,
    title: Option<usize>,
    text: usize,
    /// Whether the text goes on to the end of the line, tabs included.
    to_end: bool,
}

impl TableRows {
    /// Reads lines with tabs between the fields, in which quotes have no meaning.
    pub(crate) fn plain(text: Text, columns: &Columns, limits: &Limits) -> Self {
        let records = Records::Plain(LineReader::new(text, limits.line_bytes()));
        Self { records, columns: columns.clone(), limits: *limits, found: None }
    }

    /// Reads records whose fields may stand in quotes.
    pub(crate) fn quoted(
        text: Text,
        delimiter: u8,
        columns: &Columns,
        limits: &Limits,
    ) -> Result<Self, CorpusError> {
        let records = QuotedReader::new(text, delimiter, limits.line_bytes())?;
        let (records, columns) = (Records::Quoted(Box::new(records)), columns.clone());
        Ok(Self { records, columns, limits: *limits, found: None })
    }

    /// Tells the columns by the first line; `None` if there is none, or it is no row.
    pub(crate) fn columns_taken(mut self) -> Option<ColumnsTaken> {
        let Ok(true) = self.records.advance() else { return None };
        let record = self.records.record().ok()?;
        let place = self.records.place();
        Some(match TableColumns::of_header(record, &self.columns, &place).ok()? {
            Some(TableColumns { id, title, text, .. }) => {
                ColumnsTaken::new(&record.names().ok()?, id, title, text)
            }
            None => {
                let found = TableColumns::of_record(record, &self.columns, &place).ok()?;
                let TableColumns { fields, id, title, text, .. } = found;
                ColumnsTaken::by_position(fields, id, title, text)
            }
        })
    }

    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, CorpusError> {
        if !self.records.advance()? {
            return Ok(None);
        }
        let columns = match self.found {
            Some(columns) => columns,
            None => {
                let (record, place) = (self.records.record()?, self.records.place());
                let header = TableColumns::of_header(record, &self.columns, &place)?;
                let columns = match header {
                    Some(columns) => columns,
                    None => TableColumns::of_record(record, &self.columns, &place)?,
                };
                self.found = Some(columns);
                if header.is_some() && !self.records.advance()? {
                    return Ok(None);
                }
                columns
            }
        };
        let place = self.records.place();
        let document = columns.document(self.records.record()?, &place)?;
        check_length(&document.title, &document.text, &place, &self.limits)?;
        Ok(Some(Row { document, place, bytes: self.records.take_bytes() }))
    }
}

/// Quotes in the first lines of a TSV file that a writer may have meant to enclose fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuotesSeen {
    /// All fields stand in quotes.
    All,
    /// A field stands in quotes and has only doubled ones in it, as the writers of CSV spell a quote.
    Doubled,
}

/// Looks for fields in quotes in the first lines of a TSV file.
pub(crate) fn quotes_seen(text: Text, limits: &Limits) -> Result<Option<QuotesSeen>, CorpusError> {
    let mut lines = LineReader::new(text, limits.line_bytes());
    let (mut any, mut all, mut doubled) = (false, true, false);
    for _ in 0..LINES_SEEN {
        if !lines.advance()? {
            break;
        }
        for field in lines.text()?.split('\t') {
            let inner = field.strip_prefix('"').and_then(|field| field.strip_suffix('"'));
            all &= field.is_empty() || inner.is_some();
            doubled |= inner.is_some_and(|inner| {
                inner.contains("\"\"") && !inner.replace("\"\"", "").contains('"')
            });
        }
        any = true;
    }
    Ok(match (any && all, doubled) {
        (true, _) => Some(QuotesSeen::All),
        (false, true) => Some(QuotesSeen::Doubled),
        (false, false) => None,
    })
}

impl Records {
    fn advance(&mut self) -> Result<bool, CorpusError> {
        match self {
            Self::Plain(lines) => lines.advance(),
            Self::Quoted(records) => records.advance(),
        }
    }

    fn place(&self) -> Place {
        match self {
            Self::Plain(lines) => lines.place(),
            Self::Quoted(records) => records.place(),
        }
    }

    fn take_bytes(&mut self) -> u64 {
        match self {
            Self::Plain(lines) => lines.take_bytes(),
            Self::Quoted(records) => records.take_bytes(),
        }
    }

    /// Returns the record.
    fn record(&self) -> Result<Record<'_>, CorpusError> {
        Ok(match self {
            Self::Plain(lines) => Record::Line(lines.text()?),
            Self::Quoted(records) => Record::Quoted(records),
        })
    }
}

/// A record of a table.
#[derive(Clone, Copy)]
enum Record<'a> {
    Line(&'a str),
    Quoted(&'a QuotedReader),
}

impl<'a> Record<'a> {
    /// Returns the number of fields.
    fn count(self) -> usize {
        match self {
            Self::Line(line) => line.split('\t').count(),
            Self::Quoted(record) => record.count(),
        }
    }

    /// Returns a field; "" if there are fewer.
    fn field(self, field: usize) -> Result<&'a str, CorpusError> {
        match self {
            Self::Line(line) => Ok(line.split('\t').nth(field).unwrap_or_default()),
            Self::Quoted(record) => record.field(field),
        }
    }

    /// Returns a field; in a line also what follows it.
    fn rest(self, field: usize) -> Result<&'a str, CorpusError> {
        match self {
            Self::Line(line) => Ok(line.splitn(field + 1, '\t').nth(field).unwrap_or_default()),
            Self::Quoted(record) => record.field(field),
        }
    }

    /// Returns the fields of a header.
    fn names(self) -> Result<Vec<&'a str>, CorpusError> {
        match self {
            Self::Line(line) => Ok(line.split('\t').take(NAMES_MAX).collect()),
            Self::Quoted(record) => (0..record.count()).map(|at| record.field(at)).collect(),
        }
    }
}

impl TableColumns {
    /// Finds the columns by a header; `None` if the record is no header. If the user named columns, it must be
    /// one.
    fn of_header(
        record: Record<'_>,
        columns: &Columns,
        place: &Place,
    ) -> Result<Option<Self>, CorpusError> {
        let names = record.names()?;
        if !columns.any_given() && !is_header(&names, columns) {
            return Ok(None);
        }
        let id = columns.require(DocumentField::Id, &names, place)?;
        let text = columns.require(DocumentField::Text, &names, place)?;
        let title = columns.title(&names, place)?;
        Ok(Some(Self { fields: record.count(), id, title, text, to_end: false }))
    }

    /// Finds the columns by the number of fields.
    fn of_record(
        record: Record<'_>,
        columns: &Columns,
        place: &Place,
    ) -> Result<Self, CorpusError> {
        let fields = record.count();
        if columns.rows == RowKind::Queries {
            return Ok(Self { fields: 2, id: 0, title: None, text: 1, to_end: true });
        }
        let (title, text) = match fields {
            2 => (None, 1),
            3 => (Some(1), 2),
            4 => (Some(2), 3),
            _ => return Err(CorpusError::TableFields { place: place.clone(), fields }),
        };
        Ok(Self { fields, id: 0, title, text, to_end: false })
    }

    fn document(self, record: Record<'_>, place: &Place) -> Result<Document, CorpusError> {
        let fields = record.count();
        let plain = matches!(record, Record::Line(_));
        if fields < self.fields && self.to_end {
            return Err(CorpusError::QueryFields { place: place.clone(), fields });
        }
        if fields != self.fields && !(self.to_end && plain) {
            let (place, expected) = (place.clone(), self.fields);
            return Err(CorpusError::TableUneven { place, fields, expected });
        }
        let id = document_id(record.field(self.id)?, place)?;
        let title = self.title.map_or(Ok(""), |title| record.field(title))?.to_owned();
        let text = match self.to_end {
            true => record.rest(self.text)?,
            false => record.field(self.text)?,
        };
        Ok(Document { id, title, text: text.to_owned() })
    }
}

/// Whether the fields of a first record are names of columns: the first is a usual name of ids, or usual names of
/// ids and of texts are among them, or all are words that name columns.
fn is_header(names: &[&str], columns: &Columns) -> bool {
    let is_id = |name: &&str| columns.is_usual(DocumentField::Id, name);
    let is_text = |name: &&str| columns.is_usual(DocumentField::Text, name);
    let is_word = |name: &&str| {
        columns.is_usual(DocumentField::Title, name)
            || HEADER_WORDS.iter().any(|word| word.eq_ignore_ascii_case(name))
    };
    names.first().is_some_and(is_id)
        || names.iter().any(is_id) && names.iter().any(is_text)
        || names.len() > 1 && names.iter().all(|name| is_id(name) || is_text(name) || is_word(name))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::source::Source;
    use crate::testing::Folder;

    fn read(text: &str, columns: &Columns) -> String {
        read_as(text, columns, false)
    }

    fn read_as(text: &str, columns: &Columns, is_csv: bool) -> String {
        let folder = Folder::new();
        let path = folder.write("c.tsv", text.as_bytes());
        let limits = Limits::default();
        let text = Source::of_file(Path::new(&path), 0).open(&limits).unwrap();
        let mut rows = match is_csv {
            true => TableRows::quoted(text, b',', columns, &limits).unwrap(),
            false => TableRows::plain(text, columns, &limits),
        };
        let mut out = Vec::new();
        loop {
            match rows.next_row() {
                Ok(None) => break,
                Ok(Some(Row { document: d, place, .. })) => {
                    out.push(format!("{}:{}/{}/{}", place.row, d.id, d.title, d.text));
                }
                Err(error) => {
                    out.push(error.to_string().replace(folder.path(), "DIR"));
                    break;
                }
            }
        }
        out.join("|")
    }

    #[test]
    fn fields_are_told_apart_by_their_number() {
        let check = |text: &str, expected: &str| {
            assert_eq!(read(text, &Columns::default()), expected, "{text:?}");
        };
        check("", "");
        check("1\ta b\n2\t\"q\"\r\n", "1:1//a b|2:2//\"q\"");
        check("1\tT\ta\n2\t\tb\n", "1:1/T/a|2:2//b");
        check("D1\thttp://x\tT\ta", "1:D1/T/a");
        check("1\t\n", "1:1//");
    }

    #[test]
    fn a_header_names_the_columns() {
        let check = |text: &str, expected: &str| {
            assert_eq!(read(text, &Columns::default()), expected, "{text:?}");
        };
        check("id\ttext\ttitle\n1\ta\tT\n", "2:1/T/a");
        check("url\tTEXT\tx\ty\tDocId\nu\ta\tb\tc\t1\n", "2:1//a");
        check("_id\ttext\n", "");
        check("key\tb\n1\ta", "1:key//b|2:1//a");
        check("text\ta\n1\tid", "1:text//a|2:1//id");
        let columns = Columns { text: Some("abstract".into()), ..Columns::default() };
        assert_eq!(read("text\tid\tabstract\nx\t1\ta", &columns), "2:1//a");
    }

    #[test]
    fn a_header_without_usual_names_is_no_document() {
        let check = |text: &str, expected: &str| {
            let read = read(text, &Columns::default());
            assert!(read.contains(expected) && !read.contains('|'), "{text}: {read}");
        };
        check("uid\tsentence\n1\ta", "DIR/c.tsv:1: no id column: looked for");
        check("key\tText\n1\ta", "DIR/c.tsv:1: no id column: looked for");
        check("id\tb\n1\ta", "DIR/c.tsv:1: no text column: looked for");
        let columns = Columns { id: Some("uid".into()), ..Columns::default() };
        assert_eq!(read("uid\ttext\n1\ta", &columns), "2:1//a");
        assert_eq!(read("pid\tpassage\n1\ta", &Columns::default()), "2:1//a");
    }

    #[test]
    fn queries_have_names_of_their_own_and_texts_with_tabs() {
        let columns = Columns { rows: RowKind::Queries, ..Columns::default() };
        let check = |text: &str, expected: &str| {
            assert_eq!(read(text, &columns), expected, "{text:?}");
        };
        check("q1\ta\tb\nq2\tc", "1:q1//a\tb|2:q2//c");
        check("qid\tquery\nq1\ta", "2:q1//a");
        check("query\tquery-id\tx\na\tq1\tb", "2:q1//a");
        check("18446744073709551616\ta", "1:18446744073709551616//a");
        check("q1\ta\nq2", "1:q1//a|DIR/c.tsv:2: expected an id, a tab and the query");
        check("q1\ta\n\tb", "1:q1//a|DIR/c.tsv:2: the id is empty");
        let csv = |text: &str| read_as(text, &columns, true);
        assert_eq!(csv("q1,\"a, b\"\nq2,c\n"), "1:q1//a, b|2:q2//c");
        assert!(csv("q1,a,b\n").contains("the number of fields is 3, that of the first line 2"));
    }

    #[test]
    fn csv_has_quotes_and_headers() {
        let check = |text: &str, expected: &str| {
            assert_eq!(read_as(text, &Columns::default(), true), expected, "{text:?}");
        };
        check("id,title,text\n1,T,\"a \"\"b\"\",\nc\"\n2,,d\n", "2:1/T/a \"b\",\nc|4:2//d");
        check("1,\"a, b\"\r\n2,c\r\n", "1:1//a, b|2:2//c");
        check("1,T,a\n", "1:1/T/a");
        check(
            "id,text\n1,a,b\n",
            "DIR/c.tsv:2: the number of fields is 3, that of the first line 2; a text with a \
             delimiter or a line end must stand in quotes that are read, or have blanks for them",
        );
    }

    #[test]
    fn texts_in_quotes_are_noticed() {
        let check = |text: &str, expected: Option<QuotesSeen>| {
            let folder = Folder::new();
            let path = folder.write("c.tsv", text.as_bytes());
            let limits = Limits::default();
            let text = Source::of_file(Path::new(&path), 0).open(&limits).unwrap();
            assert_eq!(quotes_seen(text, &limits).unwrap(), expected);
        };
        check("\"id\"\t\"text\"\n\"1\"\t\"a\"\"b\"\n\"2\"\t\n", Some(QuotesSeen::All));
        check("1\t\"a\"\"b\"\n2\tc\n", Some(QuotesSeen::Doubled));
        check("1\t\"a\" and \"b\"\n2\t\"\n", None);
        check("1\t\"a\"\n", None);
        check("\"1\"\t\"a\"\n2\tb\n", None);
        check("", None);
    }

    #[test]
    fn bad_lines_are_named() {
        let check = |text: &str, columns: &Columns, expected: &str| {
            let error = read(text, columns);
            assert!(error.contains(expected), "{error}");
        };
        let usual = Columns::default();
        check(
            "one field",
            &usual,
            "DIR/c.tsv:1: the number of fields is 1; it must be 2 (id, text)",
        );
        check("1\t2\t3\t4\t5", &usual, "DIR/c.tsv:1: the number of fields is 5");
        check(
            "1\ta\n\n2\tb\tc",
            &usual,
            "DIR/c.tsv:3: the number of fields is 3, that of the first line 2",
        );
        check("id\ttext\n1", &usual, "DIR/c.tsv:2: the number of fields is 1");
        check("1\ta\n\tb", &usual, "DIR/c.tsv:2: the id is empty");
        let columns = Columns { text: Some("abstract".into()), ..Columns::default() };
        check(
            "id\ttext\n1\ta",
            &columns,
            "no text column: looked for \"abstract\", found \"id\", \"text\"",
        );
        let columns = Columns { title: Some("head".into()), ..Columns::default() };
        check("id\ttext\n1\ta", &columns, "DIR/c.tsv:1: no title column: looked for \"head\"");
    }
}
