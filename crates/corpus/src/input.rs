//! Resolves inputs to files: paths, folders, patterns, pipes and URLs come in; texts and Parquet files with format,
//! size and, for Parquet, row count go out. Reads no row.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyperrag_core::{Hint, RangePlace, RangeRead, Warning};

use crate::columns::Columns;
use crate::error::CorpusError;
use crate::format::{Format, Quoting};
use crate::options::ReadOptions;
use crate::parquet;
use crate::pattern::{self, PatternError, is_pattern};
use crate::source::Source;
use crate::table::{QuotesSeen, quotes_seen};
use crate::taken::ColumnsTaken;

/// Name of an input that stands for stdin.
const STDIN: &str = "-";

/// A file of the corpus.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) source: Source,
    pub(crate) format: Format,
    /// Number of rows, if the file tells it without being read.
    pub(crate) rows: Option<u64>,
    /// Columns, if the file tells them without being read.
    pub(crate) taken: Option<ColumnsTaken>,
}

/// Files of the inputs, and what is to be said about them.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) inputs: Vec<Input>,
    pub(crate) warnings: Vec<Warning>,
}

/// A path, and whether it was named by itself, not found in a folder.
struct Found {
    path: PathBuf,
    is_named: bool,
    origin: Origin,
    /// URL of a file outside this machine, with its options: two places may have files of one name.
    url: Option<String>,
}

/// Origin of a file.
enum Origin {
    /// This machine.
    Here,
    /// A place outside it, where the file is open.
    Open(Arc<dyn RangeRead>),
    /// A place outside it, by its URL.
    Listed(String),
}

impl Found {
    fn here(path: &Path, is_named: bool) -> Self {
        Self { path: path.to_path_buf(), is_named, origin: Origin::Here, url: None }
    }
}

/// Lists the files that `inputs` name, in that order; the files of a folder or pattern are sorted by name. A
/// file named twice is listed once. A URL is looked up in `place`; without one it is a path.
pub(crate) fn resolve(
    inputs: &[impl AsRef<Path>],
    columns: &Columns,
    options: &ReadOptions,
    place: Option<&dyn RangePlace>,
) -> Result<Resolved, CorpusError> {
    if inputs.is_empty() {
        return Err(CorpusError::NoInput);
    }
    let mut files = Vec::new();
    for input in inputs {
        expand(input.as_ref(), place, &mut files)?;
    }
    let mut seen = HashSet::new();
    let mut resolved = Resolved { inputs: Vec::new(), warnings: Vec::new() };
    for found in files {
        let identity = match &found.url {
            Some(url) => PathBuf::from(url),
            // A pipe that has no name in the file system has no other path.
            None => fs::canonicalize(&found.path).unwrap_or_else(|_| found.path.clone()),
        };
        if seen.insert(identity) {
            let input = examine(&found, columns, options, place)?;
            resolved.warnings.extend(warning(&input, options)?);
            resolved.inputs.push(input);
        }
    }
    Ok(resolved)
}

/// Adds the files of one input. A path that exists is taken literally, even if it contains pattern
/// characters.
fn expand(
    path: &Path,
    place: Option<&dyn RangePlace>,
    files: &mut Vec<Found>,
) -> Result<(), CorpusError> {
    if path == Path::new(STDIN) {
        files.push(Found::here(path, true));
        return Ok(());
    }
    let url = path.to_str().filter(|text| is_url(text));
    match (fs::metadata(path), url, place) {
        (Ok(metadata), ..) if metadata.is_dir() => expand_folder(path, files),
        (Ok(_), ..) => {
            files.push(Found::here(path, true));
            Ok(())
        }
        (Err(_), Some(url), Some(place)) => match url.strip_prefix("file://") {
            Some(path) if path.starts_with('/') => expand(Path::new(path), None, files),
            _ => expand_url(url, place, files),
        },
        (Err(_), ..) if is_pattern(path) => expand_pattern(path, files),
        (Err(source), ..) => Err(unreadable(path, source)),
    }
}

