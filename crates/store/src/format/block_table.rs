//! Block table of a shard: blocks come in, their places and bytes of entries go out, and back. It opens no
//! file. See FORMAT.md.

use hyperrag_core::{Chunk, Digest, Fingerprint, KvShape};

use crate::format::block_header::block_header_bytes;
use crate::format::bytes::{check_crc, field, u32_at, u64_at};
use crate::format::records::ShardRows;
use crate::format::shard_header::{SHARD_HEADER_BYTES, ShardHeader};

/// Alignment of blocks, in bytes, so that they can be read without the page cache.
pub(crate) const BLOCK_ALIGN: u64 = 4096;
/// Length of an entry, in bytes.
pub(crate) const ENTRY_BYTES: usize = 64;

const _: () = assert!(table_end(1) as u64 <= BLOCK_ALIGN);

/// Entry of the block table: identity, place and sizes of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    pub(crate) identity: Digest,
    pub(crate) offset: u64,
    /// Size of header, K, V and hidden state, in bytes. Zeros follow up to the next multiple of 4096.
    pub(crate) bytes: u64,
    pub(crate) tokens: u32,
    pub(crate) header_bytes: u32,
    pub(crate) header_crc: u32,
}

impl BlockEntry {
    pub(crate) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..32].copy_from_slice(&self.identity.0);
        bytes[32..40].copy_from_slice(&self.offset.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.tokens.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.header_bytes.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.header_crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Self {
        Self {
            identity: Digest(field(bytes, 0)),
            offset: u64_at(bytes, 32),
            bytes: u64_at(bytes, 40),
            tokens: u32_at(bytes, 48),
            header_bytes: u32_at(bytes, 52),
            header_crc: u32_at(bytes, 56),
        }
    }

    /// Returns the offset at which the zeros after the block end and the next block starts.
    pub(crate) fn padded_end(&self) -> u64 {
        (self.offset + self.bytes).next_multiple_of(BLOCK_ALIGN)
    }

    /// Returns the number of zeros after the block.
    pub(crate) fn padding(&self) -> usize {
        (self.padded_end() - self.offset - self.bytes) as usize
    }

    /// Returns the offset of K and V.
    pub(crate) fn kv_offset(&self) -> u64 {
        self.offset + u64::from(self.header_bytes)
    }

    /// Returns the offset of the hidden state.
    pub(crate) fn hidden_offset(&self, kv_shape: &KvShape) -> u64 {
        self.offset + self.bytes - kv_shape.hidden_bytes() as u64
    }
}

/// Places blocks one after the other. Each comes as identity, bytes of its document id, and positions. The
/// headers and their checksums are still to come.
pub(crate) fn place(
    kv_shape: &KvShape,
    blocks: impl ExactSizeIterator<Item = (Digest, usize, usize)>,
) -> Vec<BlockEntry> {
    let mut offset = first_offset(blocks.len());
    let place = blocks.map(|(identity, id_bytes, tokens)| {
        let header_bytes = block_header_bytes(kv_shape, id_bytes);
        let bytes = (header_bytes + kv_shape.block_bytes(tokens)) as u64;
        let (tokens, header_bytes) = (tokens as u32, header_bytes as u32);
        let entry = BlockEntry { identity, offset, bytes, tokens, header_bytes, header_crc: 0 };
        offset = entry.padded_end();
        entry
    });
    place.collect()
}

/// Returns the table entries of the blocks of `chunks`, with their places in the file.
pub(crate) fn place_chunks(chunks: &[Chunk], fingerprint: &Fingerprint) -> Vec<BlockEntry> {
    let digest = fingerprint.digest();
    let blocks = chunks.iter().map(|chunk| {
        let id_bytes = chunk.id.document.as_str().len();
        (chunk.identity(&digest), id_bytes, chunk.tokens.len())
    });
    place(&fingerprint.kv_shape, blocks)
}

/// Returns the length of a file with these blocks.
pub(crate) fn file_bytes(entries: &[BlockEntry]) -> u64 {
    entries.last().map_or(first_offset(0), BlockEntry::padded_end)
}

/// Returns the length of a file with blocks that are not placed yet. Each comes as bytes of its document id,
/// and positions.
pub(crate) fn file_bytes_of(
    kv_shape: &KvShape,
    blocks: impl ExactSizeIterator<Item = (usize, usize)>,
) -> u64 {
    let blocks = blocks.map(|(id_bytes, tokens)| (Digest([0; 32]), id_bytes, tokens));
    file_bytes(&place(kv_shape, blocks))
}

/// Decodes the block table of a shard and checks it against header, shape and file length.
pub(crate) fn decode_table(
    bytes: &[u8],
    header: &ShardHeader,
    kv_shape: &KvShape,
    tokens_max: u32,
) -> Result<Vec<BlockEntry>, String> {
    check_crc("the block table", header.table_crc, bytes)?;
    let entries: Vec<BlockEntry> =
        bytes.chunks_exact(ENTRY_BYTES).map(BlockEntry::decode).collect();
    let mut offset = first_offset(entries.len());
    for (slot, entry) in entries.iter().enumerate() {
        let payload = kv_shape.block_bytes(entry.tokens as usize) as u64;
        let fits = (1..=tokens_max).contains(&entry.tokens)
            && entry.offset == offset
            && entry.header_bytes as usize
                <= block_header_bytes(kv_shape, hyperrag_core::ID_BYTES_MAX)
            && entry.bytes == u64::from(entry.header_bytes) + payload;
        if !fits {
            return Err(format!("the block table's entry {slot} has impossible sizes"));
        }
        offset = entry.padded_end();
    }
    if offset != header.file_bytes {
        return Err(format!("the blocks end at {offset}, the header says {}", header.file_bytes));
    }
    Ok(entries)
}

