//! Options of an object store. In: what the caller read from its settings and its environment. Out: options
//! that show no secret. Knows no request.

use std::fmt;
use std::time::Duration;

/// Address of an object store, and the way to reach it. Without secrets in its `Debug` form.
#[derive(Clone)]
pub struct ObjectOptions {
    /// `s3://BUCKET/PREFIX`.
    pub url: String,
    /// Endpoint of a server that speaks S3, as `https://HOST:PORT`. Absent: AWS, in the region.
    pub endpoint: Option<String>,
    /// Region. Absent: us-east-1.
    pub region: Option<String>,
    /// Whether an `http://` endpoint may be used: keys stay secret, blocks do not.
    pub allow_http: bool,
    /// Right to the bucket.
    pub login: ObjectLogin,
    /// Further certificate authorities, as PEM, beside those that are compiled in.
    pub ca_pem: Option<Vec<u8>>,
    /// Longest wait for the answer to one request for a file, of which a put carries up to 8 MiB. It is sent up
    /// to eight times.
    pub patience: Duration,
    /// Whether a probe also writes: it creates an object eight times at once and removes it, to see whether
    /// conditional puts are atomic.
    pub probe_writes: bool,
}

impl ObjectOptions {
    /// Returns options for a URL: unsigned, on AWS, over TLS, 30 s of patience.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            endpoint: None,
            region: None,
            allow_http: false,
            login: ObjectLogin::Unsigned,
            ca_pem: None,
            patience: Duration::from_secs(30),
            probe_writes: false,
        }
    }

    /// Returns the URL without what may be a secret.
    pub(super) fn shown(&self) -> String {
        let Some((scheme, rest)) = self.url.split_once("://") else {
            return "the URL".to_owned();
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        format!("{scheme}://{}", rest.trim_end_matches('/'))
    }
}

impl fmt::Debug for ObjectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectOptions({}, {:?})", self.shown(), self.login)
    }
}

/// Right to a bucket.
#[derive(Clone)]
pub enum ObjectLogin {
    /// A pair of keys, as in `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.
    Keys {
        /// Name of the key.
        access_key: String,
        /// The secret.
        secret_key: String,
        /// Token of a key that expires.
        session_token: Option<String>,
    },
    /// The role of the machine: a web identity, a container's or an instance's. It asks the network.
    Machine {
        /// Variables of the environment, as name and value. Only those count by which AWS tells a machine its
        /// role, such as `AWS_ROLE_ARN` and `AWS_WEB_IDENTITY_TOKEN_FILE`.
        variables: Vec<(String, String)>,
    },
    /// None: a public bucket.
    Unsigned,
}

impl fmt::Debug for ObjectLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys { .. } => "Keys",
            Self::Machine { .. } => "Machine",
            Self::Unsigned => "Unsigned",
        })
    }
}
