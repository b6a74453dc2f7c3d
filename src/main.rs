//! hyperrag: reranks with a decoder-only language model over KV caches computed once, offline.
//!
//! This binary parses, resolves settings, dispatches and reports; the work is in the crates.

mod cli;
mod commands;
mod exit;
mod queries;
mod report;
mod settings;
mod text;

use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = settings::parse().and_then(|resolved| match resolved {
        settings::Resolved::Print(text) => report::print(&text).map(|()| exit::Status::Done),
        settings::Resolved::Run(cli) => commands::run(*cli),
    });
    match outcome {
        Ok(status) => status.into(),
        Err(error) => exit::report(&error).into(),
    }
}
