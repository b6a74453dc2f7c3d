//! Finds the columns of id, title and text: the names in a file come in, positions go out. Knows no format.

use std::fmt;

use hyperrag_core::DocumentField;

use crate::error::CorpusError;

/// Names of columns (Parquet, TSV) or keys (JSONL), for files without the usual ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Name of the id's column if it is not `_id`, `id`, `doc_id` or `docid`.
    pub id: Option<String>,
    /// Name of the title's column if it is not `title`.
    pub title: Option<String>,
    /// Name of the text's column if it is not `text`, `contents` or `body`.
    pub text: Option<String>,
    /// Kind of the rows, which decides the usual names.
    pub rows: RowKind,
}

/// Kind of the rows of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowKind {
    /// Documents.
    #[default]
    Documents,
    /// Queries: an id and a text, with usual names of their own.
    Queries,
}

/// Returns the names that a column may have if none was given.
fn usual_names(rows: RowKind, field: DocumentField) -> &'static [&'static str] {
    if rows == RowKind::Queries {
        return match field {
            DocumentField::Id => &["_id", "id", "qid", "query_id", "query-id"],
            DocumentField::Title => &[],
            DocumentField::Text => &["text", "query", "question"],
        };
    }
    match field {
        DocumentField::Id => &["_id", "id", "doc_id", "docid"],
        DocumentField::Title => &["title"],
        DocumentField::Text => &["text", "contents", "body"],
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

    /// Whether the name is a usual one for this column.
    pub(crate) fn is_usual(&self, field: DocumentField, name: &str) -> bool {
        usual_names(self.rows, field).iter().any(|usual| usual.eq_ignore_ascii_case(name))
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
        let usual = usual_names(self.rows, field).iter().copied().filter(|_| given.is_none());
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
        self.find(field, names).ok_or_else(|| CorpusError::MissingColumn {
            place: place.to_string(),
            field,
            wanted: match self.given(field) {
                Some(name) => quoted(&[name], "no"),
                None => quoted(usual_names(self.rows, field), "no"),
            },
            found: quoted(names, "none"),
        })
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

fn quoted(names: &[&str], none: &str) -> String {
    if names.is_empty() {
        return none.to_owned();
    }
    let shown =
        names.iter().take(NAMES_SHOWN).map(|name| match name.char_indices().nth(NAME_SHOWN) {
            Some((end, _)) => format!("{:?}...", &name[..end]),
            None => format!("{name:?}"),
        });
    let shown = shown.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
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
}
