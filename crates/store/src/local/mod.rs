//! A store in a folder of this machine: reads, checks and writes its files.

pub(crate) mod calibration;
pub(crate) mod chunk_file;
pub(crate) mod durable;
pub(crate) mod garbage;
pub(crate) mod generation;
pub(crate) mod journal;
pub(crate) mod latest;
pub(crate) mod lock;
pub(crate) mod notes;
pub(crate) mod open;
pub(crate) mod open_files;
pub(crate) mod pin;
pub(crate) mod reader;
pub(crate) mod replica_list;
pub(crate) mod shard_blobs;
pub(crate) mod shard_reader;
pub(crate) mod shard_writer;
pub(crate) mod span_writer;
pub(crate) mod state;
pub(crate) mod stored_block;
pub(crate) mod writer;
