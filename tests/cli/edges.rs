//! Edges between the files of each crate: no circles, and no import through a file that only re-exports.
//!
//! In: the sources. A file knows another if it names a path `crate::`, `super::` or `self::` into it, in an
//! import or in code; tests inside a file do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::all_files;

/// Path of a module inside its crate, e.g. `["cpu", "gemm"]`; empty for the root.
type Module = Vec<String>;

/// A source file of a crate.
struct File {
    path: PathBuf,
    /// Code without comments, texts and tests.
    code: String,
}

impl File {
    /// Whether the file is a root or a `mod.rs`, which may re-export what its children define.
    fn is_facade(&self) -> bool {
        ["lib.rs", "main.rs", "mod.rs"].iter().any(|name| self.path.ends_with(name))
    }

    /// Whether the file has modules inside it, whose `super` is the file itself.
    fn has_modules(&self) -> bool {
        let mut lines = self.code.lines().map(str::trim_start);
        lines.any(|line| line.starts_with("mod ") && line.ends_with('{'))
    }

    /// Whether the file itself defines an item of this name.
    fn defines(&self, name: &str) -> bool {
        let kinds =
            ["struct", "enum", "trait", "type", "fn", "const", "static", "union", "macro_rules!"];
        let words: Vec<&str> =
            self.code.split(|c: char| c.is_whitespace() || "(<:={;".contains(c)).collect();
        words.windows(2).any(|pair| kinds.contains(&pair[0]) && pair[1] == name)
    }
}

/// Returns the crates' source folders, and the program's.
fn crates() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = fs::read_dir(root.join("crates")).unwrap();
    let mut folders: Vec<PathBuf> =
        crates.map(|entry| entry.unwrap().path().join("src")).chain([root.join("src")]).collect();
    folders.sort();
    assert!(folders.len() > 10);
    folders
}

/// Returns the code of a text without comments, string literals and the module of tests at its end.
fn code(text: &str) -> String {
    let text = text.split_once("#[cfg(test)]\nmod tests").map_or(text, |(code, _)| code);
    let mut code = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        code.push_str(&rest[..at]);
        rest = &rest[at..];
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with('"') {
            string_end(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\") {
            4
        } else {
            code.push_str(&rest[..1]);
            1
        };
        rest = &rest[skipped..];
    }
    code + rest
}

/// Returns the length of the string literal that `text` begins with.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

/// Returns the modules of a source folder.
fn modules(src: &Path) -> BTreeMap<Module, File> {
    let files =
        all_files(src).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let module = |path: PathBuf| {
        let inside = path.strip_prefix(src).unwrap().with_extension("");
        let mut module: Module =
            inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if ["lib", "main", "mod"].contains(&module.last().unwrap().as_str()) {
            module.pop();
        }
        let code = code(&fs::read_to_string(&path).unwrap());
        (module, File { path, code })
    };
    files.map(module).collect()
}

/// Lists the paths of an import's tree: `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn paths_of(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, inner)) = tree.split_once('{') else {
        let path = tree.split_whitespace().next().unwrap_or_default();
        return vec![path.to_owned()];
    };
    let inner = inner.trim_end().strip_suffix('}').expect("a tree of imports ends with a brace");
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inner[start..at].trim();
                start = (at + 1).min(inner.len());
                let inside = paths_of(part).into_iter().filter(|path| !path.is_empty());
                paths.extend(inside.map(|path| format!("{before}{path}")));
            }
            _ => {}
        }
    }
    paths
}

/// Lists the paths that a file's code names, as written.
fn named(file: &File, module: &[String], all: &BTreeMap<Module, File>) -> Vec<String> {
    let mut paths = Vec::new();
    let mut rest = String::new();
    for statement in file.code.split_inclusive(';') {
        let import = statement.rfind("use ").filter(|at| {
            let before = statement[..*at].trim_end();
            before.is_empty() || before.ends_with(['}', '{', ')', ']']) || before.ends_with("pub")
        });
        let Some(at) = import else {
            rest.push_str(statement);
            continue;
        };
        let (before, tree) = statement.split_at(at);
        rest.push_str(before);
        let tree = tree.trim_start_matches("use ").trim_end_matches(';');
        // A file that re-exports its children does not use them.
        let before = before.trim_end();
        let reexports =
            ["pub", "pub(crate)", "pub(super)"].iter().any(|word| before.ends_with(word));
        if !(reexports && file.is_facade()) {
            paths.extend(paths_of(tree));
        }
    }
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in rest.match_indices(start) {
            let before = rest[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let ends = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
            paths.push(rest[at..].split(ends).next().unwrap().to_owned());
        }
    }
    // A file may name its children without a prefix.
    let child = |path: &String| {
        let first = path.split("::").next().unwrap();
        let child: Module = module.iter().cloned().chain([first.to_owned()]).collect();
        ["crate", "super", "self"].contains(&first) || all.contains_key(&child)
    };
    paths.retain(child);
    paths
}

