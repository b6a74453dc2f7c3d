//! Finds the files and folders that a pattern such as `data/**/*.jsonl` names: a pattern comes in, paths go
//! out, sorted. Names are compared as bytes, so that names in any encoding match. Opens no file.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// Part of a pattern between two separators.
enum Part {
    /// A name, or the root, `.` or `..`.
    Name(PathBuf),
    /// `**`: any number of folders, none included.
    Folders,
    /// A pattern of names. Hidden names match only if it begins with a dot.
    Names {
        matcher: GlobMatcher,
        hidden: bool,
        /// The part itself, if it has braces alone: then it may be a name.
        literal: Option<PathBuf>,
    },
}

/// Reason why a pattern finds nothing.
pub(crate) enum PatternError {
    /// The pattern is not valid.
    Invalid(globset::Error),
    /// A folder that cannot be read.
    Unreadable(PathBuf, io::Error),
}

/// Whether the text may be a pattern.
pub(crate) fn is_pattern(input: &Path) -> bool {
    input.as_os_str().as_bytes().iter().any(|byte| b"*?[{".contains(byte))
}

/// Lists the paths that match. As in a shell, `*` matches neither a separator nor the dot of a hidden file.
pub(crate) fn paths(pattern: &Path) -> Result<Vec<PathBuf>, PatternError> {
    let parts = pattern.components().map(part).collect::<Result<Vec<_>, _>>()?;
    let mut found = Vec::new();
    walk(Path::new(""), &parts, &mut Vec::new(), &mut found)?;
    found.sort();
    found.dedup();
    Ok(found)
}

fn part(component: Component<'_>) -> Result<Part, PatternError> {
    let name = Path::new(component.as_os_str());
    if name == Path::new("**") {
        return Ok(Part::Folders);
    }
    // The pattern came as text or holds bytes that are no pattern characters.
    match name.to_str().filter(|_| is_pattern(name)) {
        None => Ok(Part::Name(name.to_path_buf())),
        Some(text) => {
            let glob = GlobBuilder::new(text).literal_separator(true).build();
            let matcher = glob.map_err(PatternError::Invalid)?.compile_matcher();
            let literal = (!text.contains(['*', '?', '['])).then(|| name.to_path_buf());
            Ok(Part::Names { matcher, hidden: text.starts_with('.'), literal })
        }
    }
}

/// Adds the paths below `folder` that match `parts`. `above` holds the folders on the way, to notice a link
/// that leads back to one of them.
fn walk(
    folder: &Path,
    parts: &[Part],
    above: &mut Vec<PathBuf>,
    found: &mut Vec<PathBuf>,
) -> Result<(), PatternError> {
    let Some((part, rest)) = parts.split_first() else {
        found.push(folder.to_path_buf());
        return Ok(());
    };
    match part {
        Part::Name(name) => {
            let path = folder.join(name);
            if fs::symlink_metadata(&path).is_ok() {
                walk(&path, rest, above, found)?;
            }
        }
        Part::Names { literal: Some(name), .. }
            if fs::symlink_metadata(folder.join(name)).is_ok() =>
        {
            walk(&folder.join(name), rest, above, found)?;
        }
        Part::Names { matcher, hidden, .. } => {
            for name in names(folder)? {
                let fits = *hidden || !is_hidden(&name);
                if fits && matcher.is_match(Path::new(&name)) {
                    walk(&folder.join(name), rest, above, found)?;
                }
            }
        }
        Part::Folders => {
            walk(folder, rest, above, found)?;
            let Ok(real) = fs::canonicalize(here(folder)) else { return Ok(()) };
            if above.contains(&real) {
                return Ok(());
            }
            above.push(real);
            for name in names(folder)? {
                let path = folder.join(&name);
                if !is_hidden(&name) && path.is_dir() {
                    walk(&path, parts, above, found)?;
                }
            }
            above.pop();
        }
    }
    Ok(())
}

fn here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

/// Lists the names in a folder; none if it is no folder.
fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>, PatternError> {
    let folder = here(folder);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let unreadable = |source| PatternError::Unreadable(folder.to_path_buf(), source);
    let entries = fs::read_dir(folder).map_err(unreadable)?;
    entries.map(|entry| Ok(entry.map_err(unreadable)?.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::Folder;

    fn found(folder: &Folder, pattern: &str) -> String {
        let Ok(paths) = paths(&Path::new(folder.path()).join(pattern)) else {
            return "invalid".to_owned();
        };
        let names = paths.iter().map(|path| {
            let name = path.strip_prefix(folder.path()).unwrap().as_os_str();
            name.as_bytes().escape_ascii().to_string()
        });
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        let folder = Folder::new();
        let names =
            ["b.tsv", "a.tsv", ".h.tsv", "[1].tsv", "{x}/c.tsv", "sub/d.tsv", "sub/deep/e.tsv"];
        for name in names.into_iter().chain([".git/f.tsv", "sub.tsv/x"]) {
            folder.write(name, b"");
        }
        for (pattern, expected) in [
            ("*.tsv", "[1].tsv a.tsv b.tsv sub.tsv"),
            (".*.tsv", ".h.tsv"),
            ("**/*.tsv", "[1].tsv a.tsv b.tsv sub/d.tsv sub/deep/e.tsv sub.tsv {x}/c.tsv"),
            ("**/**/e.tsv", "sub/deep/e.tsv"),
            ("sub/**/*.tsv", "sub/d.tsv sub/deep/e.tsv"),
            ("s*b/?.tsv", "sub/d.tsv"),
            ("[!a].tsv", "b.tsv"),
            ("[[]1[]].tsv", "[1].tsv"),
            ("{a,b}.tsv", "a.tsv b.tsv"),
            ("{x}/*.tsv", "{x}/c.tsv"),
            (".git/*", ".git/f.tsv"),
            ("none*", ""),
            ("a.tsv/*", ""),
            ("[.tsv", "invalid"),
        ] {
            assert_eq!(found(&folder, pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn names_of_any_bytes_are_found_and_circles_end() {
        let folder = Folder::new();
        folder.write("sub/b.tsv", b"");
        symlink(folder.path(), format!("{}/sub/again", folder.path())).unwrap();
        let latin = OsString::from_vec(b"caf\xe9.tsv".to_vec());
        fs::write(Path::new(folder.path()).join(latin), b"").unwrap();
        folder.write("a\nb.tsv", b"");
        assert_eq!(found(&folder, "*.tsv"), "a\\nb.tsv caf\\xe9.tsv");
        assert_eq!(found(&folder, "**/b.tsv"), "sub/b.tsv");
    }
}
