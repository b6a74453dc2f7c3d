//! Errors in, the exit code out.

use std::io;
use std::process::ExitCode;

use hyperrag_core::ErrorKind;

use crate::{error, hint, report};

/// End of the program; the number is its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// All done.
    Done = 0,
    /// Not done.
    Failed = 1,
    /// The command line or the settings make no sense.
    Usage = 2,
    /// Done, but a block had to be computed again, a query failed, or rows of the input were left out.
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

impl From<ErrorKind> for Status {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Usage => Self::Usage,
            ErrorKind::Damaged => Self::Damaged,
            ErrorKind::Mismatch => Self::Mismatch,
            ErrorKind::Interrupted => Self::Interrupted,
            ErrorKind::Input | ErrorKind::Refused | ErrorKind::Busy | ErrorKind::Failed => {
                Self::Failed
            }
        }
    }
}

/// Says on stderr what went wrong, and gives the exit code for it.
pub(crate) fn of(error: &anyhow::Error) -> Status {
    let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(broken_pipe) {
        return Status::Done; // The reader has had enough.
    }
    report::error(&hint::sentence(error));
    error::class(error).0.into()
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use hyperrag_engine::EngineError;
    use hyperrag_store::StoreError;

    use super::*;
    use crate::error::{Damaged, Usage};

    #[test]
    fn a_kind_has_one_exit_code() {
        for (kind, code) in [
            (ErrorKind::Failed, 1),
            (ErrorKind::Input, 1),
            (ErrorKind::Refused, 1),
            (ErrorKind::Busy, 1),
            (ErrorKind::Usage, 2),
            (ErrorKind::Damaged, 4),
            (ErrorKind::Mismatch, 5),
            (ErrorKind::Interrupted, 130),
        ] {
            assert_eq!(Status::from(kind) as i32, code, "{kind:?}");
        }
    }

    #[test]
    fn the_outermost_known_cause_decides() {
        let status = |error: anyhow::Error| Status::from(error::class(&error).0);
        assert_eq!(status(anyhow::anyhow!("unknown")), Status::Failed);
        assert_eq!(status(Usage("no".to_owned()).into()), Status::Usage);
        assert_eq!(status(Damaged("two files".to_owned()).into()), Status::Damaged);
        let newer = || StoreError::Format { path: "s".into(), version: 9 };
        assert_eq!(status(newer().into()), Status::Mismatch);
        let wrapped = Err::<(), _>(EngineError::Store(newer())).context("query q1");
        assert_eq!(status(wrapped.unwrap_err()), Status::Mismatch);
        assert_eq!(status(EngineError::Interrupted.into()), Status::Interrupted);
        assert_eq!(status(EngineError::EmptyQuery.into()), Status::Failed);
    }
}
