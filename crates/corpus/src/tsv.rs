//! Reads TSV, one document a line: a file and column names come in, rows go out. The first line decides the
//! columns, by names or by their number. Quotes have no meaning.

use std::path::Path;
use std::sync::Arc;

use hyperrag_core::{Document, DocumentField};

use crate::columns::Columns;
use crate::error::CorpusError;
use crate::limits::Limits;
use crate::lines::LineReader;
use crate::place::Place;
use crate::row::{Row, check_length, document_id};
use crate::taken::ColumnsTaken;

/// Largest number of header names that are read.
const NAMES_MAX: usize = 1 << 16;

/// Rows of a TSV file: fields between tabs, without quoting.
pub(crate) struct TsvRows {
    lines: LineReader,
    columns: Columns,
    limits: Limits,
    found: Option<TsvColumns>,
}

/// Number of fields of a line, and the positions of id, title and text.
#[derive(Clone, Copy, Debug)]
struct TsvColumns {
    fields: usize,
    id: usize,
    title: Option<usize>,
    text: usize,
}

impl TsvRows {
    pub(crate) fn open(
        file: &Arc<Path>,
        columns: &Columns,
        limits: &Limits,
    ) -> Result<Self, CorpusError> {
        let lines = LineReader::open(file, limits.line_bytes())?;
        Ok(Self { lines, columns: columns.clone(), limits: *limits, found: None })
    }

    /// Tells the columns of the header; `None` if there is none.
    pub(crate) fn columns_taken(mut self) -> Option<ColumnsTaken> {
        let Ok(true) = self.lines.advance() else { return None };
        let line = self.lines.text().ok()?;
        let header = TsvColumns::of_header(line, &self.columns, &self.lines.place()).ok()?;
        let TsvColumns { id, title, text, .. } = header?;
        let names: Vec<&str> = line.split('\t').take(NAMES_MAX).collect();
        Some(ColumnsTaken::new(&names, id, title, text))
    }

    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, CorpusError> {
        if !self.lines.advance()? {
            return Ok(None);
        }
        let columns = match self.found {
            Some(columns) => columns,
            None => {
                let line = self.lines.text()?;
                let header = TsvColumns::of_header(line, &self.columns, &self.lines.place())?;
                let columns = match header {
                    Some(columns) => columns,
                    None => TsvColumns::of_line(line, &self.lines.place())?,
                };
                self.found = Some(columns);
                if header.is_some() && !self.lines.advance()? {
                    return Ok(None);
                }
                columns
            }
        };
        let place = self.lines.place();
        let document = columns.document(self.lines.text()?, &place)?;
        check_length(&document.title, &document.text, &place, &self.limits)?;
        Ok(Some(Row { document, place, bytes: self.lines.take_bytes() }))
    }
}

impl TsvColumns {
    /// Finds the columns by a header; `None` if the line is no header. If the user named columns, it must be
    /// one.
    fn of_header(
        line: &str,
        columns: &Columns,
        place: &Place,
    ) -> Result<Option<Self>, CorpusError> {
        let names: Vec<&str> = line.split('\t').take(NAMES_MAX).collect();
        let id = columns.require(DocumentField::Id, &names, place);
        let text = columns.require(DocumentField::Text, &names, place);
        if !columns.any_given() && (id.is_err() || text.is_err()) {
            return Ok(None);
        }
        let title = columns.title(&names, place)?;
        Ok(Some(Self { fields: line.split('\t').count(), id: id?, title, text: text? }))
    }

    /// Finds the columns by the number of fields.
    fn of_line(line: &str, place: &Place) -> Result<Self, CorpusError> {
        let fields = line.split('\t').count();
        let (title, text) = match fields {
            2 => (None, 1),
            3 => (Some(1), 2),
            4 => (Some(2), 3),
            _ => return Err(CorpusError::TsvFields { place: place.clone(), fields }),
        };
        Ok(Self { fields, id: 0, title, text })
    }

    fn document(self, line: &str, place: &Place) -> Result<Document, CorpusError> {
        let fields = line.split('\t').count();
        if fields != self.fields {
            let (place, expected) = (place.clone(), self.fields);
            return Err(CorpusError::TsvUneven { place, fields, expected });
        }
        let field = |place: usize| line.split('\t').nth(place).unwrap_or_default();
        let id = document_id(field(self.id), place)?;
        let title = self.title.map_or("", field).to_owned();
        Ok(Document { id, title, text: field(self.text).to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    fn read(text: &str, columns: &Columns) -> String {
        let folder = Folder::new();
        let path = folder.write("c.tsv", text.as_bytes());
        let mut rows =
            TsvRows::open(&Path::new(&path).into(), columns, &Limits::default()).unwrap();
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
        check("id\tb\n1\ta", "1:id//b|2:1//a");
        let columns = Columns { text: Some("abstract".into()), ..Columns::default() };
        assert_eq!(read("text\tid\tabstract\nx\t1\ta", &columns), "2:1//a");
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
        check("1\ta\n\tb", &usual, "DIR/c.tsv:2: the document id is empty");
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
