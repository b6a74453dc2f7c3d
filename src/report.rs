//! What goes to stdout and stderr.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use hyperrag_pipeline::{ByteProgress, Counts};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;

/// Writes a line of data to stdout.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end_matches('\n'))?;
    Ok(out.flush()?)
}

/// Writes a piece of a line to stdout, for the user to see at once.
pub(crate) fn print_piece(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Prints figures as JSON or as a table, and writes them to a file too where one is named.
pub(crate) fn figures(
    figures: &impl Serialize,
    json: bool,
    file: Option<&Path>,
    table: impl FnOnce() -> String,
) -> Result<()> {
    let text = serde_json::to_string(figures)?;
    if let Some(path) = file {
        fs::write(path, &text).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    print(&if json { text } else { table() })
}

/// Tells the user something that is no data.
#[expect(clippy::print_stderr, reason = "the one place where messages are written")]
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Tells the user of something that is not as it should be.
pub(crate) fn warn(text: &str) {
    note(&format!("warning: {text}"));
}

/// A bar on stderr where that is a terminal, else nothing.
pub(crate) fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Shows how a build goes. `rows` is the expected number.
pub(crate) fn show_build(bar: &ProgressBar, counts: &Counts, rows: Option<u64>, seconds: f64) {
    if let Some(rows) = rows {
        bar.set_length(rows);
    }
    bar.set_position(counts.rows_done);
    let rate = counts.tokens as f64 / seconds.max(1e-9);
    bar.set_message(format!(
        "{} documents, {} tokens at {rate:.0}/s, {}",
        HumanCount(counts.documents),
        HumanCount(counts.tokens),
        HumanBytes(counts.bytes_written),
    ));
}

/// Runs `work` while a thread calls `show`, which moves `bar` on.
pub(crate) fn watch<T>(bar: &ProgressBar, show: impl Fn() + Sync, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                show();
                thread::park_timeout(Duration::from_millis(200));
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        bar.finish_and_clear();
        result
    })
}

/// Runs `work` over the bytes of a store while a thread shows its progress.
pub(crate) fn watch_bytes<T>(progress: &ByteProgress, work: impl FnOnce() -> T) -> T {
    let bar = bar(
        Some(0),
        "{elapsed_precise} {bar:24} {bytes}/{total_bytes}, {bytes_per_sec}, ETA {eta_precise}",
    );
    let show = || {
        let (done, all) = progress.bytes();
        bar.set_length(all);
        bar.set_position(done);
    };
    watch(&bar, show, work)
}

/// `bytes` for people.
pub(crate) fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// `seconds` for people.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// At most `width` characters of `text` on one line, around the first word of `query` in it.
pub(crate) fn snippet(text: &str, query: &str, width: usize) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let plain = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let wanted: Vec<String> =
        query.split_whitespace().map(plain).filter(|w| w.chars().count() > 3).collect();
    let found = words.iter().position(|word| wanted.contains(&plain(word))).unwrap_or(0);
    let first = found.saturating_sub(3);
    let mut line = if first > 0 { "… ".to_owned() } else { String::new() };
    line.push_str(&words[first..].iter().take(width).copied().collect::<Vec<_>>().join(" "));
    shorten(&line, width)
}

/// At most `width` characters of `text`.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snippets_start_near_the_query_and_fit() {
        let text = "One two three four five\nsix Seven, eight nine ten";
        assert_eq!(snippet(text, "seven", 40), "… four five six Seven, eight nine ten");
        assert_eq!(snippet(text, "seven", 12), "… four five…");
        assert_eq!(snippet("", "x", 12), "");
        assert_eq!(shorten("äöü", 2), "ä…");
    }
}
