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
    /// Columns of the first file that names any, else of the first one. No title: no column has titles.
    #[serde(flatten)]
    pub columns: Columns,
    /// Whether no file names its columns: they are numbers of fields, from 1.
    #[serde(default)]
    pub by_position: bool,
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

    /// Makes the record of a file of so many fields without a header, which has the columns at the positions
    /// given.
    pub(crate) fn by_position(fields: usize, id: usize, title: Option<usize>, text: usize) -> Self {
        let names: Vec<String> = (1..=fields).map(|field| field.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Self { by_position: true, ..Self::new(&names, id, title, text) }
    }

    /// Makes the record of a file with these columns and others.
    pub(crate) fn of(columns: Columns, mut left_out: Vec<String>) -> Self {
        let left_out_more = left_out.len().saturating_sub(LISTED_MAX) as u64;
        left_out.truncate(LISTED_MAX);
        Self { columns, left_out, left_out_more, ..Self::default() }
    }

    /// Adds a file of the same corpus. One that names its columns and one that does not are not compared.
    pub(crate) fn add(&mut self, file: &Path, taken: Self) {
        if self.by_position && !taken.by_position {
            *self = taken;
            return;
        }
        if taken.by_position != self.by_position || taken.columns == self.columns {
            return;
        }
        let file = FileColumns { file: file.to_path_buf(), columns: taken.columns };
        match self.other_files.len() < LISTED_MAX {
            true => self.other_files.push(file),
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
        let columns = Sources(&first.columns, self.by_position);
        Some(format!("the files have different columns: {files}: {columns}"))
    }
}

impl fmt::Display for ColumnsTaken {
    /// Writes `id from "_id", no title, text from "text"; left out: "url"`, without a header
    /// `id from field 1, no title, text from field 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Sources(&self.columns, self.by_position))?;
        if self.left_out.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.left_out.iter().map(String::as_str).collect();
        match self.by_position {
            true => write!(f, "; left out: field {}", names.join(", ")),
            false => {
                let all = names.len() + self.left_out_more as usize;
                write!(f, "; left out: {}", quoted(&names, all))
            }
        }
    }
}

/// Columns as a sentence writes them, and whether they are numbers of fields.
struct Sources<'a>(&'a Columns, bool);

impl fmt::Display for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Columns { id, title, text, .. } = self.0;
        for (field, column, end) in [("id", id, ", "), ("title", title, ", "), ("text", text, "")] {
            match column {
                Some(number) if self.1 => write!(f, "{field} from field {number}{end}")?,
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
        let columns = |title: Option<&str>| {
            let columns = Columns {
                id: Some("id".to_owned()),
                title: title.map(str::to_owned),
                text: Some("text".to_owned()),
                ..Columns::default()
            };
            ColumnsTaken::of(columns, Vec::new())
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
    fn fields_without_names_are_told_by_their_numbers() {
        let mut taken = ColumnsTaken::by_position(4, 0, Some(2), 3);
        let expected = "id from field 1, title from field 3, text from field 4; left out: field 2";
        assert_eq!(taken.to_string(), expected);
        let json = serde_json::to_value(&taken).unwrap();
        assert_eq!((&json["id"], &json["by_position"]), (&"1".into(), &true.into()));
        taken.add(Path::new("same.tsv"), ColumnsTaken::by_position(4, 0, Some(2), 3));
        assert_eq!(taken.difference(), None);
        taken.add(Path::new("b.tsv"), ColumnsTaken::by_position(2, 0, None, 1));
        let expected = "the files have different columns: b.tsv: id from field 1, no title, text \
                        from field 2";
        assert_eq!(taken.difference().as_deref(), Some(expected));
        let named = ColumnsTaken::new(&["id", "text"], 0, None, 1);
        taken.add(Path::new("c.jsonl"), named.clone());
        taken.add(Path::new("d.tsv"), ColumnsTaken::by_position(2, 0, None, 1));
        assert_eq!(taken, named);
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
