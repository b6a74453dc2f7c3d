//! Finds the columns of id, title and text: the names in a file come in, positions go out. Knows no format.

use std::fmt;

use hyperrag_core::DocumentField;
use serde::{Deserialize, Serialize};

use crate::error::CorpusError;

/// Names of columns (Parquet, TSV) or keys (JSONL), for files without the usual ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    /// Name of the id's column if it is no usual one ([`usual_names`]).
    pub id: Option<String>,
    /// Name of the title's column if it is no usual one.
    pub title: Option<String>,
    /// Name of the text's column if it is no usual one.
    pub text: Option<String>,
    /// Kind of the rows, which decides the usual names.
    #[serde(skip)]
    pub rows: RowKind,
}

/// The first usual name of titles.
const TITLE: &str = "title";

/// Kind of the rows of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowKind {
    /// Documents.
    #[default]
    Documents,
    /// Queries: an id and a text, with usual names of their own.
    Queries,
}

/// Returns the names that a column of documents may have if none was given. The first that a file has counts.
#[must_use]
pub fn usual_names(field: DocumentField) -> &'static [&'static str] {
    match field {
        DocumentField::Id => {
            &["_id", "id", "doc_id", "docid", "docno", "document_id", "pid", "passage_id"]
        }
        DocumentField::Title => &[TITLE, "heading", "headline", "name"],
        DocumentField::Text => &["text", "contents", "body", "content", "passage", "passage_text"],
    }
}

impl Columns {
    /// Returns the name given for the column, if any.
    pub(crate) fn given(&self, field: DocumentField) -> Option<&str> {
        match field {
            DocumentField::Id => self.id.as_deref(),
            DocumentField::Title => self.title.as_deref(),
            DocumentField::Text => self.text.as_deref(),
        }
    }

    /// Returns the usual names of the column.
    fn usual(&self, field: DocumentField) -> &'static [&'static str] {
        match (self.rows, field) {
            (RowKind::Documents, field) => usual_names(field),
            (RowKind::Queries, DocumentField::Id) => &["_id", "id", "qid", "query_id", "query-id"],
            (RowKind::Queries, DocumentField::Title) => &[],
            (RowKind::Queries, DocumentField::Text) => &["text", "query", "question"],
        }
    }

    /// Whether the name is a usual one for this column.
    pub(crate) fn is_usual(&self, field: DocumentField, name: &str) -> bool {
        self.usual(field).iter().any(|usual| usual.eq_ignore_ascii_case(name))
    }

    /// Whether any column was named.
    pub(crate) fn any_given(&self) -> bool {
        [&self.id, &self.title, &self.text].into_iter().any(Option::is_some)
    }

    /// Finds the column in `names`: the name given, else the first usual name that occurs. Case only decides
    /// between names that differ in nothing else.
    pub(crate) fn find(&self, field: DocumentField, names: &[&str]) -> Option<usize> {
        let given = self.given(field);
        let wanted = given.as_slice().iter().copied();
        let usual = self.usual(field).iter().copied().filter(|_| given.is_none());
        wanted.chain(usual).find_map(|wanted| {
            let exact = names.iter().position(|name| *name == wanted);
            exact.or_else(|| names.iter().position(|name| name.eq_ignore_ascii_case(wanted)))
        })
    }

    /// Finds the column like [`Columns::find`], or returns an error. `place` says where the names stand.
    pub(crate) fn require(
        &self,
        field: DocumentField,
        names: &[&str],
        place: impl fmt::Display,
    ) -> Result<usize, CorpusError> {
        self.find(field, names).ok_or_else(|| self.missing(field, names, place))
    }

    /// Returns the error for a column that is not among `names`.
    pub(crate) fn missing(
        &self,
        field: DocumentField,
        names: &[&str],
        place: impl fmt::Display,
    ) -> CorpusError {
        CorpusError::MissingColumn {
            place: place.to_string(),
            field,
            wanted: match self.given(field) {
                Some(name) => quoted(&[name], 1),
                None => {
                    let names = self.usual(field);
                    quoted(names, names.len())
                }
            },
            found: match names {
                [] => "none".to_owned(),
                names => quoted(names, names.len()),
            },
        }
    }

    /// Whether a column of this name holds titles for certain: it was named, or is called a title. A column of
    /// another usual name counts only if its values can be titles.
    pub(crate) fn is_surely_title(&self, name: &str) -> bool {
        self.title.is_some() || name.eq_ignore_ascii_case(TITLE)
    }

    /// Finds the title's column. A missing one is an error only if it was named.
    pub(crate) fn title(
        &self,
        names: &[&str],
        place: impl fmt::Display,
    ) -> Result<Option<usize>, CorpusError> {
        if self.title.is_none() {
            return Ok(self.find(DocumentField::Title, names));
        }
        self.require(DocumentField::Title, names, place).map(Some)
    }
}

/// Largest number of names in a message.
const NAMES_SHOWN: usize = 10;
/// Largest number of characters of a name in a message.
const NAME_SHOWN: usize = 60;

/// Lists `names`, the first of `all`, for a message.
pub(crate) fn quoted(names: &[&str], all: usize) -> String {
    let shown =
        names.iter().take(NAMES_SHOWN).map(|name| match name.char_indices().nth(NAME_SHOWN) {
            Some((end, _)) => format!("{:?}...", &name[..end]),
            None => format!("{name:?}"),
        });
    let shown = shown.collect::<Vec<_>>().join(", ");
    match all.saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name() {
        let check = |given: Option<&str>, names: &[&str], expected: Option<usize>| {
            let columns = Columns { id: given.map(str::to_owned), ..Columns::default() };
            assert_eq!(columns.find(DocumentField::Id, names), expected, "{given:?} in {names:?}");
        };
        check(None, &["text", "id"], Some(1));
        check(None, &["docid", "doc_id", "id", "_id"], Some(3));
        check(None, &["ID", "text"], Some(0));
        check(None, &["ID", "id"], Some(1));
        check(None, &["key"], None);
        check(Some("key"), &["id", "KEY", "key"], Some(2));
        check(Some("Key"), &["id", "key"], Some(1));
        check(Some("nokey"), &["id"], None);
    }

    #[test]
    fn the_first_usual_name_of_a_file_counts() {
        for field in [DocumentField::Id, DocumentField::Title, DocumentField::Text] {
            let usual = usual_names(field);
            let reversed: Vec<&str> = usual.iter().rev().copied().collect();
            assert_eq!(Columns::default().find(field, &reversed), Some(usual.len() - 1));
        }
        for title in ["title", "heading", "headline", "name", "Heading"] {
            let found = Columns::default().find(DocumentField::Title, &["id", title]);
            assert_eq!(found, Some(1), "{title}");
        }
    }
}
