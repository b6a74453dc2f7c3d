//! Entry points for fuzzers, one a parser: bytes come in, and whether the parser took them goes out. No bytes
//! may cause a panic, take much memory or pass for other content. Checksums are corrected first, because
//! otherwise nothing would get past them.

use std::fs;
use std::sync::Arc;

use hyperrag_core::{
    BlockKey, Calibration, ChunkId, Digest, DocId, Fingerprint, KvDtype, KvShape, LayerSource,
    ShardId, Slot,
};

use crate::format::block_header::BlockHeader;
use crate::format::block_table::{ENTRY_BYTES, decode_table};
use crate::format::journal::JournalLine;
use crate::format::manifest::Manifest;
use crate::format::notes;
use crate::format::records::{FileRecord, ShardRecord};
use crate::format::shard_header::{SHARD_HEADER_BYTES, ShardHeader};
use crate::format::version::FORMAT_VERSION;
use crate::local::open_files::OpenFiles;
use crate::local::shard_reader::{OpenShard, check_block};
use crate::local::stored_block::StoredBlock;

const KV_SHAPE: KvShape =
    KvShape { layers: 2, kv_heads: 1, head_dim: 4, hidden: 8, kv_dtype: KvDtype::Bf16 };
const TOKENS_MAX: u32 = 16;

/// Parses a shard's header, which must be refused or encode to the same bytes.
#[must_use]
pub fn header(bytes: &[u8]) -> bool {
    let Some(bytes) = bytes.first_chunk::<SHARD_HEADER_BYTES>() else { return false };
    let mut taken = false;
    for bytes in [*bytes, with_crc(*bytes)] {
        if let Ok(header) = ShardHeader::decode(&bytes) {
            assert_eq!(header.encode(), bytes);
            taken = true;
        }
    }
    taken
}

