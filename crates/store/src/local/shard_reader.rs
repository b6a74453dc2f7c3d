//! Opens one shard file and checks it, and its blocks, against the manifest. In: a path and a manifest. Out:
//! the block table, or a fault. Every length comes from the checked table.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hyperrag_core::{Digest, KvShape, ShardId};

use crate::error::StoreError;
use crate::format::block_header::BlockHeader;
use crate::format::block_table::{BlockEntry, ENTRY_BYTES, decode_table, first_offset, table_end};
use crate::format::bytes::check_crc;
use crate::format::manifest::Manifest;
use crate::format::paths::{StorePaths, is_shard};
use crate::format::shard_header::{BLOCKS_PER_SHARD_MAX, SHARD_HEADER_BYTES, ShardHeader};
use crate::local::open::{open_plain, open_sized, read_plain};
use crate::read_error::ReadError;

/// Size of the reads of a check, in bytes. The bytes stay in a core's cache until they are summed.
const CHECK_BYTES: usize = 256 << 10;

/// Size of a page, in bytes. The kernel copies to an address of another alignment at about half the speed.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Header and block table of a shard that no manifest names.
pub(crate) struct UnnamedShard {
    pub(crate) header: ShardHeader,
    /// Digest of header and table.
    pub(crate) digest: Digest,
    /// Checksums of the blocks' headers, by slot.
    pub(crate) header_crcs: Vec<u32>,
}

impl UnnamedShard {
    /// Reads header and table of a shard. Checks their checksums.
    pub(crate) fn read(paths: &StorePaths, shard: ShardId) -> Result<Self, StoreError> {
        let path = paths.shard(shard);
        Self::read_at(&path, shard).map_err(|fault| fault.of_file(&path))
    }

    fn read_at(path: &Path, shard: ShardId) -> Result<Self, ReadError> {
        let file = open_plain(path)?;
        let mut bytes = vec![0; SHARD_HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        let header = ShardHeader::decode(bytes.first_chunk().expect("256 bytes"))?;
        bytes.resize(table_end(header.blocks as usize), 0);
        let table = &mut bytes[SHARD_HEADER_BYTES..];
        file.read_exact_at(table, SHARD_HEADER_BYTES as u64)?;
        if crc32fast::hash(table) != header.table_crc || header.shard != shard {
            return Err("its block table is damaged too".to_owned().into());
        }
        let header_crcs = table.chunks_exact(ENTRY_BYTES).map(BlockEntry::decode);
        let header_crcs = header_crcs.map(|entry| entry.header_crc).collect();
        Ok(Self { header, digest: Digest::of(&bytes), header_crcs })
    }
}

/// Returns the digest of header and table in the file of a block table; `None` if it is none.
pub(crate) fn table_digest(path: &Path) -> Option<Digest> {
    let mut bytes = read_plain(path, first_offset(BLOCKS_PER_SHARD_MAX)).ok()?;
    let header = ShardHeader::decode(bytes.first_chunk()?).ok()?;
    let end = table_end(header.blocks as usize);
    let padded = first_offset(header.blocks as usize) == bytes.len() as u64;
    let padding = padded.then(|| bytes.split_off(end))?;
    padding.iter().all(|byte| *byte == 0).then(|| Digest::of(&bytes))
}

/// Lists the readable headers of the shards in a store's folder.
pub(crate) fn shard_headers(paths: &StorePaths) -> impl Iterator<Item = ShardHeader> {
    header_bytes(paths).filter_map(|bytes| ShardHeader::decode(&bytes).ok())
}

/// Lists the format versions in the intact headers of the shards.
pub(crate) fn shard_versions(paths: &StorePaths) -> impl Iterator<Item = u32> {
    header_bytes(paths).filter_map(|bytes| ShardHeader::version(&bytes))
}

fn header_bytes(paths: &StorePaths) -> impl Iterator<Item = [u8; SHARD_HEADER_BYTES]> + use<> {
    let entries = fs::read_dir(paths.shards()).into_iter().flatten().flatten();
    let shards = entries.map(|entry| entry.path()).filter(|path| is_shard(path));
    shards.filter_map(|path| {
        let mut bytes = [0; SHARD_HEADER_BYTES];
        open_plain(&path).ok()?.read_exact(&mut bytes).ok()?;
        Some(bytes)
    })
}

/// Block table of a shard, with a header and a table as the manifest names them.
pub(crate) struct OpenShard {
    pub(crate) path: PathBuf,
    /// Length of the file, in bytes.
    pub(crate) bytes: u64,
    pub(crate) entries: Vec<BlockEntry>,
}

impl OpenShard {
    /// Opens the file at `path` as shard `shard` of `manifest`. `fingerprint` is the digest of the manifest's
    /// fingerprint.
    pub(crate) fn open(
        path: &Path,
        manifest: &Manifest,
        fingerprint: &Digest,
        shard: ShardId,
    ) -> Result<(Self, File), ReadError> {
        let file = open_sized(path, manifest.record(shard).kv.bytes)?;
        Ok((Self::read(path, &file, manifest, fingerprint, shard)?, file))
    }

