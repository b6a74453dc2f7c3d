//! Layout of a shard file: headers, entries and heads come in, bytes go out, and back. The one place that
//! knows offsets. See FORMAT.md.

use std::fmt::Display;

use hyperrag_core::{Digest, KvShape, ShardId};

/// Format version of new stores. Stores of earlier versions are read, and written in their own version.
pub const FORMAT_VERSION: u32 = 2;

pub(crate) const MAGIC: [u8; 8] = *b"HYPERKV\0";
pub(crate) const HEADER_BYTES: usize = 256;
pub(crate) const ENTRY_BYTES: usize = 64;
/// Alignment of blocks, in bytes, so that they can be read without the page cache.
pub(crate) const BLOCK_ALIGN: u64 = 4096;
pub(crate) const BLOCKS_PER_SHARD_MAX: usize = 1 << 20;
const HEAD_FIXED_BYTES: usize = 52;
const HEAD_ALIGN: usize = 64;

const _: () = assert!(4 * (HEADER_BYTES / 4) == HEADER_BYTES && HEADER_BYTES + ENTRY_BYTES <= 4096);

/// Copies a field of little-endian bytes. The caller has checked the length of `bytes`.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[offset..offset + N]);
    field
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(field(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(field(bytes, offset))
}

/// Whether this program reads stores of this format version.
pub(crate) fn is_known(version: u32) -> bool {
    (1..=FORMAT_VERSION).contains(&version)
}

/// First 256 bytes of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Format version.
    pub(crate) version: u32,
    pub(crate) shard: ShardId,
    pub(crate) blocks: u32,
    pub(crate) table_crc: u32,
    pub(crate) file_bytes: u64,
    pub(crate) fingerprint: Digest,
    /// Number of input rows of the shard. With their digest, a lost record can be made again.
    pub(crate) rows: u64,
    pub(crate) rows_digest: Digest,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.shard.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.table_crc.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.file_bytes.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.fingerprint.0);
        bytes[64..72].copy_from_slice(&self.rows.to_le_bytes());
        bytes[72..104].copy_from_slice(&self.rows_digest.0);
        let crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes a header. Magic, version and checksum are checked before anything else is believed.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, String> {
        if bytes[..8] != MAGIC {
            return Err("it does not start as a shard does".to_owned());
        }
        let version = u32_at(bytes, 8);
        if !is_known(version) {
            return Err(format!(
                "format version {version}, this program reads versions 1 to {FORMAT_VERSION}"
            ));
        }
        Self::check(bytes)?;
        let header = Self {
            version,
            shard: ShardId(u32_at(bytes, 12)),
            blocks: u32_at(bytes, 16),
            table_crc: u32_at(bytes, 20),
            file_bytes: u64_at(bytes, 24),
            fingerprint: Digest(field(bytes, 32)),
            rows: u64_at(bytes, 64),
            rows_digest: Digest(field(bytes, 72)),
        };
        if bytes[104..HEADER_BYTES - 4].iter().any(|byte| *byte != 0) {
            return Err("the header's reserved bytes are not zero".to_owned());
        }
        if header.blocks as usize > BLOCKS_PER_SHARD_MAX {
            return Err(format!(
                "{} blocks, at most {BLOCKS_PER_SHARD_MAX} are allowed",
                header.blocks
            ));
        }
        Ok(header)
    }

    /// Checks the checksum, which has the same place in every version.
    fn check(bytes: &[u8; HEADER_BYTES]) -> Result<(), String> {
        check_crc("the header", u32_at(bytes, HEADER_BYTES - 4), &bytes[..HEADER_BYTES - 4])
    }

    /// Returns the version of an intact header, whatever else that version has in it.
    pub(crate) fn version(bytes: &[u8; HEADER_BYTES]) -> Option<u32> {
        (bytes[..8] == MAGIC && Self::check(bytes).is_ok()).then(|| u32_at(bytes, 8))
    }

    pub(crate) fn table_bytes(&self) -> usize {
        self.blocks as usize * ENTRY_BYTES
    }
}

/// Entry of the block table: identity, place and sizes of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) identity: Digest,
    pub(crate) offset: u64,
    /// Size of head, K, V and hidden state, in bytes. Zeros follow up to the next multiple of 4096.
    pub(crate) bytes: u64,
    pub(crate) tokens: u32,
    pub(crate) head_bytes: u32,
    pub(crate) head_crc: u32,
}

