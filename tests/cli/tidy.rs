//! Which crate may know which, and how long a file may be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use crate::support::all_files;

/// Lines of a source file at most, its tests left out.
const LINES_MAX: usize = 500;

fn metadata() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let options = ["--offline".to_owned(), "--locked".to_owned()];
    MetadataCommand::new().manifest_path(manifest).other_options(options).exec().unwrap()
}

/// Names of what a package of this workspace depends on, for its build, not for its tests.
fn dependencies(metadata: &Metadata, package: &str) -> BTreeSet<String> {
    let members = metadata.workspace_packages();
    let package = members.iter().find(|member| member.name.as_str() == package).unwrap();
    let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
    normal.map(|dependency| dependency.name.clone()).collect()
}

#[test]
fn crates_know_only_what_lies_below_them() {
    let metadata = metadata();
    for (package, expected) in [
        ("kv", &[][..]),
        ("eval", &[]),
        ("corpus", &["kv"]),
        ("model", &["kv"]),
        ("store", &["kv"]),
        ("retrieval", &["kv"]),
        ("rerank", &["kv"]),
        ("pipeline", &["kv", "corpus", "store", "retrieval", "rerank", "eval"]),
    ] {
        let all = dependencies(&metadata, &format!("hyperrag-{package}"));
        let found: BTreeSet<&str> =
            all.iter().filter_map(|d| d.strip_prefix("hyperrag-")).collect();
        assert_eq!(found, expected.iter().copied().collect(), "of hyperrag-{package}");
    }
    assert_eq!(metadata.workspace_packages().len(), 9, "a crate is not in this list");
}

#[test]
fn only_the_model_knows_candle() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let all = dependencies(&metadata, package.name.as_str());
        let candle = all.iter().any(|dependency| dependency.starts_with("candle"));
        assert_eq!(candle, package.name.as_str() == "hyperrag-model", "{}", package.name);
    }
}

#[test]
fn there_is_no_asynchronous_runtime() {
    // Not from the metadata, which names what features might bring and do not.
    let tree = "tree --offline --locked --edges normal --target all --prefix none";
    let output = Command::new(env!("CARGO")).args(tree.split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("tantivy") && names.contains("hf-hub"), "{tree}");
    for runtime in ["tokio", "async-std", "smol"] {
        assert!(!names.contains(runtime), "{runtime}");
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
