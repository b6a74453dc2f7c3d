//! hyperrag: reranks with a decoder-only language model over KV caches computed once, offline.
//!
//! This binary parses, resolves settings, dispatches and reports; the work is in the crates.

mod cli;
mod commands;
mod error;
mod exit;
mod hint;
mod input;
mod output;
mod panics;
mod report;
mod settings;
mod signals;

#[cfg(test)]
#[path = "../fuzz/changed.rs"]
mod changed;
#[cfg(test)]
#[path = "../tests/cli/seeded.rs"]
mod seeded;

use std::process::ExitCode;

fn main() -> ExitCode {
    panics::set_hook();
    let parsed = signals::heed_file_size().and_then(|()| settings::parse());
    let outcome = parsed.and_then(|resolved| match resolved {
        settings::Resolved::Print(text) => report::print_data(&text).map(|()| exit::Status::Done),
        settings::Resolved::Run(cli) => commands::run(*cli),
    });
    match outcome {
        Ok(status) => status.into(),
        Err(error) => exit::of(&error).into(),
    }
}
