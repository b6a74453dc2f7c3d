//! Input of a shard: rows of a corpus come in, their number, digest and sizes go out. It knows no corpus and
//! no file.

use hyperrag_core::{Chunk, Digest, Document, KvShape, ShardId};

use crate::format::block_table::file_bytes_of;
use crate::format::chunk_file::ShardChunks;
use crate::format::records::Tombstones;

/// Input of a shard: rows of the corpus, cut into chunks. Their blocks are not yet computed.
#[derive(Clone, Debug)]
pub struct ShardInput {
    /// Number of the shard.
    pub shard: ShardId,
    /// Number of input rows.
    pub rows: u64,
    /// Digest of the input rows.
    pub rows_digest: Digest,
    /// Chunks and documents of the rows.
    pub contents: ShardChunks,
    /// Documents that these replace.
    pub replaces: Vec<Tombstones>,
}

/// Number and digest of input rows. Of each part its length (8 bytes) and its bytes are hashed.
#[derive(Clone, Debug, Default)]
pub struct RowsHasher {
    hasher: blake3::Hasher,
    rows: u64,
}

impl RowsHasher {
    /// Adds a row.
    pub fn add(&mut self, row: &Document) {
        for part in [row.id.as_str(), &row.title, &row.text] {
            self.hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        self.rows += 1;
    }

    /// Number of rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Number and digest of the rows.
    #[must_use]
    pub fn finish(&self) -> (u64, Digest) {
        (self.rows, Digest(*self.hasher.finalize().as_bytes()))
    }
}

/// Returns the digest of input rows, see [`RowsHasher`].
#[must_use]
pub(crate) fn rows_digest<'a>(rows: impl IntoIterator<Item = &'a Document>) -> Digest {
    let mut hasher = RowsHasher::default();
    rows.into_iter().for_each(|row| hasher.add(row));
    hasher.finish().1
}

/// Largest size of the titles or the texts of a chunk file, in bytes: their ends are written as i32. Token
/// ids are fewer, because a shard has at most 2^20 chunks.
pub(crate) const COLUMN_BYTES_MAX: u64 = i32::MAX as u64;

/// Largest size of a chunk file without the columns' values, in bytes: schema, footer, pages, statistics.
const CHUNK_FILE_BYTES: u64 = 16 << 10;

impl ShardInput {
    /// Largest size of titles, texts and token ids (4 bytes each) of an input with several rows, in bytes. The
    /// input ends before the row that would exceed it.
    pub const BYTES_MAX: u64 = 64 << 20;

    /// Returns the size of the shard and its chunk file, in bytes. The shard's is exact, the chunk file's an
    /// upper limit.
    #[must_use]
    pub fn bytes_max(&self, kv_shape: &KvShape) -> u64 {
        let chunks = self.contents.chunks.iter();
        let id_bytes = |chunk: &Chunk| chunk.id.document.as_str().len();
        let sizes = chunks.clone().map(|chunk| (id_bytes(chunk), chunk.tokens.len()));
        let columns = chunks.map(|chunk| (id_bytes(chunk) + 4 * chunk.tokens.len() + 64) as u64);
        let columns = columns.sum::<u64>() + self.text_bytes() + CHUNK_FILE_BYTES;
        // Data that does not compress grows a little.
        file_bytes_of(kv_shape, sizes) + columns + columns / 64
    }

    /// Returns the size of all titles and texts, in bytes.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        let documents = self.contents.documents.iter().map(|indexed| &indexed.document);
        documents.map(|document| (document.title.len() + document.text.len()) as u64).sum()
    }
}
