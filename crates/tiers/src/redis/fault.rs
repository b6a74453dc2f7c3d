//! Errors of a node of Redis, sorted by what follows from them.
//!
//! In: errors of the client library. Out: redirections, and reasons in words. It knows no connection.

use std::time::Duration;

use hyperrag_core::TierError;
use redis::{ErrorKind, RedisError};

use super::slots::Address;

/// Reason why a node did not do as it was asked.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Another node holds the slot.
    Moved(Address),
    /// Another node has this key already, and gives it after `ASKING`.
    Ask(Address),
    /// The node takes no writes.
    ReadOnly(String),
    /// The node cannot answer now: loading, its cluster down.
    Busy(String),
    /// The connection failed, or the answer is not one of the protocol.
    Broken(String),
    /// No answer within this time.
    Timeout(Duration),
    /// Not a matter of this node at this time; another attempt would end alike.
    Final(TierError),
}

impl Fault {
    /// Sorts an error of the node at `from`.
    pub(super) fn of(error: &RedisError, from: &Address) -> Self {
        if error.kind() == ErrorKind::AuthenticationFailed {
            return wrong_password(from);
        }
        if let Some(errors) = error.clone().into_server_errors()
            && let Some((_, first)) = errors.first()
        {
            return Self::of_server(first.code(), first.details().unwrap_or_default(), from);
        }
        // The client's sentences may have several lines.
        let error = error.to_string();
        let error: Vec<&str> = error.lines().map(str::trim).collect();
        let words = format!("{from}: {}", error.join(" ").trim_end());
        if words.contains("invalid peer certificate") {
            return Self::Final(TierError::Refused(format!(
                "{words}; HYPERRAG_REDIS_CA names a file with the authorities that are trusted"
            )));
        }
        Self::Broken(words)
    }

    fn of_server(code: &str, details: &str, from: &Address) -> Self {
        let words = || format!("{from}: {code} {details}");
        let target = || Address::parse(details.split_ascii_whitespace().nth(1)?, &from.host);
        match code {
            "MOVED" | "ASK" => match target() {
                Some(to) if code == "MOVED" => Self::Moved(to),
                Some(to) => Self::Ask(to),
                None => Self::Busy(words()),
            },
            "NOAUTH" | "WRONGPASS" => wrong_password(from),
            "NOPERM" => Self::Final(TierError::Refused(format!(
                "{}; give the user of HYPERRAG_REDIS_USERNAME and HYPERRAG_REDIS_PASSWORD this right",
                words()
            ))),
            "READONLY" => Self::ReadOnly(words()),
            "OOM" => Self::Final(TierError::Full(words())),
            "LOADING" | "CLUSTERDOWN" | "TRYAGAIN" | "MASTERDOWN" | "BUSY" | "NOREPLICAS"
            | "MISCONF" => Self::Busy(words()),
            _ => Self::Final(TierError::Protocol(words())),
        }
    }

    /// Whether the connection is of no more use.
    pub(super) fn ends_connection(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Timeout(_))
    }

    /// Returns the reason for who asked.
    pub(super) fn into_error(self) -> TierError {
        match self {
            Self::Moved(to) | Self::Ask(to) => TierError::Unreachable(format!(
                "the cluster's nodes send on from one to another, at last to {to}"
            )),
            Self::ReadOnly(words) => TierError::Refused(words),
            Self::Busy(words) | Self::Broken(words) => TierError::Unreachable(words),
            Self::Timeout(time) => TierError::Timeout(time),
            Self::Final(error) => error,
        }
    }
}

fn wrong_password(from: &Address) -> Fault {
    Fault::Final(TierError::Refused(format!(
        "{from} wants another password; set HYPERRAG_REDIS_PASSWORD, and HYPERRAG_REDIS_USERNAME for a user \
         that is not the default one"
    )))
}
