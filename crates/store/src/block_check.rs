//! Checks of a block's bytes, from whatever tier: bytes come in, and the checksums that the store's manifest
//! leads to decide. The chain is manifest, table, head, layers and hidden state.

use hyperrag_core::{BlockKey, KvDtype, KvShape};

use crate::format::block_header::BlockHeader;
use crate::format::block_table::BlockEntry;
use crate::format::bytes::check_crc;

/// Checksums of a block, from its checked head.
pub(crate) struct BlockCheck {
    layer_crcs: Vec<u32>,
    hidden_crc: u32,
}

impl BlockCheck {
    /// Reads the checksums from a block's head. The head must have the checksum of the table's entry, and be
    /// of the block of `key`.
    pub(crate) fn of_head(
        head: &[u8],
        entry: &BlockEntry,
        kv_shape: &KvShape,
        key: &BlockKey,
    ) -> Result<Self, String> {
        let header = BlockHeader::decode(head, entry.header_crc, kv_shape)?;
        let meant = header.identity == entry.identity
            && header.document == key.chunk.document.as_str()
            && header.ordinal == key.chunk.ordinal
            && header.tokens == entry.tokens;
        if !meant {
            let found = format!("chunk {} of document {}", header.ordinal, header.document);
            return Err(format!("it holds {found}, not {}", key.chunk));
        }
        let layer_crcs = header.layer_crcs.iter().map(|crc| u32::from_le_bytes(*crc)).collect();
        Ok(Self { layer_crcs, hidden_crc: header.hidden_crc })
    }

    /// Checks K and V of a layer.
    pub(crate) fn layer(&self, layer: usize, bytes: &[u8]) -> Result<(), String> {
        check_crc(format_args!("layer {layer}"), self.layer_crcs[layer], bytes)
    }

    /// Checks the bytes of the hidden state and decodes them.
    pub(crate) fn hidden(&self, kv_shape: &KvShape, bytes: &[u8]) -> Result<Vec<f32>, String> {
        check_crc("the hidden state", self.hidden_crc, bytes)?;
        let mut hidden = vec![0.0; kv_shape.hidden as usize];
        KvDtype::F32.decode(bytes, &mut hidden);
        Ok(hidden)
    }
}
