//! Records of a store's files, as manifest and journal have them. Plain values: it reads no text and no file.

use hyperrag_core::{Digest, ShardId};
use serde::{Deserialize, Serialize};

use crate::format::chunk_file::ShardChunks;

/// Length and digest of a published file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of a shard's header and table, or of a whole chunk file.
    pub digest: Digest,
}

/// Record of a sealed shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// Number of the shard.
    pub shard: ShardId,
    /// Number of input rows.
    pub rows: u64,
    /// Digest of the input rows.
    pub rows_digest: Digest,
    /// Number of documents. Rows without any text are left out.
    pub documents: u64,
    /// Number of chunks. Each has one block.
    pub chunks: u64,
    /// Number of positions of all blocks.
    pub tokens: u64,
    /// File of blocks.
    pub kv: FileRecord,
    /// File of token ids.
    pub chunk_file: FileRecord,
    /// Kernel that computed damaged blocks again, if it is not the fingerprint's. The bits of these blocks
    /// are its own.
    #[serde(rename = "mended_by", default, skip_serializing_if = "Option::is_none")]
    pub repaired_by: Option<String>,
}

/// Input rows of a shard, which its header repeats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardRows {
    pub(crate) shard: ShardId,
    pub(crate) rows: u64,
    pub(crate) rows_digest: Digest,
}

impl ShardRecord {
    /// Makes the record of a shard with these contents and files.
    pub(crate) fn new(
        ShardRows { shard, rows, rows_digest }: ShardRows,
        contents: &ShardChunks,
        kv: FileRecord,
        chunk_file: FileRecord,
    ) -> Self {
        Self {
            shard,
            rows,
            rows_digest,
            documents: contents.documents.len() as u64,
            chunks: contents.chunks.len() as u64,
            tokens: contents.chunks.iter().map(|chunk| chunk.tokens.len() as u64).sum(),
            kv,
            chunk_file,
            repaired_by: None,
        }
    }

    pub(crate) fn shard_rows(&self) -> ShardRows {
        ShardRows { shard: self.shard, rows: self.rows, rows_digest: self.rows_digest }
    }
}

/// Documents of a shard that were deleted or replaced by a later version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstones {
    /// Shard that still holds the documents.
    pub shard: ShardId,
    /// Rows of the documents, ascending.
    pub rows: Vec<u64>,
}