/// Returns the length of header and table of a shard with so many blocks.
pub(crate) const fn table_end(blocks: usize) -> usize {
    SHARD_HEADER_BYTES + blocks * ENTRY_BYTES
}

/// Returns the offset of the first block.
pub(crate) fn first_offset(blocks: usize) -> u64 {
    (table_end(blocks) as u64).next_multiple_of(BLOCK_ALIGN)
}

/// Returns the bytes of a shard's header and table.
pub(crate) fn header_and_table(
    shard_rows: ShardRows,
    entries: &[BlockEntry],
    fingerprint: &Fingerprint,
) -> Vec<u8> {
    let mut table = vec![0; entries.len() * ENTRY_BYTES];
    for (bytes, entry) in table.chunks_exact_mut(ENTRY_BYTES).zip(entries) {
        bytes.copy_from_slice(&entry.encode());
    }
    let ShardRows { shard, rows, rows_digest } = shard_rows;
    let header = ShardHeader {
        version: fingerprint.format_version,
        shard,
        rows,
        rows_digest,
        blocks: entries.len() as u32,
        table_crc: crc32fast::hash(&table),
        file_bytes: file_bytes(entries),
        fingerprint: fingerprint.digest(),
    };
    [&header.encode()[..], &table].concat()
}

#[cfg(test)]
mod tests {
    use hyperrag_core::{KvDtype, ShardId};
    use proptest::prelude::*;

    use super::*;
    use crate::format::strategies::{digest, kv_shape};

    #[test]
    fn an_entry_is_these_bytes() {
        let entry = BlockEntry {
            identity: Digest([7; 32]),
            offset: 0x1000,
            bytes: 0x0102_0304_0506_0708,
            tokens: 9,
            header_bytes: 128,
            header_crc: 0xdead_beef,
        };
        let mut golden = vec![7; 32];
        golden.extend([0, 0x10, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        golden.extend([9, 0, 0, 0, 128, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde, 0, 0, 0, 0]);
        assert_eq!(entry.encode()[..], golden);
    }

    /// Makes a table of blocks, each given by its positions and the bytes of its id, and its header.
    fn table(
        kv_shape: &KvShape,
        blocks_of: &[(u32, usize)],
    ) -> (ShardHeader, Vec<u8>, Vec<BlockEntry>) {
        let entries = place(
            kv_shape,
            blocks_of
                .iter()
                .map(|(tokens, id)| (Digest([*tokens as u8; 32]), *id, *tokens as usize)),
        );
        let bytes: Vec<u8> = entries.iter().flat_map(BlockEntry::encode).collect();
        let (blocks, table_crc) = (entries.len() as u32, crc32fast::hash(&bytes));
        let file_bytes = file_bytes(&entries);
        let sizes = blocks_of.iter().map(|(tokens, id)| (*id, *tokens as usize));
        assert_eq!(file_bytes_of(kv_shape, sizes), file_bytes);
        let header = ShardHeader {
            version: 1,
            shard: ShardId(0),
            blocks,
            table_crc,
            file_bytes,
            fingerprint: Digest([0; 32]),
            rows: 0,
            rows_digest: Digest([0; 32]),
        };
        (header, bytes, entries)
    }

    proptest! {
        #[test]
        fn entries_come_back(
            identity in digest(), offset: u64, bytes: u64, tokens: u32, header_bytes: u32,
            header_crc: u32,
        ) {
            let entry = BlockEntry { identity, offset, bytes, tokens, header_bytes, header_crc };
            prop_assert_eq!(BlockEntry::decode(&entry.encode()), entry);
        }

        #[test]
        fn tables_come_back_and_no_field_of_sizes_may_differ(
            kv_shape in kv_shape(), blocks in prop::collection::vec((1..9u32, 1..513usize), 0..5),
            pick: prop::sample::Index, at in 32..56usize, mask in 1..=255u8,
        ) {
            let (mut header, mut bytes, entries) = table(&kv_shape, &blocks);
            prop_assert_eq!(decode_table(&bytes, &header, &kv_shape, 8), Ok(entries.clone()));
            if !entries.is_empty() {
                let entry = pick.index(entries.len());
                bytes[entry * ENTRY_BYTES + at] ^= mask;
                prop_assert!(decode_table(&bytes, &header, &kv_shape, 8).is_err(), "checksum");
                header.table_crc = crc32fast::hash(&bytes);
                prop_assert!(decode_table(&bytes, &header, &kv_shape, 8).is_err(), "sizes");
            }
        }
    }

    #[test]
    fn a_block_without_positions_is_refused() {
        let (layers, kv_heads, kv_dtype) = (2, 1, KvDtype::F32);
        let kv_shape = KvShape { layers, kv_heads, head_dim: 4, hidden: 8, kv_dtype };
        let (header, bytes, _) = table(&kv_shape, &[(0, 3)]);
        assert!(decode_table(&bytes, &header, &kv_shape, 8).is_err());
    }
}