    /// Reads the table of a shard that is kept without it (see [`StorePaths::table`]).
    pub(crate) fn read_table(
        path: &Path,
        manifest: &Manifest,
        fingerprint: &Digest,
        shard: ShardId,
    ) -> Result<Self, ReadError> {
        let blocks = manifest.record(shard).chunks.min(BLOCKS_PER_SHARD_MAX as u64) as usize;
        let file = open_sized(path, first_offset(blocks))?;
        Self::read(path, &file, manifest, fingerprint, shard)
    }

    /// Reads a shard's header and table from an open file. The caller has checked its length.
    pub(crate) fn read(
        path: &Path,
        file: &File,
        manifest: &Manifest,
        fingerprint: &Digest,
        shard: ShardId,
    ) -> Result<Self, ReadError> {
        let record = manifest.record(shard);
        let length = record.kv.bytes;
        let mut start = vec![0; SHARD_HEADER_BYTES];
        file.read_exact_at(&mut start, 0)?;
        let bytes = start.first_chunk().expect("256 bytes were read");
        let header = ShardHeader::decode(bytes)?;
        let version = manifest.fingerprint.format_version;
        let expected = (version, shard, *fingerprint, record.chunks, length);
        let ShardHeader { fingerprint, blocks, file_bytes, .. } = header;
        if (header.version, header.shard, fingerprint, u64::from(blocks), file_bytes) != expected {
            return Err("it is a shard of another store or place".to_owned().into());
        }
        let first = first_offset(blocks as usize);
        if first > length {
            return Err(format!("its block table would end at {first} of {length} bytes").into());
        }
        start.resize(first as usize, 0);
        file.read_exact_at(&mut start[SHARD_HEADER_BYTES..], SHARD_HEADER_BYTES as u64)?;
        let padding = start.split_off(table_end(blocks as usize));
        if padding.iter().any(|byte| *byte != 0) {
            return Err("the padding after the block table is not zero".to_owned().into());
        }
        let (kv_shape, tokens_max) =
            (&manifest.fingerprint.kv_shape, manifest.fingerprint.chunk_tokens);
        let entries = decode_table(&start[SHARD_HEADER_BYTES..], &header, kv_shape, tokens_max)?;
        if Digest::of(&start) != record.kv.digest {
            let what = "header and table are not those that the manifest names";
            return Err(what.to_owned().into());
        }
        Ok(Self { path: path.to_owned(), bytes: length, entries })
    }

    /// Returns the name of a block in messages.
    pub(crate) fn place(&self, slot: u32) -> String {
        format!("{}: block {slot}", self.path.display())
    }

    /// Refuses the block of `slot` if its identity does not follow from its chunk.
    pub(crate) fn check_identity(&self, slot: usize, identity: &Digest) -> Result<(), StoreError> {
        if self.entries[slot].identity == *identity {
            return Ok(());
        }
        let what = format!("block {slot} and its chunk do not fit together");
        Err(StoreError::damaged(&self.path, what))
    }

