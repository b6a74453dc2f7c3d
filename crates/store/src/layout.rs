//! Where everything in a shard stands: the one place that knows offsets. See FORMAT.md.

use hyperrag_kv::{Digest, Geometry, ShardId};

/// Version of the format that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) const MAGIC: [u8; 8] = *b"HYPERKV\0";
pub(crate) const HEADER_BYTES: usize = 256;
pub(crate) const ENTRY_BYTES: usize = 64;
/// Blocks start at multiples of this, so that they can be read without the page cache.
pub(crate) const BLOCK_ALIGN: u64 = 4096;
pub(crate) const BLOCKS_PER_SHARD_MAX: usize = 1 << 20;
const HEAD_FIXED_BYTES: usize = 52;
const HEAD_ALIGN: usize = 64;

const _: () = assert!(4 * (HEADER_BYTES / 4) == HEADER_BYTES && HEADER_BYTES + ENTRY_BYTES <= 4096);

/// A field of little-endian bytes; the caller has checked the length of `bytes`.
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

/// The first 256 bytes of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) shard: ShardId,
    pub(crate) blocks: u32,
    pub(crate) table_crc: u32,
    pub(crate) file_bytes: u64,
    pub(crate) fingerprint: Digest,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.shard.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.table_crc.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.file_bytes.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.fingerprint.0);
        let crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Checks magic, version and checksum before anything else in it is believed.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, String> {
        if bytes[..8] != MAGIC {
            return Err("it does not start as a shard does".to_owned());
        }
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(format!("format version {version}, this program reads {FORMAT_VERSION}"));
        }
        check_crc("the header", u32_at(bytes, HEADER_BYTES - 4), &bytes[..HEADER_BYTES - 4])?;
        let header = Self {
            shard: ShardId(u32_at(bytes, 12)),
            blocks: u32_at(bytes, 16),
            table_crc: u32_at(bytes, 20),
            file_bytes: u64_at(bytes, 24),
            fingerprint: Digest(field(bytes, 32)),
        };
        if bytes[64..HEADER_BYTES - 4].iter().any(|byte| *byte != 0) {
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

    pub(crate) fn table_bytes(&self) -> usize {
        self.blocks as usize * ENTRY_BYTES
    }
}

/// Where one block stands and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) identity: Digest,
    pub(crate) offset: u64,
    /// Bytes of head, K, V and hidden state; zeros follow up to the next multiple of 4096.
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
}

/// The block table of a shard, checked against header, geometry and file length.
pub(crate) fn decode_table(
    bytes: &[u8],
    header: &Header,
    geometry: &Geometry,
    tokens_max: u32,
) -> Result<Vec<Entry>, String> {
    check_crc("the block table", header.table_crc, bytes)?;
    let entries: Vec<Entry> = bytes.chunks_exact(ENTRY_BYTES).map(Entry::decode).collect();
    let mut offset = first_offset(entries.len());
    for (slot, entry) in entries.iter().enumerate() {
        let payload = geometry.block_bytes(entry.tokens as usize) as u64;
        let fits = entry.tokens <= tokens_max
            && entry.offset == offset
            && entry.head_bytes as usize <= head_bytes(geometry, hyperrag_kv::ID_BYTES_MAX)
            && entry.bytes == u64::from(entry.head_bytes) + payload;
        if !fits {
            return Err(format!("the block table's entry {slot} has impossible sizes"));
        }
        offset = (entry.offset + entry.bytes).next_multiple_of(BLOCK_ALIGN);
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

/// Bytes of the head of a block whose document id has `id_bytes` bytes.
pub(crate) fn head_bytes(geometry: &Geometry, id_bytes: usize) -> usize {
    (HEAD_FIXED_BYTES + 4 * geometry.layers as usize + id_bytes).next_multiple_of(HEAD_ALIGN)
}

/// What stands before the K and V of a block: whose it is, and the checksums of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) identity: Digest,
    pub(crate) document: String,
    pub(crate) ordinal: u32,
    pub(crate) tokens: u32,
    pub(crate) hidden_crc: u32,
    pub(crate) layer_crcs: Vec<u32>,
}

impl Head {
    pub(crate) fn encode(&self, geometry: &Geometry) -> Vec<u8> {
        let id = self.document.as_bytes();
        let mut bytes = Vec::with_capacity(head_bytes(geometry, id.len()));
        bytes.extend_from_slice(&self.identity.0);
        for number in [self.ordinal, self.tokens, id.len() as u32, geometry.layers, self.hidden_crc]
        {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for crc in &self.layer_crcs {
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
        bytes.extend_from_slice(id);
        bytes.resize(head_bytes(geometry, id.len()), 0);
        bytes
    }

    /// `crc` comes from the table, so that the head is known to be whole before it is read.
    pub(crate) fn decode(bytes: &[u8], crc: u32, geometry: &Geometry) -> Result<Self, String> {
        check_crc("the block's head", crc, bytes)?;
        let layers = geometry.layers as usize;
        let names_at = HEAD_FIXED_BYTES + 4 * layers;
        if bytes.len() < names_at || u32_at(bytes, 44) as usize != layers {
            return Err("the block's head has another number of layers".to_owned());
        }
        let id_bytes = u32_at(bytes, 40) as usize;
        if id_bytes > hyperrag_kv::ID_BYTES_MAX || head_bytes(geometry, id_bytes) != bytes.len() {
            return Err("the block's head has an impossible length".to_owned());
        }
        let (id, padding) = bytes[names_at..].split_at(id_bytes);
        if padding.iter().any(|byte| *byte != 0) {
            return Err("the padding of the block's head is not zero".to_owned());
        }
        let document =
            String::from_utf8(id.to_vec()).map_err(|_| "the block's document id is not UTF-8")?;
        Ok(Self {
            identity: Digest(field(bytes, 0)),
            document,
            ordinal: u32_at(bytes, 32),
            tokens: u32_at(bytes, 36),
            hidden_crc: u32_at(bytes, 48),
            layer_crcs: (0..layers).map(|i| u32_at(bytes, HEAD_FIXED_BYTES + 4 * i)).collect(),
        })
    }
}

/// Compares a stored checksum with the bytes.
pub(crate) fn check_crc(what: &str, expected: u32, bytes: &[u8]) -> Result<(), String> {
    let actual = crc32fast::hash(bytes);
    match actual == expected {
        true => Ok(()),
        false => Err(format!("{what} has checksum {actual:08x}, expected {expected:08x}")),
    }
}
