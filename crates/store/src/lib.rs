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

mod error;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod local;
mod maintain;
mod read_error;

pub use error::StoreError;
pub use format::block_table::FORMAT_VERSION;
pub use format::chunk_file::{IndexedDocument, ShardChunks};
pub use format::manifest::{FileRecord, LiveRows, Manifest, ShardRecord, Tombstones};
pub use local::calibration::calibration_at;
pub use local::generation::generation_damage;
pub use local::reader::Store;
pub use local::replica_list::{
    ReplicaState, forget_replica, remember_replica, replica_states, replicas,
};
pub use local::replicated::Replicated;
pub use local::writer::{
    RowsHasher, ShardInput, ShardWriter, StoreWriter, UNIT_BYTES, rows_digest,
};
pub use maintain::compact::Rewritten;
pub use maintain::rebuild_manifest::{Current, Recovered, recover};
pub use maintain::repair::{ComputeBlocks, Repair, Salvage};
pub use maintain::replicate::Replica;
pub use maintain::verify::Damage;
