//! Frames of blocks as fields of Redis hashes: keys, cutting, and the header by which a foreign or damaged
//! field is known.
//!
//! In: blocks and frame numbers, or fields. Out: keys and fields, or checked payloads. It knows no connection.

use bytes::Bytes;
use hyperrag_core::{Blob, BlobKey, TierError};

/// Bytes of a block in a field: with its header and the server's own 60-odd bytes a field of 1 MiB, a size that
/// the server's allocator has a class for.
pub(super) const FRAME_BYTES: u64 = (1 << 20) - 100;
/// Frames in one hash: 16 MiB, for a server's only thread writes a hash at once.
pub(super) const HASH_FRAMES: u32 = 16;
/// Length of a field's header, in bytes.
pub(super) const HEADER_BYTES: usize = 36;
/// Frames that a block may have: a header has 16 bits for the number.
const FRAMES_MAX: u64 = 1 << 16;

const MAGIC: &[u8; 4] = b"HRF1";
/// Start of the header that its checksum covers.
const SUMMED: usize = 32;

/// Name of a frame: the block and the number.
#[derive(Clone, Copy)]
pub(super) struct FrameName {
    pub(super) key: BlobKey,
    pub(super) frame: u16,
}

impl FrameName {
    fn header(self, payload: &[u8]) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(MAGIC);
        header[4..6].copy_from_slice(&self.frame.to_le_bytes());
        header[8..24].copy_from_slice(&self.key.table);
        header[24..28].copy_from_slice(&self.key.slot.0.to_le_bytes());
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        header[28..SUMMED].copy_from_slice(&length.to_le_bytes());
        let sum = checksum(&header[..SUMMED], payload);
        header[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        header
    }

    /// Returns the field of the frame with these bytes: header and payload.
    pub(super) fn field(self, payload: &[u8]) -> Vec<u8> {
        let mut field = Vec::with_capacity(HEADER_BYTES + payload.len());
        field.extend_from_slice(&self.header(payload));
        field.extend_from_slice(payload);
        field
    }

    /// Checks a field and returns its payload of `length` bytes.
    ///
    /// # Errors
    /// [`TierError::Protocol`] if it is not a field, that of another frame, cut, or damaged.
    pub(super) fn payload(self, field: Vec<u8>, length: u64) -> Result<Bytes, TierError> {
        let wrong = |what: &str| {
            TierError::Protocol(format!("frame {} of block {}: {what}", self.frame, self.key))
        };
        let Some((header, payload)) = field.split_at_checked(HEADER_BYTES) else {
            return Err(wrong("the field is shorter than its header"));
        };
        if &header[..4] != MAGIC {
            return Err(wrong("the field was not written by hyperrag"));
        }
        if payload.len() as u64 != length {
            return Err(wrong(&format!("{} bytes in place of {length}", payload.len())));
        }
        let expected = self.header(payload);
        if header[8..28] != expected[8..28] {
            return Err(wrong("the field is that of another block"));
        }
        if header[4..8] != expected[4..8] {
            return Err(wrong("the field is that of another frame"));
        }
        if header != expected {
            return Err(wrong("the checksum differs"));
        }
        Ok(Bytes::from(field).slice(HEADER_BYTES..))
    }
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(header);
    sum.update(payload);
    sum.finalize()
}

/// Returns the number of frames of a block.
///
/// # Errors
/// [`TierError::Refused`] if a block is empty or has more frames than a header can number.
pub(super) fn frame_count(blob: &Blob) -> Result<u32, TierError> {
    let frames = blob.bytes.div_ceil(FRAME_BYTES);
    if frames == 0 || frames > FRAMES_MAX {
        return Err(TierError::Refused(format!(
            "a block of {} bytes is not stored in Redis, which takes 1 byte to 64 GiB",
            blob.bytes
        )));
    }
    Ok(frames as u32)
}

/// Returns the number of hashes of a block of `frames` frames.
pub(super) fn hash_count(frames: u32) -> u32 {
    frames.div_ceil(HASH_FRAMES)
}

/// Returns the key of the hash number `part` of a block of `frames` frames.
pub(super) fn hash_key(prefix: &str, key: &BlobKey, frames: u32, part: u32) -> String {
    if hash_count(frames) <= 1 {
        format!("{prefix}:{{{key}}}")
    } else {
        format!("{prefix}:{{{key}.{part}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyperrag_core::{ShardId, Slot};

    fn name(slot: u32, frame: u16) -> FrameName {
        let key = BlobKey { table: *b"0123456789abcdef", slot: Slot(slot) };
        FrameName { key, frame }
    }

    #[test]
    fn a_field_gives_its_payload_to_its_own_name_alone() {
        let field = name(7, 3).field(b"payload");
        assert_eq!(field[..8], *b"HRF1\x03\0\0\0");
        assert_eq!(field[28..32], 7u32.to_le_bytes());
        assert_eq!(name(7, 3).payload(field.clone(), 7).unwrap(), &b"payload"[..]);
        let refused = |name: FrameName, field: &[u8], length| {
            let error = name.payload(field.to_vec(), length).unwrap_err();
            assert!(matches!(error, TierError::Protocol(_)));
            error.to_string()
        };
        assert!(refused(name(8, 3), &field, 7).contains("another block"));
        assert!(refused(name(7, 4), &field, 7).contains("another frame"));
        assert!(refused(name(7, 3), &field, 8).contains("7 bytes in place of 8"));
        assert!(refused(name(7, 3), &field[..20], 7).contains("shorter"));
        assert!(refused(name(7, 3), &[b'x'; 43], 7).contains("not written by"));
        for at in 0..field.len() {
            let mut damaged = field.clone();
            damaged[at] ^= 1;
            refused(name(7, 3), &damaged, 7);
        }
    }

    #[test]
    fn blocks_of_more_than_sixteen_frames_have_several_hashes() {
        let key = name(5, 0).key;
        let blob = |bytes| Blob { key, shard: ShardId(0), offset: 0, bytes };
        let keys = |bytes| {
            let frames = frame_count(&blob(bytes)).unwrap();
            (0..hash_count(frames))
                .map(|part| hash_key("hr1", &key, frames, part))
                .collect::<Vec<_>>()
        };
        let table = key.table_name();
        assert_eq!(keys(1), [format!("hr1:{{{table}.5}}")]);
        assert_eq!(keys(16 * FRAME_BYTES), [format!("hr1:{{{table}.5}}")]);
        let two = [format!("hr1:{{{table}.5.0}}"), format!("hr1:{{{table}.5.1}}")];
        assert_eq!(keys(16 * FRAME_BYTES + 1), two);
        assert!(frame_count(&blob(0)).is_err());
        assert!(frame_count(&blob(u64::MAX)).is_err());
    }
}
