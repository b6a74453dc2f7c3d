//! Bytes and names of a store's files: bytes come in, values go out, and back. It opens no file, and nothing
//! else knows offsets and names.

pub(crate) mod announcement;
pub(crate) mod block_header;
pub(crate) mod block_table;
pub(crate) mod build_plan;
pub(crate) mod bytes;
pub(crate) mod chunk_file;
pub(crate) mod collection;
pub(crate) mod envelope;
pub(crate) mod export_marks;
pub(crate) mod exported;
pub(crate) mod journal;
pub(crate) mod manifest;
pub(crate) mod notes;
pub(crate) mod paths;
pub(crate) mod records;
pub(crate) mod replica_list;
pub(crate) mod shard_header;
pub(crate) mod shard_input;
pub(crate) mod span;
#[cfg(test)]
pub(crate) mod strategies;
pub(crate) mod version;
