//! The stages joined, for any program: `build` takes a corpus to a store, `search` a query to ranked
//! hits, `answer` goes on to an answer, and `maintain` keeps a store as it should be.
//!
//! In: an open corpus, model and store. Out: a store, hits, answers, reports. It does not know the
//! command line, and prints nothing.

pub mod answer;
pub mod build;
pub mod error;
mod index;
pub mod inputs;
pub mod maintain;
mod notes;
pub mod open;
pub mod other_kernel;
pub mod profile;
pub mod progress;
pub mod search;
pub mod shared;
pub mod text;
pub mod threads;

pub use build::build;
pub use build::memory_budget::Memory;
pub use build::plan::{Add, BuildInput, BuildSummary};
pub use error::EngineError;
pub use open::error::OpenError;
pub use open::request::ModelRequest;
pub use open::{Engine, LoadedModel};
pub use progress::{BuildProgress, ByteProgress};
pub use search::session::{Query, SearchResult, Session};
pub use shared::error::ShareError;
