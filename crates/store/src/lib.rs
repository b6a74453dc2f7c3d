//! Keeps blocks on the local disk: shards of K and V, the token ids that they were made from, and the
//! manifest that says which of them count.
//!
//! In: units of chunks with their blocks. Out: checked blocks and token ids. It blocks, uses no
//! network, and knows neither model nor ranking. The format is in FORMAT.md.
//!
//! ```
//! use hyperrag_store::{Store, StoreError};
//!
//! let opened = Store::open("no such folder".as_ref());
//! assert!(matches!(opened, Err(StoreError::Absent { .. })));
//! ```
#![doc = include_str!("../FORMAT.md")]

mod calibration;
mod chunks;
mod compact;
mod draft;
mod error;
mod fault;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod generation;
mod journal;
mod latest;
mod layout;
mod manifest;
mod open;
mod open_files;
mod pin;
mod reader;
mod recover;
mod repair;
mod replica;
mod replicas;
mod replicated;
mod shard;
mod state;
mod stored;
mod upgrade;
mod verify;
mod writer;

pub use calibration::calibration_at;
pub use chunks::{IndexedDocument, ShardChunks};
pub use compact::Rewritten;
pub use error::StoreError;
pub use generation::generation_damage;
pub use layout::FORMAT_VERSION;
pub use manifest::{FileRecord, LiveRows, Manifest, ShardRecord, Tombstones};
pub use reader::Store;
pub use recover::{Current, Recovered, recover};
pub use repair::{ComputeBlocks, Repair, Salvage};
pub use replica::Replica;
pub use replicas::{ReplicaState, forget_replica, remember_replica, replica_states, replicas};
pub use replicated::Replicated;
pub use verify::Damage;
pub use writer::{RowsHasher, ShardInput, ShardWriter, StoreWriter, UNIT_BYTES, rows_digest};
