use std::fmt;

use crate::CorpusError;

/// Which column (Parquet, TSV) or key (JSONL) holds what, where the usual names do not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Name of the id's column, if not `_id`, `id`, `doc_id` or `docid`.
    pub id: Option<String>,
    /// Name of the title's column, if not `title`.
    pub title: Option<String>,
    /// Name of the text's column, if not `text`, `contents` or `body`.
    pub text: Option<String>,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The document's id.
    Id,
    /// Its title, which a corpus need not have.
    Title,
    /// Its text.
    Text,
}

impl Column {
    /// The flag of the command line that names the column.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Id => "--id-column",
            Self::Title => "--title-column",
            Self::Text => "--text-column",
        }
    }

    /// What its values may be, for messages.
    pub(crate) fn rule(self) -> &'static str {
        match self {
            Self::Id => "a string or a whole number",
            Self::Title | Self::Text => "a string or null",
        }
    }

    fn usual_names(self) -> &'static [&'static str] {
        match self {
            Self::Id => &["_id", "id", "doc_id", "docid"],
            Self::Title => &["title"],
            Self::Text => &["text", "contents", "body"],
        }
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id => "id",
            Self::Title => "title",
            Self::Text => "text",
        })
    }
}

impl Columns {
    /// The name given for the column, if one was.
    pub(crate) fn given(&self, column: Column) -> Option<&str> {
        match column {
            Column::Id => self.id.as_deref(),
            Column::Title => self.title.as_deref(),
            Column::Text => self.text.as_deref(),
        }
    }

    /// Whether any column was named.
    pub(crate) fn any_given(&self) -> bool {
        [&self.id, &self.title, &self.text].into_iter().any(Option::is_some)
    }

    /// Which of `names` is the column: the name given, else the first usual name that occurs. The
    /// case counts only where two names differ by nothing else.
    pub(crate) fn find(&self, column: Column, names: &[&str]) -> Option<usize> {
        let given = self.given(column);
        let wanted = given.as_slice().iter().copied();
        let usual = column.usual_names().iter().copied().filter(|_| given.is_none());
        wanted.chain(usual).find_map(|wanted| {
            let exact = names.iter().position(|name| *name == wanted);
            exact.or_else(|| names.iter().position(|name| name.eq_ignore_ascii_case(wanted)))
        })
    }

    /// The column that [`Columns::find`] gives, or an error; `place` says whose names these are.
    pub(crate) fn require(
        &self,
        column: Column,
        names: &[&str],
        place: impl fmt::Display,
    ) -> Result<usize, CorpusError> {
        self.find(column, names).ok_or_else(|| CorpusError::MissingColumn {
            place: place.to_string(),
            column,
            wanted: match self.given(column) {
                Some(name) => quoted(&[name], "no"),
                None => quoted(column.usual_names(), "no"),
            },
            found: quoted(names, "none"),
        })
    }

    /// The title's column: none is an error only where it was named.
    pub(crate) fn title(
        &self,
        names: &[&str],
        place: impl fmt::Display,
    ) -> Result<Option<usize>, CorpusError> {
        if self.title.is_none() {
            return Ok(self.find(Column::Title, names));
        }
        self.require(Column::Title, names, place).map(Some)
    }
}

/// Names in a message, at most.
const NAMES_SHOWN: usize = 10;
/// Characters of a name in a message, at most.
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
            assert_eq!(columns.find(Column::Id, names), expected, "{given:?} in {names:?}");
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
