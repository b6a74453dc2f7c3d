//! Header of a block: fields come in, bytes go out, and back. It knows neither the block's place nor its K
//! and V.

use hyperrag_core::{Digest, KvShape};

use crate::format::bytes::{check_crc, field, u32_at};

const FIXED_BYTES: usize = 52;
const HEADER_ALIGN: usize = 64;

/// Returns the size of a block's header with a document id of `id_bytes` bytes.
pub(crate) fn block_header_bytes(kv_shape: &KvShape, id_bytes: usize) -> usize {
    (FIXED_BYTES + 4 * kv_shape.layers as usize + id_bytes).next_multiple_of(HEADER_ALIGN)
}

/// Header of a block, before its K and V: whose block it is, and the checksums of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader<'a> {
    pub(crate) identity: Digest,
    pub(crate) document: &'a str,
    pub(crate) ordinal: u32,
    pub(crate) tokens: u32,
    pub(crate) hidden_crc: u32,
    /// Checksums of the layers, little-endian as in the file.
    pub(crate) layer_crcs: &'a [[u8; 4]],
}

impl<'a> BlockHeader<'a> {
    pub(crate) fn encode(&self, kv_shape: &KvShape) -> Vec<u8> {
        let id = self.document.as_bytes();
        let mut bytes = Vec::with_capacity(block_header_bytes(kv_shape, id.len()));
        bytes.extend_from_slice(&self.identity.0);
        for number in [self.ordinal, self.tokens, id.len() as u32, kv_shape.layers, self.hidden_crc]
        {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(self.layer_crcs.as_flattened());
        bytes.extend_from_slice(id);
        bytes.resize(block_header_bytes(kv_shape, id.len()), 0);
        bytes
    }

    /// Decodes a header. `crc` comes from the table, so the header is known to be intact before it is read.
    pub(crate) fn decode(bytes: &'a [u8], crc: u32, kv_shape: &KvShape) -> Result<Self, String> {
        check_crc("the block's head", crc, bytes)?;
        let layers = kv_shape.layers as usize;
        let names_at = FIXED_BYTES + 4 * layers;
        if bytes.len() < names_at || u32_at(bytes, 44) as usize != layers {
            return Err("the block's head has another number of layers".to_owned());
        }
        let id_bytes = u32_at(bytes, 40) as usize;
        if id_bytes > hyperrag_core::ID_BYTES_MAX
            || block_header_bytes(kv_shape, id_bytes) != bytes.len()
        {
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
            layer_crcs: bytes[FIXED_BYTES..names_at].as_chunks().0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::strategies::{digest, kv_shape};

    proptest! {
        #[test]
        fn headers_come_back(
            kv_shape in kv_shape(), identity in digest(), document in "\\PC{1,128}", ordinal: u32,
            tokens: u32, hidden_crc: u32, crc: u32,
        ) {
            let layer_crcs = &vec![crc.to_le_bytes(); kv_shape.layers as usize];
            let document = &document;
            let header = BlockHeader { identity, document, ordinal, tokens, hidden_crc, layer_crcs };
            let bytes = header.encode(&kv_shape);
            prop_assert_eq!(bytes.len(), block_header_bytes(&kv_shape, header.document.len()));
            prop_assert_eq!(BlockHeader::decode(&bytes, crc32fast::hash(&bytes), &kv_shape), Ok(header));
            prop_assert!(BlockHeader::decode(&bytes, !crc32fast::hash(&bytes), &kv_shape).is_err());
        }

        #[test]
        fn any_header_with_a_right_checksum_is_refused_or_comes_back(
            kv_shape in kv_shape(), mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            id_bytes in 0..80u32,
        ) {
            // Makes the two lengths fit now and then.
            if bytes.len() >= 48 {
                bytes[40..44].copy_from_slice(&id_bytes.to_le_bytes());
                bytes[44..48].copy_from_slice(&kv_shape.layers.to_le_bytes());
            }
            if let Ok(header) = BlockHeader::decode(&bytes, crc32fast::hash(&bytes), &kv_shape) {
                prop_assert_eq!(header.encode(&kv_shape), bytes);
            }
        }
    }
}
