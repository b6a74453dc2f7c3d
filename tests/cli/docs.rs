//! README and docs: short, with links that lead somewhere and commands that run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Scratch, all_files, testdata};

/// Largest number of lines of the README.
const README_LINES_MAX: usize = 150;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Lists the README and all pages below docs/.
fn pages() -> Vec<PathBuf> {
    let pages = all_files(&root().join("docs")).into_iter();
    let pages = pages.filter(|path| path.extension().is_some_and(|e| e == "md"));
    let top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name));
    pages.chain(top).collect()
}

/// Returns the anchor of a heading.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Returns the targets of a page's links, except those in code.
fn links(text: &str) -> Vec<String> {
    let outside = text.split("```").step_by(2).flat_map(|part| part.split('`').step_by(2));
    let links = outside.flat_map(|part| {
        part.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
    });
    links.collect()
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= README_LINES_MAX, "{lines} lines");
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut count = 0;
    for page in pages() {
        for link in links(&fs::read_to_string(&page).unwrap()) {
            assert!(!link.contains("://"), "{}: {link} leads out", page.display());
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.with_file_name(file),
            };
            assert!(target.exists(), "{}: {link}", page.display());
            count += 1;
            if heading.is_empty() {
                continue;
            }
            let text = fs::read_to_string(&target).unwrap();
            let mut headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
            assert!(headings.any(|found| found == heading), "{}: {link}", page.display());
        }
    }
    assert!(count > 30, "{count} links");
}

/// Returns the blocks of a page that have a language.
pub(crate) fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("\n```{language}\n");
    let blocks = text.match_indices(&fence).map(|(at, fence)| &text[at + fence.len()..]);
    blocks.filter_map(|rest| Some(rest.split_once("\n```")?.0)).collect()
}

/// Returns the commands of a page: lines with `$ ` in its `console` blocks.
fn commands(text: &str) -> Vec<String> {
    let lines = blocks(text, "console").into_iter().flat_map(str::lines);
    lines.filter_map(|line| Some(line.strip_prefix("$ ")?.to_owned())).collect()
}

/// Makes a folder with the files that the pages mention.
pub(crate) fn prepared() -> Scratch {
    let scratch = Scratch::new();
    for (name, from) in [
        ("corpus.parquet", "corpus.parquet"),
        ("queries.jsonl", "queries.jsonl"),
        ("qrels.tsv", "qrels.tsv"),
    ] {
        fs::copy(testdata(from), scratch.path(name)).unwrap();
    }
    scratch.write("more.jsonl", "{\"_id\": \"new\", \"title\": \"\", \"text\": \"New bees.\"}\n");
    scratch.write("gone.txt", "p001\n");
    scratch.write("queries.tsv", "a\ta river of bees\nb\tflat bread\n");
    scratch
}

#[test]
fn commands_of_the_readme_and_the_guides_run() {
    let program = Path::new(env!("CARGO_BIN_EXE_hyperrag")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", program.display());
    let mut run = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let scratch = prepared();
        let mut commands = commands(&text);
        let builds = commands.iter().any(|line| line.starts_with("hyperrag build"));
        if !commands.is_empty() && !builds {
            commands.insert(0, "hyperrag build corpus.parquet --store my.store".to_owned());
        }
        for line in commands {
            let mut command = Command::new("bash");
            command.args(["-o", "pipefail", "-c", &line]).current_dir(scratch.path(""));
            command.env("PATH", &path).env("HYPERRAG_MODEL", testdata("tiny.gguf"));
            command.env("HYPERRAG_HOME", scratch.path("home"));
            let done = command.output().unwrap();
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{}: {line}: {said}", page.display());
            run += 1;
        }
    }
    assert!(run > 20, "{run} commands");
}
