//! The suite that every tier passes. In: a tier, and a way to fill it. Out: nothing, or a panic that says which
//! promise of [`hyperrag_core::Tier`] was broken. It knows no tier.
//!
//! Every case brings blocks of its own, of new tables and shards, so that one tier can serve all cases, one
//! after another. The tier needs room for 256 MiB.

mod files;
mod harness;
mod reading;
mod requests;
mod writing;

pub use harness::{Case, FileCase, Harness};

/// Returns the cases for every [`hyperrag_core::Tier`].
#[must_use]
pub fn cases() -> Vec<Case> {
    [reading::cases(), requests::cases(), writing::cases()].concat()
}

/// Returns the cases for every [`hyperrag_core::FileTier`]. They leave files under `contract/` behind.
#[must_use]
pub fn file_cases() -> Vec<FileCase> {
    files::cases()
}
