//! Sources of model files: a catalogue of names, the Hugging Face hub, the Python package index, and
//! the folders that keep what was fetched.

pub(crate) mod cache;
pub(crate) mod catalogue;
mod checksum;
mod folders;
mod hub;
mod names;
mod pypi;
