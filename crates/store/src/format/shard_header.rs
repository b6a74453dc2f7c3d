//! Header of a shard, its first 256 bytes: fields come in, bytes go out, and back. It knows no block.

use hyperrag_core::{Digest, ShardId};

use crate::format::bytes::{check_crc, field, u32_at, u64_at};
use crate::format::version::{FORMAT_VERSION, is_known};

pub(crate) const MAGIC: [u8; 8] = *b"HYPERKV\0";
pub(crate) const SHARD_HEADER_BYTES: usize = 256;
/// Largest number of blocks of a shard.
pub(crate) const BLOCKS_PER_SHARD_MAX: usize = 1 << 20;

/// First 256 bytes of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardHeader {
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

impl ShardHeader {
    pub(crate) fn encode(&self) -> [u8; SHARD_HEADER_BYTES] {
        let mut bytes = [0; SHARD_HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.shard.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.table_crc.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.file_bytes.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.fingerprint.0);
        bytes[64..72].copy_from_slice(&self.rows.to_le_bytes());
        bytes[72..104].copy_from_slice(&self.rows_digest.0);
        let crc = crc32fast::hash(&bytes[..SHARD_HEADER_BYTES - 4]);
        bytes[SHARD_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes a header. Magic, version and checksum are checked before anything else is believed.
    pub(crate) fn decode(bytes: &[u8; SHARD_HEADER_BYTES]) -> Result<Self, String> {
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
        if bytes[104..SHARD_HEADER_BYTES - 4].iter().any(|byte| *byte != 0) {
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
    fn check(bytes: &[u8; SHARD_HEADER_BYTES]) -> Result<(), String> {
        check_crc(
            "the header",
            u32_at(bytes, SHARD_HEADER_BYTES - 4),
            &bytes[..SHARD_HEADER_BYTES - 4],
        )
    }

    /// Returns the version of an intact header, whatever else that version has in it.
    pub(crate) fn version(bytes: &[u8; SHARD_HEADER_BYTES]) -> Option<u32> {
        (bytes[..8] == MAGIC && Self::check(bytes).is_ok()).then(|| u32_at(bytes, 8))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::strategies::digest;

    fn with_crc(mut bytes: [u8; SHARD_HEADER_BYTES]) -> [u8; SHARD_HEADER_BYTES] {
        let crc = crc32fast::hash(&bytes[..SHARD_HEADER_BYTES - 4]);
        bytes[SHARD_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn header() -> ShardHeader {
        ShardHeader {
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
    fn a_header_with_a_right_checksum_is_still_checked() {
        let refused = |at: usize, value: &[u8], why: &str| {
            let mut bytes = header().encode();
            bytes[at..at + value.len()].copy_from_slice(value);
            let error = ShardHeader::decode(&with_crc(bytes)).unwrap_err();
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

    proptest! {
        #[test]
        fn headers_come_back(
            version in 1..=FORMAT_VERSION, shard: u32, blocks in 0..=BLOCKS_PER_SHARD_MAX as u32, table_crc: u32,
            file_bytes: u64, fingerprint in digest(), rows: u64, rows_digest in digest(),
        ) {
            let shard = ShardId(shard);
            let header =
                ShardHeader { version, shard, blocks, table_crc, file_bytes, fingerprint, rows, rows_digest };
            prop_assert_eq!(ShardHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn any_header_is_refused_or_comes_back(bytes in prop::collection::vec(any::<u8>(), 248)) {
            let mut whole = [0; SHARD_HEADER_BYTES];
            whole[..8].copy_from_slice(&MAGIC);
            whole[8] = 1;
            whole[12..104].copy_from_slice(&bytes[..92]);
            let whole = with_crc(whole);
            if let Ok(header) = ShardHeader::decode(&whole) {
                prop_assert_eq!(header.encode(), whole);
            }
        }
    }
}
