//! Panics, which are bugs: a panic comes in, one sentence on stderr and exit code 1 go out.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::process;

use crate::exit::Status;
use crate::report;

/// Has a panic end the program at once, on whatever thread it is, so that no other thread waits for
/// that one, and nothing that it was changing is used again. What [`hyperrag_core::guarded`] catches is
/// left to it.
pub(crate) fn set_hook() {
    panic::set_hook(Box::new(|panic| {
        if hyperrag_core::is_guarded() {
            return;
        }
        report::error(&sentence(panic));
        // As RUST_BACKTRACE asks.
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            report::note(&trace.to_string());
        }
        process::exit(Status::Failed as i32);
    }));
}

fn sentence(panic: &PanicHookInfo<'_>) -> String {
    let what = hyperrag_core::panic_text(panic.payload());
    let what = what.lines().map(str::trim).collect::<Vec<_>>().join(", ");
    let place = panic.location().map_or_else(String::new, |at| format!(" at {at}"));
    format!(
        "this is a bug of hyperrag: {what}{place}; please report it with the command line, as \
         CONTRIBUTING.md says"
    )
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use indicatif::ProgressBar;

    use super::*;

    /// Names the panic of the process that [`ended`] starts.
    const PANIC: &str = "HYPERRAG_TEST_PANIC";

    fn work() {
        panic!("row 7 is\n  gone\u{1b}[2J");
    }

    /// Runs in a process of its own, which has to end.
    #[test]
    fn a_process_panics() {
        let Some(kind) = std::env::var_os(PANIC) else { return };
        set_hook();
        assert_eq!(
            hyperrag_core::guarded(|| -> () { panic!("caught") }),
            Err(hyperrag_core::CaughtPanic("caught".to_owned()))
        );
        match kind.to_str() {
            Some("watched") => report::watch(&ProgressBar::hidden(), || (), work),
            Some("watcher") => report::watch(&ProgressBar::hidden(), work, || {
                loop {
                    thread::park();
                }
            }),
            _ => thread::spawn(work).join().unwrap_or_default(),
        }
    }

    /// The exit code and stderr of a process that panics so.
    fn ended(kind: &str, backtrace: &str) -> (Option<i32>, String) {
        let mut process = Command::new(std::env::current_exe().unwrap());
        process.args(["--exact", "panics::tests::a_process_panics", "--nocapture"]);
        process.env(PANIC, kind).env("RUST_BACKTRACE", backtrace);
        let mut child = process.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(60) {
                child.kill().unwrap();
                panic!("{kind}: it hangs");
            }
            thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    #[test]
    fn a_panic_ends_the_program_with_a_sentence() {
        for kind in ["watched", "watcher", "thread"] {
            let (code, stderr) = ended(kind, "0");
            assert_eq!(code, Some(1), "{kind}: {stderr}");
            let start =
                "error: this is a bug of hyperrag: row 7 is, gone\\u{1b}[2J at src/panics.rs:";
            assert!(stderr.starts_with(start), "{kind}: {stderr}");
            assert!(
                stderr.ends_with("with the command line, as CONTRIBUTING.md says\n"),
                "{stderr}"
            );
            assert_eq!(stderr.lines().count(), 1, "{kind}: {stderr}");
        }
        let (code, stderr) = ended("thread", "1");
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.lines().count() > 3 && stderr.contains("0: "), "{stderr}");
    }
}