fn with_crc(mut bytes: [u8; SHARD_HEADER_BYTES]) -> [u8; SHARD_HEADER_BYTES] {
    let crc = crc32fast::hash(&bytes[..SHARD_HEADER_BYTES - 4]);
    bytes[SHARD_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Parses a block table, which must be refused or place its blocks in order up to the end of the file.
#[must_use]
pub fn table(bytes: &[u8]) -> bool {
    let Some((file_bytes, table)) = bytes.split_first_chunk() else { return false };
    let table = &table[..table.len() / ENTRY_BYTES * ENTRY_BYTES];
    let header = ShardHeader {
        version: FORMAT_VERSION,
        shard: ShardId(0),
        blocks: (table.len() / ENTRY_BYTES) as u32,
        table_crc: crc32fast::hash(table),
        file_bytes: u64::from_le_bytes(*file_bytes),
        fingerprint: Digest([0; 32]),
        rows: 0,
        rows_digest: Digest([0; 32]),
    };
    let entries = decode_table(table, &header, &KV_SHAPE, TOKENS_MAX);
    if let Ok(entries) = &entries {
        let ends = entries.iter().map(|entry| entry.padded_end());
        assert!(
            ends.is_sorted() && entries.last().is_none_or(|e| e.padded_end() == header.file_bytes)
        );
    }
    entries.is_ok()
}

/// Parses a block's header, which must be refused or encode to the same bytes.
#[must_use]
pub fn block_header(bytes: &[u8]) -> bool {
    let header = BlockHeader::decode(bytes, crc32fast::hash(bytes), &KV_SHAPE);
    if let Ok(header) = &header {
        assert_eq!(header.encode(&KV_SHAPE), bytes);
    }
    header.is_ok()
}

/// Parses a manifest: these bytes, and a manifest with these bytes as its body.
#[must_use]
pub fn manifest(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let mut taken = false;
    let whole = format!("{{\"checksum\":\"{}\",\"manifest\":{text}}}", Digest::of(bytes));
    for text in [text, &whole] {
        if let Ok(manifest) = Manifest::parse(text.as_bytes()) {
            let live = manifest.live_rows();
            let deleted = manifest.tombstones.iter().flat_map(|deleted| &deleted.rows);
            assert!(deleted.clone().all(|row| !live.contains(*row)));
            assert!(manifest.shards.iter().all(|record| {
                manifest.shard(record.shard) == Some(record)
                    && (record.shard < manifest.next_shard() || record.shard.0 == u32::MAX)
            }));
            taken = true;
        }
    }
    taken
}

/// Parses notes: these bytes, and notes with these bytes as their body. What is taken comes back.
#[must_use]
pub fn notes(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let whole = format!("{{\"checksum\":\"{}\",\"notes\":{text}}}", Digest::of(bytes));
    let mut taken = false;
    for text in [text, &whole] {
        if let Ok(found) = notes::parse(text.as_bytes()) {
            assert_eq!(notes::parse(&notes::encode(&found)), Ok(found));
            taken = true;
        }
    }
    taken
}

/// Parses a line of the journal: these bytes, and these bytes after their checksum.
#[must_use]
pub fn journal(bytes: &[u8]) -> bool {
    let with_crc = [format!("{:08x} ", crc32fast::hash(bytes)).as_bytes(), bytes].concat();
    let mut taken = false;
    for bytes in [bytes, &with_crc] {
        if let Some(line) = JournalLine::parse(bytes) {
            let again = line.encode();
            assert_eq!(JournalLine::parse(again.trim_end().as_bytes()), Some(line));
            taken = true;
        }
    }
    taken
}

/// Parses a calibration, which must be refused or encode to the same bytes.
#[must_use]
pub fn calibration(bytes: &[u8]) -> bool {
    let calibration = Calibration::from_bytes(bytes);
    if let Ok(calibration) = &calibration {
        let again = calibration.to_bytes();
        // The reader ignores the four zero bytes.
        assert_eq!((&again[..28], &again[32..]), (&bytes[..28], &bytes[32..]));
    }
    calibration.is_ok()
}

/// Opens a whole shard as a manifest would name it, and reads each of its blocks.
#[must_use]
pub fn shard(bytes: &[u8]) -> bool {
    let Some(start) = bytes.first_chunk::<SHARD_HEADER_BYTES>() else { return false };
    let mut bytes = bytes.to_vec();
    let blocks = u32::from_le_bytes([start[16], start[17], start[18], start[19]]) as usize;
    let table =
        SHARD_HEADER_BYTES..SHARD_HEADER_BYTES.saturating_add(blocks.saturating_mul(ENTRY_BYTES));
    if let Some(table) = bytes.get(table.clone()) {
        let crc = crc32fast::hash(table);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    }
    let length = bytes.len() as u64;
    bytes[24..32].copy_from_slice(&length.to_le_bytes());
    let fixed = with_crc(*bytes.first_chunk().expect("256 bytes"));
    bytes[..SHARD_HEADER_BYTES].copy_from_slice(&fixed);
    let start = bytes.get(..table.end).unwrap_or(&bytes);
    let manifest = manifest_of(Digest::of(start), length, blocks);
    let name = format!("hyperrag-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    if fs::write(&path, &bytes).is_err() {
        return false;
    }
    let fingerprint = Digest(array(&bytes[32..64]));
    let mut blocks = 0;
    if let Ok((shard, file)) = OpenShard::open(&path, &manifest, &fingerprint, ShardId(0)) {
        let (shard, files) = (Arc::new(shard), Arc::new(OpenFiles::new()));
        let mut buffer = Vec::new();
        for (slot, entry) in (0..).map(Slot).zip(&shard.entries) {
            let document = DocId::stored("doc 0 ä").expect("an id");
            let chunk = ChunkId { document, ordinal: slot.0 };
            let key = BlockKey { shard: ShardId(0), slot, chunk };
            let opened = StoredBlock::open(Arc::clone(&shard), Arc::clone(&files), &KV_SHAPE, &key);
            let read = opened.as_ref().is_ok_and(|block| block.read().is_ok());
            let layer = |layer| opened.as_ref().is_ok_and(|b| b.layer(layer, &mut buffer).is_ok());
            let layers = (0..KV_SHAPE.layers as usize).all(layer);
            assert_eq!(layers, read, "a block is whole where each of its layers is");
            let checked = check_block(&file, entry, &KV_SHAPE, &mut buffer).is_ok();
            assert!(checked || !read, "what is read has been checked");
            blocks += usize::from(read);
        }
    }
    // Best effort: the next run overwrites it.
    let _ = fs::remove_file(&path);
    blocks > 0
}

fn array(bytes: &[u8]) -> [u8; 32] {
    let mut array = [0; 32];
    array.copy_from_slice(bytes);
    array
}

/// Makes a manifest that names a shard of these sizes.
fn manifest_of(digest: Digest, bytes: u64, blocks: usize) -> Arc<Manifest> {
    let file = FileRecord { bytes, digest };
    let record = ShardRecord {
        shard: ShardId(0),
        rows: 0,
        rows_digest: Digest([0; 32]),
        documents: 0,
        chunks: blocks as u64,
        tokens: 0,
        kv: file.clone(),
        chunk_file: file,
        repaired_by: None,
    };
    let text = Digest([0; 32]);
    let fingerprint = Fingerprint {
        format_version: FORMAT_VERSION,
        model: String::new(),
        weights: text,
        tokenizer: text,
        profile: String::new(),
        profile_digest: text,
        chunk_tokens: TOKENS_MAX,
        unit_rows: 1,
        language: "english".into(),
        kv_shape: KV_SHAPE,
        calibration: None,
        rope: String::new(),
        dtype: String::new(),
        kernel: String::new(),
    };
    Arc::new(Manifest { shards: vec![record], ..Manifest::first(fingerprint) })
}
