//! Texts in, stdout and stderr out.
//!
//! Text for people passes through [`visible`] here and nowhere else: what a corpus, a file name or a
//! model says cannot move the cursor of a terminal. Data (JSON, runs, settings) is printed as it is.

use std::borrow::Cow;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use anyhow::{Context, Result};
use hyperrag_engine::ByteProgress;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Says what cannot be written.
const STDOUT: &str = "stdout: cannot be written";

/// Writes lines for a program to stdout.
pub(crate) fn print_data(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush());
    written.context(STDOUT)
}

/// Writes lines for people to stdout.
pub(crate) fn print(text: &str) -> Result<()> {
    print_data(&visible(text))
}

/// Writes a piece of a line to stdout, for the user to see at once.
pub(crate) fn print_piece(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(visible(text).as_bytes()).and_then(|()| out.flush()).context(STDOUT)
}

/// Writes a help or a version where clap wants it, in its colours.
pub(crate) fn print_help(help: &clap::Error) -> Result<()> {
    match help.print().and_then(|()| io::stdout().flush()) {
        Err(error) if !help.use_stderr() => Err(error).context(STDOUT),
        _ => Ok(()),
    }
}

/// Spells out what a terminal would obey: control characters, but for line ends and tabs, and those
/// that turn the direction of writing (Unicode, UAX 9).
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| match c {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    };
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(2 * text.len());
    for c in text.chars() {
        if obeyed(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
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
    if json { print_data(&text) } else { print(&table()) }
}

/// Tells the user something that is no data. Where stderr takes nothing, work goes on without it.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", visible(text));
}

/// Tells the user of something that is not as it should be.
pub(crate) fn warn(text: &str) {
    note(&format!("warning: {text}"));
}

/// Tells the user why nothing was done.
pub(crate) fn error(text: &str) {
    note(&format!("error: {text}"));
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

/// Runs `work` while a thread calls `show`, which moves `bar` on; without it where no thread can be
/// started.
pub(crate) fn watch<T>(bar: &ProgressBar, show: impl Fn() + Sync, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = || {
            while !done.load(Ordering::Relaxed) {
                show();
                thread::park_timeout(Duration::from_millis(200));
            }
        };
        let watcher = thread::Builder::new().spawn_scoped(scope, watch).ok();
        // The scope waits for the watcher, after a panic of `work` too.
        let _end = End { done: &done, watcher: watcher.as_ref().map(|w| w.thread()), bar };
        work()
    })
}

/// Ends the watching when it is dropped.
struct End<'a> {
    done: &'a AtomicBool,
    watcher: Option<&'a Thread>,
    bar: &'a ProgressBar,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher {
            watcher.unpark();
        }
        self.bar.finish_and_clear();
    }
}

/// Runs `work` over the bytes of a store while a thread shows its progress.
pub(crate) fn watch_bytes<T>(progress: &ByteProgress, work: impl FnOnce() -> T) -> T {
    watch_bytes_and(progress, String::new, work)
}

/// Runs `work` over the bytes of a store while a thread shows its progress, and some words after it.
pub(crate) fn watch_bytes_and<T>(
    progress: &ByteProgress,
    words: impl Fn() -> String + Sync,
    work: impl FnOnce() -> T,
) -> T {
    let bar = bar(
        Some(0),
        "{elapsed_precise} {bar:24} {bytes}/{total_bytes}, {bytes_per_sec}, ETA {eta_precise}{wide_msg}",
    );
    let show = || {
        bar.set_message(words());
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

/// Returns `text` on one line of at most `width` columns, around the first word of `query` in it.
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

/// Returns `text` on one line of at most `width` columns.
pub(crate) fn on_one_line(text: &str, width: usize) -> String {
    shorten(&text.split_whitespace().collect::<Vec<_>>().join(" "), width)
}

/// Returns at most `width` columns of `text`, with an ellipsis where it is cut. A Chinese character
/// takes two columns.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut columns = 1; // Of the ellipsis.
    let fits = text.chars().take_while(|character| {
        columns += character.width().unwrap_or(0);
        columns <= width
    });
    let kept: String = fits.collect();
    format!("{}…", kept.trim_end())
}

/// Returns at most `width` columns of the end of `text`, with an ellipsis where it is cut.
pub(crate) fn shorten_start(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut columns = 1; // Of the ellipsis.
    let fits = text.char_indices().rev().take_while(|(_, character)| {
        columns += character.width().unwrap_or(0);
        columns <= width
    });
    let start = fits.last().map_or(text.len(), |(at, _)| at);
    format!("…{}", text[start..].trim_start())
}

/// Returns the lines of `text`, broken between words where they have more than `width` columns. A longer word
/// stays whole, for who copies it.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for whole in text.split('\n') {
        let mut line = String::new();
        for word in whole.split_whitespace() {
            if !line.is_empty() && line.width() + 1 + word.width() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
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
        assert_eq!(shorten("蜜蜂在冬天", 10), "蜜蜂在冬天");
        assert_eq!(shorten("蜜蜂在冬天", 9), "蜜蜂在冬…");
        assert_eq!(shorten("蜜蜂在冬天", 8), "蜜蜂在…");
        assert_eq!(shorten("e\u{301}e\u{301}e\u{301}", 2), "e\u{301}…");
        assert_eq!(on_one_line(" a\r\nb\tc ", 9), "a b c");
        assert_eq!(shorten_start("runs/a.run", 10), "runs/a.run");
        assert_eq!(shorten_start("runs/a.run", 7), "…/a.run");
        assert_eq!(shorten_start("蜜蜂", 3), "…蜂");
        assert_eq!(shorten_start("ab", 1), "…");
        assert_eq!(wrapped("a bb ccc\n\ndddddd e", 4), ["a bb", "ccc", "", "dddddd", "e"]);
    }

    #[test]
    fn what_a_terminal_obeys_is_spelt_out() {
        let plain = "Ünïcödé 日本\n\tשלום\u{200f}";
        assert!(matches!(visible(plain), Cow::Borrowed(text) if text == plain));
        let clear = "a\u{1b}[2J\u{9b}31m\r\u{7f}\u{8}\0b\n";
        let shown = "a\\u{1b}[2J\\u{9b}31m\\u{d}\\u{7f}\\u{8}\\u{0}b\n";
        assert_eq!(visible(clear), shown);
        let obeyed = ('\0'..='\u{2069}').filter(|c| visible(&c.to_string()) != c.to_string());
        // C0 but two, DEL, C1, and nine of direction.
        assert_eq!(obeyed.count(), 30 + 1 + 32 + 9);
        // A sequence that comes in pieces.
        let pieces: String = ["x\u{1b}", "[", "31m"].map(|piece| visible(piece)).concat();
        assert_eq!(pieces, "x\\u{1b}[31m");
    }

    #[test]
    fn a_panic_of_watched_work_ends_the_watching() {
        let bar = ProgressBar::hidden();
        let watched = |work: fn()| hyperrag_core::guarded(|| watch(&bar, || (), work));
        assert_eq!(watched(|| panic!("gone")), Err(hyperrag_core::CaughtPanic("gone".to_owned())));
        assert!(bar.is_finished());
        assert_eq!(watched(|| ()), Ok(()));
    }
}