impl Entry {
    pub(crate) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..32].copy_from_slice(&self.identity.0);
        bytes[32..40].copy_from_slice(&self.offset.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.tokens.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.head_bytes.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.head_crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        Self {
            identity: Digest(field(bytes, 0)),
            offset: u64_at(bytes, 32),
            bytes: u64_at(bytes, 40),
            tokens: u32_at(bytes, 48),
            head_bytes: u32_at(bytes, 52),
            head_crc: u32_at(bytes, 56),
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

    /// Returns the offset of the hidden state.
    pub(crate) fn hidden_offset(&self, kv_shape: &KvShape) -> u64 {
        self.offset + self.bytes - kv_shape.hidden_bytes() as u64
    }
}

/// Places blocks one after the other. Each comes as identity, bytes of its document id, and positions. The
/// heads and their checksums are still to come.
pub(crate) fn place(
    kv_shape: &KvShape,
    blocks: impl ExactSizeIterator<Item = (Digest, usize, usize)>,
) -> Vec<Entry> {
    let mut offset = first_offset(blocks.len());
    let place = blocks.map(|(identity, id_bytes, tokens)| {
        let head = head_bytes(kv_shape, id_bytes);
        let bytes = (head + kv_shape.block_bytes(tokens)) as u64;
        let (tokens, head_bytes) = (tokens as u32, head as u32);
        let entry = Entry { identity, offset, bytes, tokens, head_bytes, head_crc: 0 };
        offset = entry.padded_end();
        entry
    });
    place.collect()
}

/// Returns the length of a file with these blocks.
pub(crate) fn file_bytes(entries: &[Entry]) -> u64 {
    entries.last().map_or(first_offset(0), Entry::padded_end)
}

/// Returns the length of a file with blocks that are not placed yet. Each comes as bytes of its document id,
/// and positions.
pub(crate) fn file_bytes_of(
    kv_shape: &KvShape,
    blocks: impl ExactSizeIterator<Item = (usize, usize)>,
) -> u64 {
    let mut offset = first_offset(blocks.len());
    for (id_bytes, tokens) in blocks {
        let bytes = head_bytes(kv_shape, id_bytes) + kv_shape.block_bytes(tokens);
        offset = (offset + bytes as u64).next_multiple_of(BLOCK_ALIGN);
    }
    offset
}

/// Decodes the block table of a shard and checks it against header, shape and file length.
pub(crate) fn decode_table(
    bytes: &[u8],
    header: &Header,
    kv_shape: &KvShape,
    tokens_max: u32,
) -> Result<Vec<Entry>, String> {
    check_crc("the block table", header.table_crc, bytes)?;
    let entries: Vec<Entry> = bytes.chunks_exact(ENTRY_BYTES).map(Entry::decode).collect();
    let mut offset = first_offset(entries.len());
    for (slot, entry) in entries.iter().enumerate() {
        let payload = kv_shape.block_bytes(entry.tokens as usize) as u64;
        let fits = (1..=tokens_max).contains(&entry.tokens)
            && entry.offset == offset
            && entry.head_bytes as usize <= head_bytes(kv_shape, hyperrag_core::ID_BYTES_MAX)
            && entry.bytes == u64::from(entry.head_bytes) + payload;
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

/// Offset of the first block.
pub(crate) fn first_offset(blocks: usize) -> u64 {
    ((HEADER_BYTES + blocks * ENTRY_BYTES) as u64).next_multiple_of(BLOCK_ALIGN)
}

/// Returns the size of a block's head with a document id of `id_bytes` bytes.
pub(crate) fn head_bytes(kv_shape: &KvShape, id_bytes: usize) -> usize {
    (HEAD_FIXED_BYTES + 4 * kv_shape.layers as usize + id_bytes).next_multiple_of(HEAD_ALIGN)
}

/// Head of a block, before its K and V: whose block it is, and the checksums of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) identity: Digest,
    pub(crate) document: &'a str,
    pub(crate) ordinal: u32,
    pub(crate) tokens: u32,
    pub(crate) hidden_crc: u32,
    /// Checksums of the layers, little-endian as in the file.
    pub(crate) layer_crcs: &'a [[u8; 4]],
}

impl<'a> Head<'a> {
    pub(crate) fn encode(&self, kv_shape: &KvShape) -> Vec<u8> {
        let id = self.document.as_bytes();
        let mut bytes = Vec::with_capacity(head_bytes(kv_shape, id.len()));
        bytes.extend_from_slice(&self.identity.0);
        for number in [self.ordinal, self.tokens, id.len() as u32, kv_shape.layers, self.hidden_crc]
        {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(self.layer_crcs.as_flattened());
        bytes.extend_from_slice(id);
        bytes.resize(head_bytes(kv_shape, id.len()), 0);
        bytes
    }

    /// Decodes a head. `crc` comes from the table, so the head is known to be intact before it is read.
    pub(crate) fn decode(bytes: &'a [u8], crc: u32, kv_shape: &KvShape) -> Result<Self, String> {
        check_crc("the block's head", crc, bytes)?;
        let layers = kv_shape.layers as usize;
        let names_at = HEAD_FIXED_BYTES + 4 * layers;
        if bytes.len() < names_at || u32_at(bytes, 44) as usize != layers {
            return Err("the block's head has another number of layers".to_owned());
        }
        let id_bytes = u32_at(bytes, 40) as usize;
        if id_bytes > hyperrag_core::ID_BYTES_MAX || head_bytes(kv_shape, id_bytes) != bytes.len() {
            return Err("the block's head has an impossible length".to_owned());
        }
        let (id, padding) = bytes[names_at..].split_at(id_bytes);
        if padding.iter().any(|byte| *byte != 0) {
            return Err("the padding of the block's head is not zero".to_owned());
        }
        let document =
            std::str::from_utf8(id).map_err(|_| "the block's document id is not UTF-8")?;
        Ok(Self {
            identity: Digest(field(bytes, 0)),
            document,
            ordinal: u32_at(bytes, 32),
            tokens: u32_at(bytes, 36),
            hidden_crc: u32_at(bytes, 48),
            layer_crcs: bytes[HEAD_FIXED_BYTES..names_at].as_chunks().0,
        })
    }
}

/// Compares a stored checksum with the bytes.
pub(crate) fn check_crc(what: impl Display, expected: u32, bytes: &[u8]) -> Result<(), String> {
    let actual = crc32fast::hash(bytes);
    match actual == expected {
        true => Ok(()),
        false => Err(format!("{what} has checksum {actual:08x}, expected {expected:08x}")),
    }
}

#[cfg(test)]
mod tests {
    use hyperrag_core::KvDtype;
    use proptest::prelude::*;

    use super::*;

    fn digest() -> impl Strategy<Value = Digest> {
        any::<[u8; 32]>().prop_map(Digest)
    }

    fn kv_shape() -> impl Strategy<Value = KvShape> {
        (1..9u32, 1..4u32, any::<bool>()).prop_map(|(layers, kv_heads, f32)| {
            let kv_dtype = if f32 { KvDtype::F32 } else { KvDtype::Bf16 };
            KvShape { layers, kv_heads, head_dim: 4, hidden: 8, kv_dtype }
        })
    }

    fn with_crc(mut bytes: [u8; HEADER_BYTES]) -> [u8; HEADER_BYTES] {
        let crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn header() -> Header {
        Header {
            version: 1,
            shard: ShardId(0x0102_0304),
            blocks: 5,
            table_crc: 0xa1b2_c3d4,
            file_bytes: 0x1112_1314_1516_1718,
            fingerprint: Digest([0xfe; 32]),
            rows: 0x2122,
            rows_digest: Digest([0xab; 32]),
        }
    }

    #[test]
    fn the_header_is_these_bytes() {
        let mut golden = b"HYPERKV\0".to_vec();
        golden.extend([1, 0, 0, 0, 4, 3, 2, 1, 5, 0, 0, 0, 0xd4, 0xc3, 0xb2, 0xa1]);
        golden.extend([0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
        golden.extend([0xfe; 32]);
        golden.extend([0x22, 0x21, 0, 0, 0, 0, 0, 0]);
        golden.extend([0xab; 32]);
        golden.extend([0; 148]);
        golden.extend(0xf99d_50d4_u32.to_le_bytes());
        assert_eq!(header().encode()[..], golden);
    }

    #[test]
    fn an_entry_is_these_bytes() {
        let entry = Entry {
            identity: Digest([7; 32]),
            offset: 0x1000,
            bytes: 0x0102_0304_0506_0708,
            tokens: 9,
            head_bytes: 128,
            head_crc: 0xdead_beef,
        };
        let mut golden = vec![7; 32];
        golden.extend([0, 0x10, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        golden.extend([9, 0, 0, 0, 128, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde, 0, 0, 0, 0]);
        assert_eq!(entry.encode()[..], golden);
    }

    #[test]
    fn a_header_with_a_right_checksum_is_still_checked() {
        let refused = |at: usize, value: &[u8], why: &str| {
            let mut bytes = header().encode();
            bytes[at..at + value.len()].copy_from_slice(value);
            let error = Header::decode(&with_crc(bytes)).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused(0, b"h", "does not start");
        refused(8, &[FORMAT_VERSION as u8 + 1], "format version 3");
        refused(8, &[0], "this program reads versions 1 to 2");
        refused(104, &[1], "reserved");
        refused(251, &[1], "reserved");
        refused(16, &(BLOCKS_PER_SHARD_MAX as u32 + 1).to_le_bytes(), "at most");
        refused(16, &u32::MAX.to_le_bytes(), "at most");
    }

    /// Makes a table of blocks, each given by its positions and the bytes of its id, and its header.
    fn table(kv_shape: &KvShape, blocks_of: &[(u32, usize)]) -> (Header, Vec<u8>, Vec<Entry>) {
        let entries = place(
            kv_shape,
            blocks_of
                .iter()
                .map(|(tokens, id)| (Digest([*tokens as u8; 32]), *id, *tokens as usize)),
        );
        let bytes: Vec<u8> = entries.iter().flat_map(Entry::encode).collect();
        let (blocks, table_crc) = (entries.len() as u32, crc32fast::hash(&bytes));
        let file_bytes = file_bytes(&entries);
        let sizes = blocks_of.iter().map(|(tokens, id)| (*id, *tokens as usize));
        assert_eq!(file_bytes_of(kv_shape, sizes), file_bytes);
        (Header { blocks, table_crc, file_bytes, ..header() }, bytes, entries)
    }

    proptest! {
        #[test]
        fn headers_come_back(
            version in 1..=FORMAT_VERSION, shard: u32, blocks in 0..=BLOCKS_PER_SHARD_MAX as u32, table_crc: u32,
            file_bytes: u64, fingerprint in digest(), rows: u64, rows_digest in digest(),
        ) {
            let shard = ShardId(shard);
            let header =
                Header { version, shard, blocks, table_crc, file_bytes, fingerprint, rows, rows_digest };
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn any_header_is_refused_or_comes_back(bytes in prop::collection::vec(any::<u8>(), 248)) {
            let mut whole = [0; HEADER_BYTES];
            whole[..8].copy_from_slice(&MAGIC);
            whole[8] = 1;
            whole[12..104].copy_from_slice(&bytes[..92]);
            let whole = with_crc(whole);
            if let Ok(header) = Header::decode(&whole) {
                prop_assert_eq!(header.encode(), whole);
            }
        }

        #[test]
        fn entries_come_back(
            identity in digest(), offset: u64, bytes: u64, tokens: u32, head_bytes: u32,
            head_crc: u32,
        ) {
            let entry = Entry { identity, offset, bytes, tokens, head_bytes, head_crc };
            prop_assert_eq!(Entry::decode(&entry.encode()), entry);
        }

        #[test]
        fn heads_come_back(
            kv_shape in kv_shape(), identity in digest(), document in "\\PC{1,128}", ordinal: u32,
            tokens: u32, hidden_crc: u32, crc: u32,
        ) {
            let layer_crcs = &vec![crc.to_le_bytes(); kv_shape.layers as usize];
            let document = &document;
            let head = Head { identity, document, ordinal, tokens, hidden_crc, layer_crcs };
            let bytes = head.encode(&kv_shape);
            prop_assert_eq!(bytes.len(), head_bytes(&kv_shape, head.document.len()));
            prop_assert_eq!(Head::decode(&bytes, crc32fast::hash(&bytes), &kv_shape), Ok(head));
            prop_assert!(Head::decode(&bytes, !crc32fast::hash(&bytes), &kv_shape).is_err());
        }

        #[test]
        fn any_head_with_a_right_checksum_is_refused_or_comes_back(
            kv_shape in kv_shape(), mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            id_bytes in 0..80u32,
        ) {
            // Makes the two lengths fit now and then.
            if bytes.len() >= 48 {
                bytes[40..44].copy_from_slice(&id_bytes.to_le_bytes());
                bytes[44..48].copy_from_slice(&kv_shape.layers.to_le_bytes());
            }
            if let Ok(head) = Head::decode(&bytes, crc32fast::hash(&bytes), &kv_shape) {
                prop_assert_eq!(head.encode(&kv_shape), bytes);
            }
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
