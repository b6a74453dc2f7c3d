//! Resolves inputs to files: paths, folders and patterns come in; files with format, size and, for Parquet,
//! row count go out. Reads no row.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::columns::Columns;
use crate::error::CorpusError;
use crate::format::Format;
use crate::limits::Limits;
use crate::parquet;
use crate::taken::ColumnsTaken;

/// A file of the corpus.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) file: Arc<Path>,
    pub(crate) format: Format,
    pub(crate) bytes: u64,
    /// Number of rows, if the file tells it without being read.
    pub(crate) rows: Option<u64>,
    /// Columns, if the file tells them without being read.
    pub(crate) taken: Option<ColumnsTaken>,
}

/// Lists the files that `inputs` name, in that order; the files of a folder or pattern are sorted by name. A
/// file named twice is listed once.
pub(crate) fn resolve(
    inputs: &[String],
    columns: &Columns,
    limits: &Limits,
) -> Result<Vec<Input>, CorpusError> {
    if inputs.is_empty() {
        return Err(CorpusError::NoInput);
    }
    let mut files = Vec::new();
    for input in inputs {
        expand(input, &mut files)?;
    }
    let mut seen = HashSet::new();
    let mut resolved = Vec::new();
    for path in files {
        let canonical = fs::canonicalize(&path).map_err(|source| unreadable(&path, source))?;
        if seen.insert(canonical) {
            resolved.push(examine(&path, columns, limits)?);
        }
    }
    Ok(resolved)
}

/// Adds the files of one input. A path that exists is taken literally, even if it contains pattern
/// characters.
fn expand(input: &str, files: &mut Vec<PathBuf>) -> Result<(), CorpusError> {
    let path = Path::new(input);
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => expand_folder(path, files),
        Ok(_) => {
            files.push(path.to_path_buf());
            Ok(())
        }
        Err(_) if input.contains(['*', '?', '[']) => expand_pattern(input, files),
        Err(source) => Err(unreadable(path, source)),
    }
}

fn expand_pattern(pattern: &str, files: &mut Vec<PathBuf>) -> Result<(), CorpusError> {
    // In a shell too, `*` matches neither a separator nor the dot of a hidden file.
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let matches = glob::glob_with(pattern, options)
        .map_err(|source| CorpusError::Pattern { pattern: pattern.to_owned(), source })?;
    let mut any = false;
    for path in matches {
        let path = path.map_err(|error| {
            let path = error.path().to_path_buf();
            CorpusError::Io { path, source: error.into() }
        })?;
        any = true;
        if path.is_dir() { expand_folder(&path, files)? } else { files.push(path) }
    }
    if any { Ok(()) } else { Err(CorpusError::NoMatch { pattern: pattern.to_owned() }) }
}

/// Adds the folder's own files, not those of folders below it. A `.json` file in a folder is taken for a
/// description, as in data sets, not for documents.
fn expand_folder(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), CorpusError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| unreadable(folder, source))? {
        let entry = entry.map_err(|source| unreadable(folder, source))?;
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if !hidden && !json && Format::of(&path).is_some() && !path.is_dir() {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(CorpusError::EmptyFolder { path: folder.to_path_buf() });
    }
    found.sort();
    files.append(&mut found);
    Ok(())
}

fn examine(path: &Path, columns: &Columns, limits: &Limits) -> Result<Input, CorpusError> {
    let Some(format) = Format::of(path) else {
        return Err(CorpusError::UnknownFormat { path: path.to_path_buf() });
    };
    let metadata = fs::metadata(path).map_err(|source| unreadable(path, source))?;
    if !metadata.is_file() {
        return Err(CorpusError::NotAFile { path: path.to_path_buf() });
    }
    let file: Arc<Path> = path.into();
    let checked = match format {
        Format::Parquet => Some(parquet::check(&file, columns, limits)?),
        // Opening shows a missing permission now.
        Format::Jsonl | Format::Tsv => {
            fs::File::open(path).map_err(|source| unreadable(path, source))?;
            None
        }
    };
    let (rows, taken) = checked.map_or((None, None), |checked| (Some(checked.rows), checked.taken));
    Ok(Input { file, format, bytes: metadata.len(), rows, taken })
}

fn unreadable(path: &Path, source: io::Error) -> CorpusError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::NotFound => CorpusError::NotFound { path },
        _ => CorpusError::Io { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    /// Returns the names of the files that the inputs resolve to, or the error.
    fn resolved(folder: &Folder, inputs: &[&str]) -> String {
        let inputs: Vec<String> =
            inputs.iter().map(|input| format!("{}/{input}", folder.path())).collect();
        match resolve(&inputs, &Columns::default(), &Limits::default()) {
            Ok(files) => {
                let names = files.iter().map(|input| input.file.display().to_string());
                names.collect::<Vec<_>>().join(" ").replace(&format!("{}/", folder.path()), "")
            }
            Err(error) => error.to_string().replace(folder.path(), "DIR"),
        }
    }

    fn folder() -> Folder {
        let folder = Folder::new();
        for name in ["b.jsonl", "a.tsv", "c.NDJSON", "README.md", "x.json", ".h.jsonl", "[1].tsv"] {
            folder.write(name, b"");
        }
        folder.write("sub/d.jsonl", b"");
        folder.write("sub/deep/e.jsonl", b"");
        folder.write("none/notes.txt", b"");
        folder
    }

    #[test]
    fn files_folders_and_patterns_resolve() {
        let folder = folder();
        let check = |inputs: &[&str], expected: &str| {
            assert_eq!(resolved(&folder, inputs), expected, "{inputs:?}");
        };
        check(&["b.jsonl", "a.tsv"], "b.jsonl a.tsv");
        check(&["b.jsonl", "./b.jsonl", "sub/../b.jsonl"], "b.jsonl");
        check(&["x.json"], "x.json");
        check(&[""], "[1].tsv a.tsv b.jsonl c.NDJSON");
        check(&["sub"], "sub/d.jsonl");
        check(&["b.jsonl", ""], "b.jsonl [1].tsv a.tsv c.NDJSON");
        check(&["*.tsv"], "[1].tsv a.tsv");
        check(&["*.jsonl"], "b.jsonl");
        check(&["[1].tsv"], "[1].tsv");
        check(&["**/*.jsonl"], "b.jsonl sub/d.jsonl sub/deep/e.jsonl");
        check(&["s*b"], "sub/d.jsonl");
    }

    #[test]
    fn what_is_no_input_is_named() {
        let folder = folder();
        let check = |inputs: &[&str], expected: &str| {
            let error = resolved(&folder, inputs);
            assert!(error.contains(expected), "{error}");
        };
        check(&[], "no input: name Parquet");
        check(&["missing.jsonl"], "DIR/missing.jsonl: no such file or folder");
        check(&["missing/x.jsonl"], "DIR/missing/x.jsonl: no such file or folder");
        check(&["README.md"], "DIR/README.md: not a known kind of file");
        check(&["*.md"], "DIR/README.md: not a known kind of file");
        check(&["*.parquet"], "DIR/*.parquet: no file matches this pattern");
        check(&["[.tsv"], "DIR/[.tsv: not a valid pattern");
        check(&["none"], "DIR/none: the folder holds no .parquet");
        check(&["none"], "'DIR/none/**/*.parquet'");
        check(&["b.jsonl/x.jsonl"], "DIR/b.jsonl/x.jsonl: cannot be read");
    }
}