/// Resolves a path that `module` names: the module that it leads into, and the item's name there.
fn resolve(
    path: &str,
    module: &[String],
    all: &BTreeMap<Module, File>,
) -> (Module, Option<String>) {
    let mut found = module.to_vec();
    let mut parts = path.split("::").peekable();
    match parts.peek() {
        Some(&"crate") => {
            found.clear();
            parts.next();
        }
        Some(&"self") => {
            parts.next();
        }
        _ => {
            while parts.next_if_eq(&"super").is_some() {
                found.pop();
            }
        }
    }
    while let Some(part) = parts.peek() {
        found.push((*part).to_owned());
        if !all.contains_key(&found) {
            found.pop();
            break;
        }
        parts.next();
    }
    (found, parts.next().map(str::to_owned))
}

/// Removes modules that know no other one until nothing changes; what is left stands in circles, or leads
/// into one.
fn circles(mut edges: BTreeMap<Module, BTreeSet<Module>>) -> BTreeMap<Module, BTreeSet<Module>> {
    loop {
        let ends: Vec<Module> =
            edges.iter().filter(|(_, known)| known.is_empty()).map(|(m, _)| m.clone()).collect();
        if ends.is_empty() {
            return edges;
        }
        for end in ends {
            edges.remove(&end);
            edges.values_mut().for_each(|known| {
                known.remove(&end);
            });
        }
    }
}

/// Returns the edges between a crate's modules, and its imports through files that only re-export.
fn edges(all: &BTreeMap<Module, File>) -> (BTreeMap<Module, BTreeSet<Module>>, Vec<String>) {
    let (mut edges, mut through) = (BTreeMap::new(), Vec::new());
    for (module, file) in all {
        let known: &mut BTreeSet<Module> = edges.entry(module.clone()).or_default();
        for path in named(file, module, all) {
            let (target, item) = resolve(&path, module, all);
            let Some(there) = all.get(&target).filter(|_| target != *module) else { continue };
            let item = item.filter(|item| item != "self");
            match item {
                Some(_) if path.starts_with("super::") && file.has_modules() => {}
                Some(item) if there.is_facade() && !there.defines(&item) => {
                    through.push(format!("{}: {path}", file.path.display()));
                }
                None if there.is_facade() => {}
                _ => {
                    known.insert(target);
                }
            }
        }
    }
    (edges, through)
}

#[test]
fn paths_are_read_from_imports() {
    assert_eq!(
        paths_of("crate::a::{B, c::{D, e}, F as G}"),
        ["crate::a::B", "crate::a::c::D", "crate::a::c::e", "crate::a::F"]
    );
    assert_eq!(code("a \"x\\\"y\" // z\n'\"' b"), "a  \n b");
}

#[test]
fn circles_are_found() {
    let module = |name: &str| vec![name.to_owned()];
    let file = |code: &str| File { path: "a.rs".into(), code: code.to_owned() };
    let all = BTreeMap::from([
        (module("a"), file("use crate::b::B;")),
        (module("b"), file("fn f() { super::c::g() }")),
        (module("c"), file("pub use crate::{a::A};")),
        (module("d"), file("use crate::a::A;\nuse std::fs;")),
    ]);
    let (found, through) = edges(&all);
    assert!(through.is_empty(), "{through:?}");
    // What leads into a circle is left too.
    assert_eq!(circles(found).len(), 4);
    let all = all.into_iter().filter(|(name, _)| *name != module("b")).collect();
    assert!(circles(edges(&all).0).is_empty());
}

#[test]
fn files_know_each_other_in_one_direction() {
    for src in crates() {
        let found = circles(edges(&modules(&src)).0);
        assert!(found.is_empty(), "circles in {}: {found:#?}", src.display());
    }
}

#[test]
fn files_import_from_where_a_thing_is_defined() {
    let through: Vec<String> = crates().iter().flat_map(|src| edges(&modules(src)).1).collect();
    assert!(through.is_empty(), "{} imports: {through:#?}", through.len());
}
