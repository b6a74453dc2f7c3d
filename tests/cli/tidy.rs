//! Rules for the source: which crate may know which, and how long a file may be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::support::all_files;

/// Largest number of lines of a source file without its tests.
const LINES_MAX: usize = 500;

/// Reads a file that cargo reads. Cargo itself is not run: without a network it answers only if the
/// packages of every platform have been downloaded.
fn table(path: &str) -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap().parse().unwrap()
}

/// Returns the manifests of the workspace, with the names of their packages.
fn manifests() -> Vec<(String, Table)> {
    let crates = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("crates")).unwrap();
    let crates = crates.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let paths = crates.map(|name| format!("crates/{name}/Cargo.toml"));
    let manifests = paths.chain(["Cargo.toml".to_owned()]).map(|path| table(&path));
    manifests.map(|table| (table["package"]["name"].as_str().unwrap().to_owned(), table)).collect()
}

/// Returns names of a package's dependencies on any platform, for its build, not for its tests.
fn dependencies(manifest: &Table) -> BTreeSet<&str> {
    let platforms = manifest.get("target").and_then(Value::as_table);
    let platforms = platforms.into_iter().flat_map(Table::values).filter_map(Value::as_table);
    let all = std::iter::once(manifest).chain(platforms);
    let all = all.filter_map(|table| table.get("dependencies")?.as_table());
    all.flat_map(Table::keys).map(String::as_str).collect()
}

#[test]
fn crates_know_only_what_lies_below_them() {
    let manifests = manifests();
    for (package, expected) in [
        ("core", &[][..]),
        ("files", &[]),
        ("kernels", &[]),
        ("corpus", &["core", "files"]),
        ("model", &["kernels", "core", "files"]),
        ("store", &["core", "files"]),
        ("tiers", &["core"]),
        ("retrieval", &["core", "files"]),
        ("rerank", &["core"]),
        ("engine", &["core", "files", "corpus", "model", "store", "tiers", "retrieval", "rerank"]),
        ("eval", &["core", "files", "corpus", "store", "retrieval", "rerank", "engine"]),
    ] {
        let package = format!("hyperrag-{package}");
        let (_, manifest) = manifests.iter().find(|(name, _)| *name == package).unwrap();
        let all = dependencies(manifest);
        let found: BTreeSet<&str> =
            all.iter().filter_map(|d| d.strip_prefix("hyperrag-")).collect();
        assert_eq!(found, expected.iter().copied().collect(), "of {package}");
    }
    assert_eq!(manifests.len(), 12, "a crate is not in this list");
}

#[test]
fn only_the_model_knows_candle() {
    for (package, manifest) in manifests() {
        let candle = dependencies(&manifest).iter().any(|name| name.starts_with("candle"));
        assert_eq!(candle, package == "hyperrag-model", "{package}");
    }
}

#[test]
fn only_the_tiers_know_an_asynchronous_runtime() {
    const ASYNCHRONOUS: [&str; 6] =
        ["async-std", "futures-util", "object_store", "redis", "smol", "tokio"];
    let mut knowing = BTreeSet::new();
    for (package, manifest) in manifests() {
        if dependencies(&manifest).iter().any(|name| ASYNCHRONOUS.contains(name)) {
            knowing.insert(package);
        }
    }
    assert_eq!(knowing, BTreeSet::from(["hyperrag-tiers".to_owned()]));
}