/// Whether a text is a URL.
fn is_url(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme
        .is_some_and(|scheme| scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Adds the file that a URL names, or those of a folder. A slash at its end names a folder.
fn expand_url(
    url: &str,
    place: &dyn RangePlace,
    files: &mut Vec<Found>,
) -> Result<(), CorpusError> {
    let failed = |source| CorpusError::Elsewhere { name: shown(url), source };
    if let Some(file) = place.open(url).map_err(failed)? {
        let path = PathBuf::from(&file.version().name);
        let (origin, url) = (Origin::Open(file), Some(url.to_owned()));
        files.push(Found { path, is_named: true, origin, url });
        return Ok(());
    }
    let listed = place.list(url).map_err(failed)?;
    if listed.is_empty() {
        return Err(CorpusError::NoObject { name: shown(url) });
    }
    let listed = listed.into_iter().filter(|file| is_input(Path::new(&file.name)));
    let before = files.len();
    files.extend(listed.map(|file| Found {
        path: PathBuf::from(file.name),
        is_named: false,
        url: Some(file.url.clone()),
        origin: Origin::Listed(file.url),
    }));
    match files.len() > before {
        true => Ok(()),
        false => Err(CorpusError::EmptyPrefix { name: shown(url) }),
    }
}

/// Returns a URL without its options, and without what may be a password.
fn shown(url: &str) -> String {
    let place = url.split('?').next().unwrap_or_default();
    let host = place.split_once("://").map_or("", |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    match host.contains(['@', ':']) {
        true => "the URL".to_owned(),
        false => place.to_owned(),
    }
}

fn expand_pattern(pattern: &Path, files: &mut Vec<Found>) -> Result<(), CorpusError> {
    let name = || pattern.display().to_string();
    let matches = pattern::paths(pattern).map_err(|error| match error {
        PatternError::Invalid(source) => CorpusError::Pattern { pattern: name(), source },
        PatternError::Unreadable(path, source) => CorpusError::Io { path, source },
    })?;
    if matches.is_empty() {
        return Err(CorpusError::NoMatch { pattern: name() });
    }
    for path in matches {
        match path.is_dir() {
            true => expand_folder(&path, files)?,
            false => files.push(Found::here(&path, true)),
        }
    }
    Ok(())
}

/// Whether a file of a folder is an input. A `.json` file in a folder is taken for a description, as in data
/// sets, not for documents.
fn is_input(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let hidden = name.as_encoded_bytes().starts_with(b".");
    let name = name.to_string_lossy().to_ascii_lowercase();
    let json = [".json", ".json.gz", ".json.zst", ".json.zstd"];
    !hidden && !json.iter().any(|ending| name.ends_with(ending)) && Format::of(path).is_some()
}

/// Adds the folder's own files, not those of folders below it.
fn expand_folder(folder: &Path, files: &mut Vec<Found>) -> Result<(), CorpusError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| unreadable(folder, source))? {
        let entry = entry.map_err(|source| unreadable(folder, source))?;
        let path = entry.path();
        if is_input(&path) && !path.is_dir() {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(CorpusError::EmptyFolder { path: folder.to_path_buf() });
    }
    found.sort();
    files.extend(found.iter().map(|path| Found::here(path, false)));
    Ok(())
}

/// Takes a file, or copies what comes through a pipe; `-` stands for stdin.
pub(crate) fn source(path: &Path) -> Result<Source, CorpusError> {
    if path == Path::new(STDIN) {
        return Source::of_pipe(Path::new("stdin"), io::stdin().lock());
    }
    let metadata = fs::metadata(path).map_err(|source| unreadable(path, source))?;
    let kind = metadata.file_type();
    if kind.is_fifo() {
        let pipe = fs::File::open(path).map_err(|source| unreadable(path, source))?;
        return Source::of_pipe(path, pipe);
    }
    match kind.is_file() {
        true => Ok(Source::of_file(path, metadata.len())),
        false => Err(CorpusError::NotAFile { path: path.to_path_buf() }),
    }
}

/// Takes a file that was found, wherever it is.
fn source_of(found: &Found, place: Option<&dyn RangePlace>) -> Result<Source, CorpusError> {
    let path = &found.path;
    match (&found.origin, place) {
        (Origin::Open(file), _) => return Ok(Source::elsewhere(Arc::clone(file))),
        (Origin::Listed(url), Some(place)) => {
            let name = || path.display().to_string();
            let failed = |source| CorpusError::Elsewhere { name: name(), source };
            let file = place.open(url).map_err(failed)?;
            let file = file.ok_or_else(|| CorpusError::Replaced { path: path.clone() })?;
            return Ok(Source::elsewhere(file));
        }
        _ => {}
    }
    // Whoever opens a pipe waits for its writer.
    if !found.is_named && !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return Err(CorpusError::NotAFile { path: path.clone() });
    }
    source(path)
}

/// Opens a file and tells the format.
fn examine(
    found: &Found,
    columns: &Columns,
    options: &ReadOptions,
    place: Option<&dyn RangePlace>,
) -> Result<Input, CorpusError> {
    let path = &found.path;
    let named = options.format.filter(|_| found.is_named).or_else(|| Format::of(path));
    let source = source_of(found, place)?;
    if named.is_none() && !source.is_copy() && !options.tsv_by_default {
        return Err(CorpusError::UnknownFormat { path: path.clone() });
    }
    let format = match named {
        Some(format) => format,
        None => told(&source, options)?,
    };
    let checked = match format {
        Format::Parquet if source.is_copy() => {
            return Err(CorpusError::ParquetInPipe { path: source.name.to_path_buf() });
        }
        Format::Parquet => Some(parquet::check(source.open_ranges()?, columns, &options.limits)?),
        // Opening shows a missing permission now.
        Format::Json | Format::Tsv | Format::Csv => {
            source.open(&options.limits)?;
            None
        }
    };
    let (rows, taken) = checked.map_or((None, None), |checked| (Some(checked.rows), checked.taken));
    Ok(Input { source, format, rows, taken })
}

/// Tells the format by the first bytes.
fn told(source: &Source, options: &ReadOptions) -> Result<Format, CorpusError> {
    let text = source.open(&options.limits)?;
    match Format::of_text(text.head()) {
        Some(format) => Ok(format),
        None if options.tsv_by_default => Ok(Format::Tsv),
        None => Err(CorpusError::UnknownText { path: source.name.to_path_buf() }),
    }
}

/// Warns of a TSV file whose fields stand in quotes that are not read as such.
fn warning(input: &Input, options: &ReadOptions) -> Result<Option<Warning>, CorpusError> {
    if input.format != Format::Tsv || options.quoting != Quoting::None {
        return Ok(None);
    }
    // A fault in the first lines is that of their rows.
    let seen = match quotes_seen(input.source.open(&options.limits)?, &options.limits) {
        Ok(Some(QuotesSeen::All)) => {
            "all fields stand in quotes, which become part of ids and texts"
        }
        Ok(Some(QuotesSeen::Doubled)) => {
            "a field stands in quotes and has doubled ones in it, which all become part of it"
        }
        Err(error) if !error.is_of_row() => return Err(error),
        Ok(None) | Err(_) => return Ok(None),
    };
    let what = format!("{}: {seen}", input.source.name.display());
    Ok(Some(Warning { what, hint: Some(Hint::ReadQuotes) }))
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
        match resolve(&inputs, &Columns::default(), &ReadOptions::default(), None) {
            Ok(Resolved { inputs, .. }) => {
                let names = inputs.iter().map(|input| input.source.name.display().to_string());
                names.collect::<Vec<_>>().join(" ").replace(&format!("{}/", folder.path()), "")
            }
            Err(error) => error.to_string().replace(folder.path(), "DIR"),
        }
    }

    fn folder() -> Folder {
        let folder = Folder::new();
        for name in [
            "b.jsonl",
            "a.tsv",
            "c.NDJSON",
            "f.json.gz",
            "README.md",
            "x.json",
            ".h.jsonl",
            "[1].tsv",
        ] {
            folder.write(name, b"");
        }
        folder.write("more/f.csv.gz", b"");
        folder.write("more/g.jsonl.zst", b"");
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
        check(&["more"], "more/f.csv.gz more/g.jsonl.zst");
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
        let pipe = format!("{}/pipes/p.tsv", folder.path());
        fs::create_dir(format!("{}/pipes", folder.path())).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        check(&["pipes"], "DIR/pipes/p.tsv: no plain file; only a pipe that is named itself");
        check(&["b.jsonl/x.jsonl"], "DIR/b.jsonl/x.jsonl: cannot be read");
    }
}
