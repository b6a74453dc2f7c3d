//! Options of Redis. In: what the caller read from its settings and its environment. Out: options that show no
//! secret. It knows no connection.

use std::fmt;
use std::time::Duration;

use hyperrag_core::TierRole;

/// Nodes that may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Masters and replicas, which hides a master that is gone.
    Replica,
    /// Masters alone.
    Master,
}

/// Addresses of the servers, and the use of them.
#[derive(Clone)]
pub struct RedisOptions {
    /// Nodes to start from, each `host:port`, `host` or `[v6]:port`. One, unless it is a cluster.
    pub nodes: Vec<String>,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// Certificates of authorities in PEM, in place of those that browsers trust.
    pub ca: Option<Vec<u8>>,
    /// User of the server's access lists, if not the default one. It needs a password.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Start of all keys.
    pub prefix: String,
    /// Duty.
    pub role: TierRole,
    /// Replicas that must have a block before it counts as written.
    pub copies: u32,
    /// Time after which a block may be dropped. Files are kept.
    pub ttl: Option<Duration>,
    /// Longest wait for one answer to anything but a fetch, which says its own.
    pub timeout: Duration,
    /// Bytes of answers that may be under way from one node.
    pub in_flight_bytes: u64,
    /// Nodes that may be read.
    pub readers: Readers,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            tls: false,
            ca: None,
            username: None,
            password: None,
            prefix: "hr1".to_owned(),
            role: TierRole::Home,
            copies: 0,
            ttl: None,
            timeout: Duration::from_secs(5),
            in_flight_bytes: 2 << 20,
            readers: Readers::Replica,
        }
    }
}

impl fmt::Debug for RedisOptions {
    /// Leaves out user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}
