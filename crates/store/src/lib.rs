//! Keeps blocks on the local disk: shards of K and V, the token ids that they were made from, and the
//! manifest that says which of them count.
//!
//! In: inputs of shards, cut into chunks, with their blocks. Out: checked blocks and token ids. It blocks,
//! uses no network, and knows neither model nor ranking. `format` has the bytes and names of FORMAT.md,
//! `local` reads and writes a folder, `maintain` works on a whole store.
//!
//! ```
//! use hyperrag_store::{Store, StoreError};
//!
//! let opened = Store::open("no such folder".as_ref());
//! assert!(matches!(opened, Err(StoreError::Absent { .. })));
//! ```
#![doc = include_str!("../FORMAT.md")]

mod block_check;
mod damage;
mod error;
mod format;
#[cfg(feature = "testing")]
pub mod fuzz;
mod local;
mod maintain;
mod read_error;
mod tiered;

pub use damage::Damage;
pub use error::{NoRepair, StoreError};
pub use format::build_plan::{
    BuildPlan, InputObjects, PLAN_BYTES_MAX, PlanFault, UnitsDigest, UnitsHasher,
};
pub use format::chunk_file::{IndexedDocument, ShardChunks};
pub use format::collection::{COLLECTION, COLLECTION_BYTES_MAX, Collection, CollectionFault};
pub use format::exported::{
    CURRENT, CURRENT_BYTES_MAX, Current, LISTING_BYTES_MAX, ListedFile, Listing, ListingFault,
};
pub use format::manifest::{LiveRows, Manifest};
pub use format::notes::{ColumnNotes, StoreNotes};
pub use format::paths::{BUILD, FileKind};
pub use format::records::{FileRecord, ShardRecord, Tombstones};
pub use format::shard_input::{RowsHasher, ShardInput};
pub use format::span::{SPAN_BYTES_MAX, calibration_object, encode_span, parse_span};
pub use format::version::FORMAT_VERSION;
pub use local::notes::notes;
pub use local::reader::Store;
pub use local::replica_list::{
    ReplicaState, forget_replica, remember_replica, replica_states, replicas,
};
pub use local::shard_blobs::{BlockFault, ShardBlobs, ShardFile};
pub use local::span_writer::SealedFiles;
pub use local::writer::StoreWriter;
pub use maintain::adopt::SealedBlocks;
pub use maintain::export::{Export, SentFile};
pub use maintain::rebuild_manifest::rebuild_manifest;
pub use maintain::repair::{ComputeBlocks, FetchBlock, Repair, Salvage};
pub use maintain::replicate::Replica;
pub use tiered::stats::TierWork;
pub use tiered::{TierChoice, Tiered};
