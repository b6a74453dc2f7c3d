//! Numbers that no other process draws. In: nothing. Out: random bits, for names and waits, not for secrets.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Returns 64 random bits. The standard library seeds its maps from the system's source.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Returns a name that no other process has.
pub(crate) fn nonce() -> String {
    format!("{:016x}{:016x}", random(), random())
}
