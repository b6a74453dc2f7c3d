//! Bytes and names of a store's files: bytes come in, values go out, and back. It opens no file.

pub(crate) mod block_table;
pub(crate) mod chunk_file;
pub(crate) mod manifest;
