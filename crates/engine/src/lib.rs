//! The stages joined, for any program: `build` takes a corpus to a store, `search` a query to ranked
//! hits, `answer` goes on to an answer, and `maintain` keeps a store as it should be.
//!
//! In: an open corpus, model and store. Out: a store, hits, answers, reports. It does not know the
//! command line, and prints nothing.
//!
//! ```
//! use hyperrag_engine::search::session::BlockPolicy;
//! use hyperrag_engine::{Engine, ModelRequest, Query};
//! use hyperrag_model::{ComputeDtype, DeviceChoice, DtypeChoice};
//!
//! let testdata = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
//! let model = testdata.join("tiny.gguf");
//! let request = ModelRequest {
//!     model: model.to_str().unwrap(),
//!     profile: None,
//!     device: DeviceChoice::Cpu,
//!     dtype: DtypeChoice::Named(ComputeDtype::F32),
//!     threads: 1,
//!     warn: |warning| eprintln!("{}", warning.what),
//! };
//! # // An index writes a lock beside it, and testdata stays as it is.
//! # let folder = tempfile::tempdir()?;
//! # let store = folder.path().join("v2");
//! # let mut copy = std::process::Command::new("cp");
//! # assert!(copy.arg("-r").arg(testdata.join("stores/v2")).arg(&store).status()?.success());
//! let engine = Engine::open(&store, &request)?;
//! let session = engine.session()?;
//! let query = Query { id: "q".into(), text: "a river of bees".into() };
//! let stored = session.search(&query, 9, BlockPolicy::Load)?;
//! let recomputed = session.search(&query, 9, BlockPolicy::Recompute)?;
//! assert_eq!(stored.hits[0].id, "river");
//! assert_eq!(stored.hits, recomputed.hits);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod answer;
pub mod build;
pub mod error;
mod index;
pub mod maintain;
pub mod open;
pub mod profile;
pub mod progress;
pub mod search;
pub mod threads;

pub use build::build;
pub use build::memory_budget::Memory;
pub use build::plan::{Add, BuildInput, BuildSummary};
pub use error::EngineError;
pub use open::{Engine, LoadedModel, ModelRequest, OpenError};
pub use progress::{BuildProgress, ByteProgress};
pub use search::session::{Query, SearchResult, Session};