/// The Rust files of a folder, with their texts.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let files = all_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let sources = files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    sources.map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn one_part_of_the_engine_knows_files_of_models() {
    let naming = sources("crates/engine/src").into_iter();
    let naming = naming.filter(|(_, text)| text.contains("hyperrag_model"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/engine/src/open");
    let (within, beside): (Vec<PathBuf>, Vec<PathBuf>) =
        naming.map(|(path, _)| path).partition(|path| path.starts_with(&folder));
    assert_eq!(beside, [folder.with_extension("rs")], "{beside:?}");
    assert!(!within.is_empty());
}

#[test]
fn one_file_spells_the_names_of_a_stores_files() {
    let names =
        ["manifest.json", "journal-", "calibration.bin", "replicas.json", "retired-", "index-"];
    let mut spelling = BTreeSet::new();
    for folder in ["crates/store/src", "crates/engine/src", "crates/eval/src", "src"] {
        for (path, text) in sources(folder) {
            if text.lines().any(|line| names.iter().any(|name| line.contains(&format!("\"{name}"))))
            {
                spelling.insert(path);
            }
        }
    }
    let paths: Vec<PathBuf> = spelling.into_iter().collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    assert!(paths[0].ends_with("crates/store/src/format/paths.rs"), "{paths:?}");
}

#[test]
fn no_command_knows_another() {
    let commands = sources("src/commands");
    assert!(commands.len() > 15);
    for (path, text) in commands {
        let known = text.contains("use super::") || text.contains("crate::commands::");
        assert!(!known, "{}", path.display());
    }
}

/// Names the folders whose files may hold `unsafe`.
const UNSAFE: [&str; 2] = ["crates/kernels/src", "crates/model/src/backend/candle"];

#[test]
fn unsafe_code_stands_in_two_folders() {
    for folder in ["src", "crates"] {
        for (path, text) in sources(folder) {
            let allowed = UNSAFE.iter().any(|folder| path.to_string_lossy().contains(folder));
            let mut code = text.lines().map(|line| line.split("//").next().unwrap());
            let used = code.any(|line| line.contains("unsafe {") || line.contains("unsafe fn"));
            assert!(allowed || !used, "{}", path.display());
        }
    }
}

#[test]
fn files_say_what_they_are_for() {
    let folders =
        ["crates/engine/src", "crates/eval/src", "src/commands", "src/input", "src/output"];
    for (path, text) in folders.into_iter().flat_map(sources) {
        assert!(text.starts_with("//! "), "{}", path.display());
    }
}

#[test]
fn source_files_are_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    let crates = fs::read_dir(root.join("crates")).unwrap();
    folders.extend(crates.map(|entry| entry.unwrap().path().join("src")));
    let files = folders.iter().flat_map(|folder| all_files(folder));
    let sources: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "rs")).collect();
    assert!(sources.len() > 50);
    for path in sources {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        assert!(lines <= LINES_MAX, "{}: {lines} lines", path.display());
    }
}

/// Files of libraries that may name a flag, a command or a variable of the environment, and why.
const SPELLING: [(&str, &str); 5] = [
    ("crates/engine/src/open/tiers.rs", "it reads HYPERRAG_REDIS_*, whatever program asks"),
    ("crates/model/src/fetch/cache.rs", "it reads HYPERRAG_HOME, whatever program asks"),
    ("crates/model/src/fetch/pypi.rs", "the flags are pip's"),
    ("crates/tiers/src/redis/", "it says where passwords and authorities belong"),
    ("crates/tiers/src/spec/", "it refuses passwords in URLs, and says where they belong"),
];

/// Returns the flag, the command or the variable of the program that a line of source names.
fn spelling(line: &str) -> Option<&str> {
    let code = line.split("//").next().unwrap_or_default();
    for word in ["`hyperrag ", "HYPERRAG_", "RAYON_NUM"] {
        if let Some((at, _)) = code.match_indices(word).next() {
            return Some(&code[at..]);
        }
    }
    let mut flags =
        code.match_indices("--").map(|(at, _)| (code[..at].chars().last(), &code[at..]));
    let begins = |before: Option<char>| before.is_none_or(|c| " `(\"'".contains(c));
    let names = |flag: &str| flag[2..].starts_with(|c: char| c.is_ascii_lowercase());
    flags.find(|(before, flag)| begins(*before) && names(flag)).map(|(_, flag)| flag)
}

#[test]
fn a_flag_in_a_line_is_found() {
    for line in ["use --dtype bf16\"", "(`--memory`)", "\"--id-column\"", "run `hyperrag repair`"] {
        assert!(spelling(line).is_some(), "{line}");
    }
    assert_eq!(spelling("let a = b; // use --dtype"), None);
    assert_eq!(spelling("\"models--org--name\" and a -- b"), None);
}

#[test]
fn libraries_name_no_flag_and_no_command() {
    let mut found = Vec::new();
    for (path, text) in sources("crates") {
        let file = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
        if !file.contains("/src/") || SPELLING.iter().any(|(known, _)| file.starts_with(known)) {
            continue;
        }
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
        for (number, line) in (1..).zip(lines) {
            found.extend(spelling(line).map(|named| format!("{file}:{number}: {named}")));
        }
    }
    assert!(found.is_empty(), "{} texts: {found:#?}", found.len());
}
