//! Work on a whole store: checking, copying, repairing and rewriting it.

pub(crate) mod adopt;
pub(crate) mod compact;
pub(crate) mod copy;
pub(crate) mod export;
pub(crate) mod rebuild_manifest;
pub(crate) mod repair;
pub(crate) mod replicate;
pub(crate) mod upgrade;
pub(crate) mod verify;