    /// Makes the error of copying a damaged block.
    pub(crate) fn damaged_block(&self, slot: usize, what: &str) -> StoreError {
        StoreError::damaged(&self.path, format!("block {slot}: {what}"))
    }
}

/// Checks every byte of the block of `entry`. `buffer` only grows, so that a caller who keeps it saves
/// allocations.
pub(crate) fn check_block(
    file: &File,
    entry: &BlockEntry,
    kv_shape: &KvShape,
    buffer: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let layer_bytes = kv_shape.layer_bytes(entry.tokens as usize);
    let group = (CHECK_BYTES / layer_bytes.max(1)).clamp(1, kv_shape.layers as usize);
    let rest_bytes = kv_shape.hidden_bytes() + entry.padding();
    let bytes = entry.header_bytes as usize + rest_bytes.max(group * layer_bytes);
    if buffer.len() < bytes + PAGE_BYTES {
        buffer.resize(bytes + PAGE_BYTES, 0);
    }
    let aligned = buffer.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
    let (header, part) = buffer[aligned..].split_at_mut(entry.header_bytes as usize);
    file.read_exact_at(header, entry.offset)?;
    let header = BlockHeader::decode(header, entry.header_crc, kv_shape)?;
    if (header.identity, header.tokens) != (entry.identity, entry.tokens) {
        return Err("its head is that of another block".to_owned().into());
    }
    let mut offset = entry.kv_offset();
    let layers = kv_shape.layers as usize;
    for first in (0..layers).step_by(group) {
        let part = &mut part[..group.min(layers - first) * layer_bytes];
        file.read_exact_at(part, offset)?;
        check_layers(&header, first, layer_bytes, part)?;
        offset += part.len() as u64;
    }
    let rest = &mut part[..rest_bytes];
    file.read_exact_at(rest, offset)?;
    check_rest(&header, kv_shape, rest)?;
    Ok(())
}

/// Checks every byte of the block of `entry`, which is in memory.
pub(crate) fn check_block_bytes(
    bytes: &[u8],
    entry: &BlockEntry,
    kv_shape: &KvShape,
) -> Result<(), ReadError> {
    if bytes.len() as u64 != entry.bytes {
        return Err(format!("{} bytes, expected {}", bytes.len(), entry.bytes).into());
    }
    let (header, rest) = bytes.split_at(entry.header_bytes as usize);
    let header = BlockHeader::decode(header, entry.header_crc, kv_shape)?;
    if (header.identity, header.tokens) != (entry.identity, entry.tokens) {
        return Err("its head is that of another block".to_owned().into());
    }
    let layer_bytes = kv_shape.layer_bytes(entry.tokens as usize);
    let (kv, hidden) = rest.split_at(kv_shape.layers as usize * layer_bytes);
    check_layers(&header, 0, layer_bytes, kv)?;
    check_rest(&header, kv_shape, hidden).map(drop)
}

/// Checks K and V of the layers from `first` on.
fn check_layers(
    header: &BlockHeader<'_>,
    first: usize,
    layer_bytes: usize,
    kv: &[u8],
) -> Result<(), ReadError> {
    for (layer, bytes) in (first..).zip(kv.chunks_exact(layer_bytes)) {
        let expected = u32::from_le_bytes(header.layer_crcs[layer]);
        check_crc(format_args!("layer {layer}"), expected, bytes)?;
    }
    Ok(())
}

/// Checks the hidden state and the zeros after it. Returns the hidden state.
fn check_rest<'a>(
    header: &BlockHeader<'_>,
    kv_shape: &KvShape,
    rest: &'a [u8],
) -> Result<&'a [u8], ReadError> {
    let (hidden, padding) = rest.split_at(kv_shape.hidden_bytes());
    check_crc("the hidden state", header.hidden_crc, hidden)?;
    check_padding(padding)?;
    Ok(hidden)
}

/// Refuses bytes other than zero after a block.
pub(crate) fn check_padding(padding: &[u8]) -> Result<(), ReadError> {
    match padding.iter().any(|byte| *byte != 0) {
        true => Err("the padding after the block is not zero".to_owned().into()),
        false => Ok(()),
    }
}
