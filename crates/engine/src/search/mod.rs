//! Queries: retrieval, scores of stored or computed blocks, ranked hits.
//!
//! In: an open store and its model. Out: ranked hits. It does not know who asks.

pub mod candidates;
pub mod collection;
mod query_first;
pub mod request;
pub(crate) mod retriever;
pub mod session;
