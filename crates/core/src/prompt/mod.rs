//! Prompts: the profile with its templates, and the query's side of a score.

pub(crate) mod profile;
pub(crate) mod query;
