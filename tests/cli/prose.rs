//! Rules of comments and names: a head in every file, doc comments that begin with what a thing does or is,
//! one public type a name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::all_files;

/// Words with which no doc comment begins: they put the subject last, or elsewhere.
const BANNED: [&str; 16] = [
    "what", "the same", "its", "it", "one of", "as", "of", "that", "those", "these", "which",
    "how", "where", "whose", "who", "so",
];

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "crates", "tests", "fuzz"].map(|name| root.join(name));
    let files = folders.iter().flat_map(|folder| all_files(folder));
    let sources = files.filter(|path| path.extension().is_some_and(|e| e == "rs"));
    // Build outputs may lie below fuzz/.
    let sources: Vec<PathBuf> = sources
        .filter(|path| !path.components().any(|part| part.as_os_str() == "target"))
        .collect();
    assert!(sources.len() > 200);
    sources
}

/// The first lines of the text's doc comments, with their numbers.
fn openings(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut within = false;
    for (number, line) in (1..).zip(text.lines()) {
        let comment = line.trim_start().strip_prefix("///");
        if let Some(comment) = comment.filter(|_| !within) {
            found.push((number, comment.trim_start()));
        }
        within = comment.is_some();
    }
    found
}

/// The banned words with which a comment begins.
fn banned(comment: &str) -> Option<&'static str> {
    let lower = comment.to_lowercase();
    let begins = |words: &str| {
        lower
            .strip_prefix(words)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    BANNED.into_iter().find(|words| begins(words))
}

#[test]
fn banned_openings_are_found() {
    let text = "/// What is read.\n/// What follows.\nfn a() {}\n    /// Of a file, the name.\n";
    let found: Vec<_> = openings(text).into_iter().map(|(n, c)| (n, banned(c))).collect();
    assert_eq!(found, [(1, Some("what")), (4, Some("of"))]);
    assert_eq!(banned("Offset of a block."), None);
    assert_eq!(banned("The samples."), None);
}

#[test]
fn heads_begin_with_what_a_file_holds() {
    let mut found = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let head = text.lines().next().unwrap_or_default().trim_start_matches("//!").trim_start();
        found.extend(banned(head).map(|words| format!("{}: {words:?}: {head}", path.display())));
    }
    assert!(found.is_empty(), "{} heads:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_file_has_a_head() {
    let without = |path: &PathBuf| !fs::read_to_string(path).unwrap().starts_with("//!");
    let found: Vec<PathBuf> = sources().into_iter().filter(without).collect();
    assert!(found.is_empty(), "{} files without `//!`: {found:#?}", found.len());
}

#[test]
fn doc_comments_begin_with_what_a_thing_does_or_is() {
    let mut found = Vec::new();
    for path in sources() {
        for (number, comment) in openings(&fs::read_to_string(&path).unwrap()) {
            if let Some(words) = banned(comment) {
                found.push(format!("{}:{number}: {words:?}: {comment}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{} comments:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_public_type_has_a_name_of_its_own() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in sources() {
        // It stands for a module that was left out.
        if path.ends_with("candle/absent.rs")
            || !path.components().any(|p| p.as_os_str() == "crates")
        {
            continue;
        }
        for line in fs::read_to_string(&path).unwrap().lines() {
            let Some(item) = line.trim_start().strip_prefix("pub ") else { continue };
            let kinds = ["struct ", "enum ", "trait ", "type "];
            let Some(rest) = kinds.iter().find_map(|kind| item.strip_prefix(kind)) else {
                continue;
            };
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            places.entry(name).or_default().push(path.display().to_string());
        }
    }
    // Associated types are named by their traits.
    let twice: Vec<_> = places.into_iter().filter(|(_, places)| places.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}

#[test]
fn public_functions_return_errors_that_are_types() {
    for path in sources() {
        for (number, line) in (1..).zip(fs::read_to_string(&path).unwrap().lines()) {
            let line = line.trim_start();
            let public = line.starts_with("pub fn") || line.starts_with("pub type");
            let text = line.contains(", String>") && line.contains("Result<");
            assert!(!(public && text), "{}:{number}: {line}", path.display());
        }
    }
}
