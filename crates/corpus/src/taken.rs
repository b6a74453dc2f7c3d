//! Columns that documents are read from: names and positions come in; a record of them, and a sentence, go
//! out. Opens no file.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::columns::{Columns, quoted};

/// Largest number of columns left out, or of files with other columns, that are listed.
const LISTED_MAX: usize = 20;

/// Columns that the documents of a corpus are read from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnsTaken {
    /// Columns of the first file that names any. No title: no column has titles.
    #[serde(flatten)]
    pub columns: Columns,
    /// Other columns of that file, at most 20.
    pub left_out: Vec<String>,
    /// Number of its columns left out that are not listed.
    pub left_out_more: u64,
    /// Files whose documents are read from columns of other names, at most 20.
    pub other_files: Vec<FileColumns>,
    /// Number of such files that are not listed.
    pub other_files_more: u64,
}

/// Columns that the documents of one file are read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileColumns {
    /// File as the user named it.
    pub file: PathBuf,
    /// Columns of the file.
    #[serde(flatten)]
    pub columns: Columns,
}

impl ColumnsTaken {
    /// Makes the record of a file with columns of these names, which stand at the positions given.
    pub(crate) fn new(names: &[&str], id: usize, title: Option<usize>, text: usize) -> Self {
        let name = |at: usize| names.get(at).map(|name| (*name).to_owned());
        let (id_name, text_name) = (name(id), name(text));
        let title_name = title.and_then(name);
        let columns =
            Columns { id: id_name, title: title_name, text: text_name, ..Columns::default() };
        let taken = |at: &usize| ![Some(id), title, Some(text)].contains(&Some(*at));
        let left_out = (0..names.len()).filter(taken).filter_map(name).collect();
        Self::of(columns, left_out)
    }

    /// Makes the record of a file with these columns and others.
    pub(crate) fn of(columns: Columns, mut left_out: Vec<String>) -> Self {
        let left_out_more = left_out.len().saturating_sub(LISTED_MAX) as u64;
        left_out.truncate(LISTED_MAX);
        Self { columns, left_out, left_out_more, ..Self::default() }
    }

    /// Adds a file of the same corpus.
    pub(crate) fn add(&mut self, file: &Path, columns: Columns) {
        if columns == self.columns {
            return;
        }
        match self.other_files.len() < LISTED_MAX {
            true => self.other_files.push(FileColumns { file: file.to_path_buf(), columns }),
            false => self.other_files_more += 1,
        }
    }

    /// Returns a sentence about files with other columns; `None` if all have the same.
    #[must_use]
    pub fn difference(&self) -> Option<String> {
        let first = self.other_files.first()?;
        let more = self.other_files.len() as u64 - 1 + self.other_files_more;
        let files = match more {
            0 => first.file.display().to_string(),
            more => format!("{} and {more} more files", first.file.display()),
        };
        let columns = Sources(&first.columns);
        Some(format!("the files have different columns: {files}: {columns}"))
    }
}

impl fmt::Display for ColumnsTaken {
    /// Writes `id from "_id", no title, text from "text"; left out: "url"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Sources(&self.columns))?;
        if self.left_out.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.left_out.iter().map(String::as_str).collect();
        write!(f, "; left out: {}", quoted(&names, names.len() + self.left_out_more as usize))
    }
}

/// Columns as a sentence writes them.
struct Sources<'a>(&'a Columns);

impl fmt::Display for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Columns { id, title, text, .. } = self.0;
        for (field, column, end) in [("id", id, ", "), ("title", title, ", "), ("text", text, "")] {
            match column {
                Some(name) => write!(f, "{field} from {}{end}", quoted(&[name], 1))?,
                None => write!(f, "no {field}{end}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_the_columns() {
        let taken = ColumnsTaken::new(&["url", "heading", "_id", "text"], 2, Some(1), 3);
        let expected = r#"id from "_id", title from "heading", text from "text"; left out: "url""#;
        assert_eq!(taken.to_string(), expected);
        assert_eq!(taken.difference(), None);
        let none = ColumnsTaken::new(&["id", "text"], 0, None, 1);
        assert_eq!(none.to_string(), r#"id from "id", no title, text from "text""#);
        let names: Vec<String> = (0..100).map(|name| name.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let many = ColumnsTaken::new(&names, 0, None, 1);
        assert_eq!((many.left_out.len(), many.left_out_more), (20, 78));
        assert!(many.to_string().ends_with("\"11\" and 88 more"), "{many}");
    }

    #[test]
    fn files_with_other_columns_are_named() {
        let mut taken = ColumnsTaken::new(&["id", "title", "text"], 0, Some(1), 2);
        let columns = |title: Option<&str>| Columns {
            id: Some("id".to_owned()),
            title: title.map(str::to_owned),
            text: Some("text".to_owned()),
            ..Columns::default()
        };
        taken.add(Path::new("same.tsv"), columns(Some("title")));
        assert_eq!(taken.difference(), None);
        taken.add(Path::new("b.tsv"), columns(None));
        let expected =
            r#"the files have different columns: b.tsv: id from "id", no title, text from "text""#;
        assert_eq!(taken.difference().as_deref(), Some(expected));
        (0..30).for_each(|_| taken.add(Path::new("c.tsv"), columns(Some("name"))));
        assert!(taken.difference().unwrap().contains("b.tsv and 30 more files: "));
    }

    #[test]
    fn the_record_can_be_kept_and_given_back() {
        let taken = ColumnsTaken::new(&["_id", "text"], 0, None, 1);
        let json = serde_json::to_string(&taken.columns).unwrap();
        assert_eq!(json, r#"{"id":"_id","title":null,"text":"text"}"#);
        assert_eq!(serde_json::from_str::<Columns>(&json).unwrap(), taken.columns);
        let json = serde_json::to_value(&taken).unwrap();
        assert_eq!((&json["id"], &json["title"]), (&"_id".into(), &serde_json::Value::Null));
    }
}
