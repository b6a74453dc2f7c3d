//! Arguments and files in, the words of the engine out.

pub(crate) mod candidates;
pub(crate) mod corpus;
pub(crate) mod gold;
pub(crate) mod judged;
pub(crate) mod language;
pub(crate) mod model;
pub(crate) mod partition;
pub(crate) mod prices;
pub(crate) mod quantity;
pub(crate) mod queries;
pub(crate) mod ranking;
pub(crate) mod rows;
pub(crate) mod shape;
pub(crate) mod stdin;
pub(crate) mod storage;
pub(crate) mod store;
pub(crate) mod text;
pub(crate) mod tiers;
