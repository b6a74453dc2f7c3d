//! Errors in, the exit code out.

use std::io;
use std::process::ExitCode;

use hyperrag_engine::{EngineError, OpenError};
use hyperrag_rerank::RerankError;
use hyperrag_store::StoreError;

use crate::report;

/// End of the program; the number is its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// All done.
    Done = 0,
    /// Not done.
    Failed = 1,
    /// The command line or the settings make no sense.
    Usage = 2,
    /// Done, but a block had to be computed again or a query failed.
    Degraded = 3,
    /// The store is damaged.
    Damaged = 4,
    /// Store and model do not match.
    Mismatch = 5,
    /// Stopped by a signal.
    Interrupted = 130,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// An error of the command line or the settings.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Damage of a store, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Damaged(pub(crate) String);

/// Says on stderr what went wrong, and gives the exit code for it.
pub(crate) fn of(error: &anyhow::Error) -> Status {
    let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(broken_pipe) {
        return Status::Done; // The reader has had enough.
    }
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Transparent errors repeat their cause.
        if !said.ends_with(&cause) {
            said = if said.is_empty() { cause } else { format!("{said}: {cause}") };
        }
    }
    report::error(&said);
    error.chain().find_map(status_of).unwrap_or(Status::Failed)
}

fn status_of(cause: &(dyn std::error::Error + 'static)) -> Option<Status> {
    if cause.is::<Usage>() {
        return Some(Status::Usage);
    }
    if cause.is::<Damaged>() {
        return Some(Status::Damaged);
    }
    if let Some(EngineError::Interrupted) = cause.downcast_ref() {
        return Some(Status::Interrupted);
    }
    let in_build = || match cause.downcast_ref() {
        Some(EngineError::Store(error)) => Some(error),
        _ => None,
    };
    let in_open = || match cause.downcast_ref() {
        Some(OpenError::Store(error)) => Some(error),
        _ => None,
    };
    let store = cause.downcast_ref::<StoreError>().or_else(in_build).or_else(in_open);
    match store {
        Some(StoreError::Mismatch { .. } | StoreError::Format { .. }) => {
            return Some(Status::Mismatch);
        }
        Some(StoreError::Damaged { .. }) => return Some(Status::Damaged),
        _ => {}
    }
    match cause.downcast_ref() {
        Some(
            EngineError::Index(_)
            | EngineError::Rerank(RerankError::Lost { .. } | RerankError::Damaged { .. }),
        ) => Some(Status::Damaged),
        _ => None,
    }
}
